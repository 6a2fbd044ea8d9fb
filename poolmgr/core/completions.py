"""What a worker has completed: many tasks in one go, where they are the usual ones."""

from __future__ import annotations

from collections.abc import Sequence

from poolmgr.core.breakers import Breakers
from poolmgr.core.effects import Finished, FinishedMany
from poolmgr.core.lifecycle import Lifecycle
from poolmgr.core.past import NO_PAST
from poolmgr.core.slot import Slot
from poolmgr.core.starter import Starter
from poolmgr.core.state import State
from poolmgr.core.task import Task, Watchers
from poolmgr.model import TaskOptions, TaskState
from poolmgr.payload import Payload

_RUNNING, _COMPLETED = TaskState.RUNNING, TaskState.COMPLETED  # looked up for every task
Result = tuple[int, float, float, Payload]  # of a completed task: its fence, begun at, ended at, the result's payload


class Completions:
    """Takes results in. A task that concerns nobody but the client whose call it is ends here; all others' ends are
    the lifecycle's."""

    def __init__(self, state: State, starter: Starter, breakers: Breakers, lifecycle: Lifecycle) -> None:
        self._state = state
        self._starter = starter
        self._breakers = breakers
        self._lifecycle = lifecycle

    def take(self, slot: Slot, results: Sequence[Result], now: float) -> list[Task]:
        """A worker has completed the first tasks that it holds, one after the other. Returns those whose results they
        are; what is out of date is passed over."""
        if len(results) != 1:
            return self._take_many(slot, results, now)
        [(fence, begun_at, ended_at, payload)] = results
        if not slot.in_flight or slot.in_flight[0].fence != fence:
            return []
        task = slot.in_flight.popleft()
        self._state.statistics.ran(task.name, (ended_at - begun_at,), (begun_at - task.queued_at,))
        self._complete(task, slot, begun_at, ended_at - begun_at, payload, now)
        return [task]

    def _take_many(self, slot: Slot, results: Sequence[Result], now: float) -> list[Task]:
        state, in_flight = self._state, slot.in_flight
        tasks, streams = state.tasks, state.streams
        ended: list[Task] = []
        run_s: list[float] = []
        wait_s: list[float] = []
        options: TaskOptions | None = None
        watchers: Watchers | None = None
        owner = -1
        simple = False  # what has this name, and these options and watchers, is one of the usual
        calls: dict[bytes, Task] = {}
        ids: list[bytes] = []  # of usual ones, whose client is to be told
        outcomes: list[Payload] = []
        for fence, begun_at, ended_at, payload in results:
            if not in_flight or in_flight[0].fence != fence:
                continue
            task = in_flight.popleft()
            if ended and ended[-1].name != task.name:
                state.statistics.ran(ended[-1].name, run_s, wait_s)
                run_s, wait_s = [], []
                options = None
            ended.append(task)
            run_s.append(ended_at - begun_at)
            wait_s.append(begun_at - task.queued_at)
            if task.options is not options or task.watchers is not watchers:
                self._tell(owner, ids, outcomes)
                ids, outcomes = [], []
                options, watchers, owner = task.options, task.watchers, task.owner
                session = state.sessions.get(owner)
                simple = session is not None and watchers is session.watching and self._is_simple(task.name, options)
                calls = session.calls if session is not None else {}
            if simple and task.past is NO_PAST and not (streams and task.id in streams):
                task.state = _COMPLETED  # it was running, or prefetched
                del tasks[task.id]
                del calls[task.id]
                ids.append(task.id)
                outcomes.append(payload)
            else:
                self._tell(owner, ids, outcomes)
                ids, outcomes = [], []
                self._complete(task, slot, begun_at, run_s[-1], payload, now)
        self._tell(owner, ids, outcomes)
        if ended:
            state.statistics.ran(ended[-1].name, run_s, wait_s)
        return ended

    def _tell(self, client: int, ids: list[bytes], outcomes: list[Payload]) -> None:
        if not ids:
            return
        self._state.statistics.completed += len(ids)
        effects = self._state.effects
        if len(ids) == 1:
            effects.append(Finished(client, ids[0], _COMPLETED, "", outcomes[0], 0))
        else:
            effects.append(FinishedMany(client, ids, outcomes))

    def _complete(self, task: Task, slot: Slot, begun_at: float, run_s: float, payload: Payload, now: float) -> None:
        state = self._state
        if task.state is not _RUNNING:
            self._starter.catch_up(task, slot)
        if state.limits:
            self._starter.ended(task)
        if state.listening:
            self._tell_listeners(task, slot, run_s)
        if state.breakers and task.name in state.breakers:
            self._breakers.completed(task.name, task.fence)
        task.started_at = begun_at
        self._lifecycle.end(task, now, _COMPLETED, "", payload)

    def _tell_listeners(self, task: Task, slot: Slot, run_s: float) -> None:
        fields = {
            "task_id": task.id.hex(), "name": task.name, "worker_id": slot.id, "duration_s": run_s,
            "attempt": task.attempt,
        }  # fmt: skip
        self._state.emit("task-completed", fields, self._state.commit if task.options.durable else 0)

    def _is_simple(self, name: str, options: TaskOptions) -> bool:
        """Whether the end of such a call is nothing to anybody but its client: ``Lifecycle.end`` has all that the end
        of a task may be."""
        state = self._state
        return (
            not state.listening
            and name not in state.limits
            and name not in state.breakers
            and options.key is None
            and options.expires_s is None
            and not options.delay_s
            and options.at is None
        )

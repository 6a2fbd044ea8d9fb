"""Starting tasks on the workers that they were given to, and what is known of when they began."""

from __future__ import annotations

from collections.abc import Sequence

from poolmgr.core.breakers import Breakers
from poolmgr.core.deadlines import NEVER
from poolmgr.core.effects import Answer, Cap, Start, StartMany
from poolmgr.core.past import NO_PAST
from poolmgr.core.slot import Slot
from poolmgr.core.state import State
from poolmgr.core.task import Task
from poolmgr.core.transitions import move_task, move_worker
from poolmgr.model import TaskState, WorkerState

RECALL_AFTER_S = 0.010
_AFFINITIES_KEPT = 64


class Starter:
    """Gives fences. Knows when the pages of workers are to be read.

    Attributes:
        look_at: the earliest ``next_look`` of any worker.
    """

    def __init__(self, state: State, breakers: Breakers) -> None:
        self.look_at = NEVER
        self._state = state
        self._breakers = breakers
        self._alone: tuple[Task | None, int] = None, 0  # the last that was started alone, and its fence

    # ------------------------------------------------------------------------------------------ starting

    def start(self, task: Task, slot: Slot, now: float) -> None:
        """Put a task, which is out of the queue, behind what the worker holds."""
        state = self._state
        options = task.options
        state.last_fence += 1
        fence = task.fence = state.last_fence
        task.slot = slot.id
        task.attempt += 1
        first = not slot.in_flight
        slot.in_flight.append(task)
        commit = 0
        if first:
            if slot.state is WorkerState.READY:
                move_worker(slot, WorkerState.BUSY)
            self.begin(slot, now)
            if options.durable and starts_after_commit(task):
                commit = slot.start_commit = state.commit
        else:
            self._look_for_slow(slot)
        if state.limits and (limits := state.limits.get(task.name)) is not None:
            limits.running += 1
            if limits.starts:
                limits.times.append(now)
        if state.breakers and task.name in state.breakers:
            self._breakers.started(task.name, fence, now)
        if options.max_queued:
            state.crowd(task.name, -1)
        if options.affinity is not None:
            _remember(slot, options.affinity)
        if task.past is not NO_PAST and task.runs_alone:
            self._alone = task, fence
        if options.memory_limit_mb is not None:
            slot.memory_limit_mb = options.memory_limit_mb
            slot.watched = True
            state.effects.append(Cap(slot.id, slot.incarnation, options.memory_limit_mb))
        resume = None
        if state.streams and (stream := state.streams.get(task.id)) is not None:
            resume = stream.begin(fence, state.streams.limit_of(stream), now)
        state.effects.append(
            Start(
                slot.id, slot.incarnation, fence, task.id, task.attempt, task.name, task.payload, options.timeout_s,
                options.soft_timeout_s, commit, resume,
            )
        )  # fmt: skip

    def start_many(self, tasks: Sequence[Task], slot: Slot, now: float) -> None:
        """As many calls of ``start``, for less: of tasks that ``ReadyQueue.pop`` has returned together, behind one that
        is there. Their name has no limits, and they ask for no affinity and no memory: such are not prefetched."""
        state, first = self._state, tasks[0]
        name, options = first.name, first.options
        if (state.breakers and name in state.breakers) or (
            state.streams and any(task.id in state.streams for task in tasks)
        ):
            for task in tasks:
                self.start(task, slot, now)
            return
        fence, worker = state.last_fence, slot.id
        for task in tasks:
            fence += 1
            task.fence = fence
            task.slot = worker
            task.attempt = 1
        state.last_fence = fence
        slot.in_flight.extend(tasks)
        self._look_for_slow(slot)
        if options.max_queued:
            state.crowd(name, -len(tasks))
        state.effects.append(
            StartMany(
                worker, slot.incarnation, first.fence, [task.id for task in tasks], name,
                [task.payload for task in tasks], options.timeout_s, options.soft_timeout_s,
            )
        )  # fmt: skip

    def begin(self, slot: Slot, at: float) -> None:
        """The first task in flight is, as far as is known, what the worker runs since ``at``."""
        task = slot.in_flight[0]
        move_task(task, TaskState.RUNNING)
        task.started_at = at
        slot.begun_at = at
        options = task.options
        when = NEVER if options.timeout_s is None else at + options.timeout_s
        if options.soft_timeout_s is not None:
            when = min(when, at + options.soft_timeout_s)
        if len(slot.in_flight) > 1:
            when = min(when, at + RECALL_AFTER_S)
        if task.past.cancel_wanted:
            self._too_late_to_cancel(task)
            when = at
        self.look_again(slot, when)
        if options.durable:
            self._state.began(task, at, starts_after_commit(task))
        if self._state.listening:
            self._tell_started(task, slot)

    def catch_up(self, task: Task, slot: Slot) -> None:
        """The task's end is the first that is heard of its beginning."""
        move_task(task, TaskState.RUNNING)
        if self._state.listening:
            self._tell_started(task, slot)

    def _tell_started(self, task: Task, slot: Slot) -> None:
        fields = {"task_id": task.id.hex(), "name": task.name, "worker_id": slot.id, "attempt": task.attempt}
        self._state.emit("task-started", fields, self._state.commit if task.options.durable else 0)

    def _too_late_to_cancel(self, task: Task) -> None:
        """A cancel waited for the answer to a recall, and the task has begun. Unless it is to be killed, say so."""
        if not task.past.kill_wanted:
            commit = self._state.unwanted(task)
            for token in task.past.cancel_tokens:
                self._state.effects.append(Answer(token, False, commit))
            task.past = task.past._replace(cancel_tokens=())

    def ended(self, task: Task) -> None:
        """A task is no longer in flight: its name's limits have room again."""
        limits = self._state.limits.get(task.name)
        if limits is not None:
            limits.running -= 1
            self._state.queue.unblock(task.name, "concurrency")

    def one_runs_alone(self) -> bool:
        """Whether a task is in flight that has twice been interrupted. One at a time: a daemon that dies a third time
        then tells them apart, and none is given up for what another does."""
        task, fence = self._alone
        return task is not None and task.fence == fence and task.id in self._state.tasks

    # ------------------------------------------------------------------------------------------ looking

    def _look_for_slow(self, slot: Slot) -> None:
        """Something waits in the worker now: not for long."""
        if slot.next_look > slot.begun_at + RECALL_AFTER_S:
            self.look_again(slot, slot.begun_at + RECALL_AFTER_S)

    def look_again(self, slot: Slot, when: float) -> None:
        """Read the worker's page at ``when``."""
        slot.next_look = when
        if when < self.look_at:
            self.look_at = when

    def due_looks(self, now: float) -> list[Slot]:
        """The workers whose page is to be read now."""
        due = []
        self.look_at = NEVER
        for slot in self._state.slots.values():
            if slot.next_look <= now:
                slot.next_look = NEVER
                due.append(slot)
            elif slot.next_look < self.look_at:
                self.look_at = slot.next_look
        return due


def starts_after_commit(task: Task) -> bool:
    """Its start is kept before it is made, so that a death of the daemon is known to have interrupted it.

    Nothing may stand behind it: that could be written to the worker first. What is not durable ends with the daemon,
    so it need not wait.
    """
    return (not task.options.restartable and task.options.durable) or task.past.cautious


def _remember(slot: Slot, affinity: str) -> None:
    slot.affinities.pop(affinity, None)
    slot.affinities[affinity] = None
    if len(slot.affinities) > _AFFINITIES_KEPT:
        del slot.affinities[next(iter(slot.affinities))]

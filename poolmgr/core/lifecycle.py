"""What becomes of a task: queued, begun, completed, failed and tried again, ended.

Every way into and out of a state goes through here, so that counts, stores, watchers and events agree; but for starts
(starter.py), and the short way to the usual end (completions.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from poolmgr.core.breakers import Breakers
from poolmgr.core.changes import AttemptEnded, TaskAdded, TaskEnded
from poolmgr.core.deadlines import Deadlines
from poolmgr.core.dispatch import Dispatcher
from poolmgr.core.effects import Answer, Finished, Streamed
from poolmgr.core.failure import Failure
from poolmgr.core.keeping import keep_checkpoint
from poolmgr.core.retry import is_retried
from poolmgr.core.slot import Slot
from poolmgr.core.starter import Starter
from poolmgr.core.state import State
from poolmgr.core.storeroom import Storeroom
from poolmgr.core.task import Task
from poolmgr.core.transitions import move_task
from poolmgr.model import RESERVED, AttemptInfo, TaskState
from poolmgr.payload import Payload
from poolmgr.post_mortem import ATTEMPTS_KEPT

_COMPLETED, _DEAD = TaskState.COMPLETED, TaskState.DEAD  # looked up for every task
_NOT_RETRIED = frozenset({"bad_arguments", "unknown_task", "bad_result"})  # the same would happen again


class Lifecycle:
    """The steps of a task's life."""

    def __init__(
        self, state: State, starter: Starter, dispatcher: Dispatcher, storeroom: Storeroom, breakers: Breakers
    ) -> None:
        self._state = state
        self._starter = starter
        self._dispatcher = dispatcher
        self._storeroom = storeroom
        self._breakers = breakers
        self._deadlines: Deadlines = state.deadlines

    # ------------------------------------------------------------------------------------------ towards running

    def admit(self, task: Task, due_at: float | None, due_wall: float | None, now: float) -> None:
        """A new task takes its place: in the queue, or among those that wait for their time."""
        state = self._state
        state.tasks[task.id] = task
        if task.options.max_queued:
            state.crowd(task.name, 1)
        if task.options.key is not None:
            since = min(now, task.submitted_at - state.wall_offset)  # a recovered task's window goes on
            state.keys[task.options.key] = (task.id, since + task.options.key_window_s)
        if due_at is not None and due_at > now:
            task.state = TaskState.SCHEDULED
            if due_wall is not None:
                task.past = task.past._replace(due_wall=due_wall)
            self._schedule(task, due_at)
        elif state.shedding and self.shed(task, now):
            return
        elif (row := state.queue.push(task)) is not None:
            self._storeroom.overflow(row, task)
        if task.options.expires_s is not None:
            wall_left = task.submitted_at + task.options.expires_s - (now + state.wall_offset)
            self._deadlines.add(now + max(0.0, wall_left), "expires", task)

    def admit_many(self, ids: Sequence[bytes], tasks: Sequence[Task], weighs: int) -> None:
        """``admit`` for new tasks that wait for nothing but their turn, in the same row, and expire never; and so
        many bytes their payloads weigh."""
        state = self._state
        if self._storeroom.overflow_many(state.queue.row_of(tasks[0]), tasks):
            return
        state.tasks.update(zip(ids, tasks, strict=True))
        if state.queue.push_many(tasks, weighs):
            return
        for task in tasks:
            if (row := state.queue.push(task)) is not None:
                self._storeroom.overflow(row, task)

    def due(self, task: Task, now: float) -> None:
        """A scheduled task's time has come (or has been moved, and its own entry will come)."""
        if task.state is not TaskState.SCHEDULED or task.due_at is None or task.due_at > now:
            return
        self._state.unschedule([task])
        move_task(task, TaskState.QUEUED)
        self._no_longer_due(task)
        self._enqueue(task, now)

    def _no_longer_due(self, task: Task) -> None:
        task.due_at = None
        if task.past.due_wall is not None:
            task.past = task.past._replace(due_wall=None)

    def _enqueue(self, task: Task, now: float) -> None:
        if self._state.shedding and self.shed(task, now):
            return
        task.queued_at = now
        if task.options.durable:
            self._state.moved(task)
        row = self._state.queue.push(task)
        if row is not None:
            self._storeroom.overflow(row, task)

    def _schedule(self, task: Task, due_at: float) -> None:
        if task.options.durable:
            self._state.moved(task)
        self._storeroom.schedule(task, due_at)

    def requeue_free(self, task: Task, now: float, *, begun: bool) -> None:
        """Out of flight through no fault of its own: back to its old place.

        If it was not ``begun`` (its state is a guess, the worker's page or word is not), it is as if it had not been
        dispatched.
        """
        self._breakers.spared(task.name, task.fence)
        self._out_of_flight(task)
        if task.state is TaskState.RUNNING:
            move_task(task, TaskState.QUEUED)
        if not begun:
            task.attempt -= 1
            if not task.attempt:
                task.started_at = 0.0
        if task.past.cancel_wanted:
            self.cancel(task, now)
        elif begun and not task.options.restartable:
            self._interrupted(task, now)
        elif self._state.shutting_down and not task.options.durable:
            self.lose(task, now)
        elif task.past.overdue and not task.attempt:
            self.expire(task, now)
        else:
            if (stream := self._state.streams.get(task.id)) is not None:
                keep_checkpoint(self._state, task.id, stream)  # the daemon may go before it hears of the last commit
            self._enqueue(task, now)

    def preempted(self, task: Task, slot: Slot, how: str, now: float) -> None:
        """The running task has given its worker up, as it was asked to, or was made to (``how``)."""
        self._state.statistics.preempted += 1
        task.past = task.past._replace(preempted=task.past.preempted + 1)
        fields = {
            "task_id": task.id.hex(), "name": task.name, "worker_id": slot.id, "attempt": task.attempt,
            "why": slot.preempting_for, "how": how, "ran_s": now - task.started_at,
        }  # fmt: skip
        self._state.emit("task-preempted", fields, self._state.commit if task.options.durable else 0)
        self.requeue_free(task, now, begun=True)

    def _interrupted(self, task: Task, now: float) -> None:
        self._state.statistics.interrupted += 1
        failure = Failure("interrupted", "it was interrupted, and may not be run again (restartable=False)")
        self.end(task, now, TaskState.DEAD, "interrupted", failure.packed(), failure.message)

    def _out_of_flight(self, task: Task) -> None:
        self._starter.ended(task)
        if task.options.max_queued:
            self._state.crowd(task.name, 1)
        if task.past.last_worker is not None:
            task.past = task.past._replace(last_worker=None)
        task.slot = None
        task.fence = 0

    # ------------------------------------------------------------------------------------------ after running

    def failed(self, task: Task, slot: Slot, begun_at: float, failure: Failure, now: float) -> None:
        """The running task's attempt failed: remember it, and try again or give up."""
        state, fence = self._state, task.fence
        self._out_of_flight(task)
        task.past = task.past._replace(last_worker=slot.id)
        self._remember(task, slot, begun_at, failure, now)
        if task.past.cancel_wanted:
            self._breakers.spared(task.name, fence)
            self.cancel(task, now)
            return
        killed = failure.code in ("worker_died", "out_of_memory")
        past = task.past._replace(failures=task.past.failures + 1, kills=task.past.kills + killed)
        task.past = past
        state.statistics.failed_attempts += 1
        poisonous = past.kills >= state.settings.poison_after
        retried = not poisonous and task.options.restartable and self._retry(task, failure, now)
        fields = {
            "task_id": task.id.hex(), "name": task.name, "worker_id": slot.id, "attempt": task.attempt,
            "code": failure.code, "error": f"{failure.type}: {failure.message}" if failure.type else failure.message,
            "retried": retried,
        }  # fmt: skip
        state.emit("task-failed", fields, state.commit if task.options.durable else 0)
        if self._breakers.failed(task.name, fence, failure, now):
            self._dispatcher.recall_name(task.name)
        if retried:
            return
        if poisonous:
            quarantined = f"quarantined: it killed {past.kills} workers; the last: {failure.message}"
            failure = failure._replace(message=quarantined)
        task.started_at = begun_at
        self.end(task, now, TaskState.DEAD, failure.code, failure.packed(), failure.message)

    def _retry(self, task: Task, failure: Failure, now: float) -> bool:
        if failure.code in _NOT_RETRIED or failure.retry_delay_s is False:
            return False
        if self._state.shutting_down and not task.options.durable:
            return False
        delay_s = failure.retry_delay_s
        if not is_retried(task.options, task.past.failures, () if delay_s is not None else failure.types):
            return False
        self._state.statistics.retried += 1
        if delay_s is None:
            delay_s = self._state.retry.delay_s(task.options, task.past.failures)
        if delay_s > 0:
            move_task(task, TaskState.SCHEDULED)
            self._schedule(task, now + delay_s)
        else:
            move_task(task, TaskState.QUEUED)
            self._enqueue(task, now)
        return True

    def _remember(self, task: Task, slot: Slot, begun_at: float, failure: Failure, now: float) -> None:
        offset = self._state.wall_offset
        info = AttemptInfo(
            task.attempt, slot.id, begun_at + offset, now + offset, failure.code, failure.type, failure.message,
            failure.traceback, failure.post_mortem,
        )  # fmt: skip
        attempts = [*task.past.attempts, info]
        if len(attempts) > ATTEMPTS_KEPT:
            attempts[-ATTEMPTS_KEPT - 1] = attempts[-ATTEMPTS_KEPT - 1]._replace(post_mortem=None)
        task.past = task.past._replace(attempts=tuple(attempts))
        if task.options.durable:
            self._state.fact(AttemptEnded(task.id, info), True)

    # ------------------------------------------------------------------------------------------ the end

    def cancel(self, task: Task, now: float) -> None:
        """A task that is not in flight ends cancelled."""
        self._leave_waiting(task)
        failure = Failure("cancelled", "the task was cancelled")
        self.end(task, now, TaskState.CANCELLED, "cancelled", failure.packed(), failure.message)

    def expire(self, task: Task, now: float) -> None:
        """A task that has not begun in time ends expired; one that has begun is left alone."""
        if task.slot is not None:
            task.past = task.past._replace(overdue=True)  # if it is only prefetched, and comes back, that is its end
        elif self._state.tasks.get(task.id) is task and task.attempt == 0:
            self._leave_waiting(task)
            failure = Failure("expired", f"it was not begun within {task.options.expires_s:g} s")
            self.end(task, now, TaskState.EXPIRED, "expired", failure.packed(), failure.message)

    def shed(self, task: Task, now: float) -> bool:
        """Memory is short: a sheddable task that waits, and has not begun yet, ends expired. Whether it has."""
        if not task.options.sheddable or task.attempt:
            return False
        self._state.statistics.shed += 1
        failure = Failure("shed", "it was shed, since memory is short: submit it again later")
        self.end(task, now, TaskState.EXPIRED, "shed", failure.packed(), failure.message)
        return True

    def lose(self, task: Task, now: float) -> None:
        """The daemon goes, and a task that is not durable with it."""
        self._leave_waiting(task)
        failure = Failure("lost", "the daemon shut down before the task was run")
        self.end(task, now, TaskState.CANCELLED, "lost", failure.packed(), failure.message)

    def give_up(self, task: Task, now: float, code: str, message: str) -> None:
        """A waiting task that can never run ends dead."""
        self._leave_waiting(task)
        self.end(task, now, TaskState.DEAD, code, Failure(code, message).packed(), message)

    def _leave_waiting(self, task: Task) -> None:
        """The bookkeeping of a task that leaves the queue or the schedule by another way than its turn."""
        if task.state is TaskState.SCHEDULED:
            self._state.unschedule([task])
            task.due_at = None

    def end(self, task: Task, now: float, to: TaskState, code: str, outcome: Payload, message: str = "") -> None:
        """The final state: told to the store and to whoever watches, and the task is dropped."""
        state = self._state
        move_task(task, to)
        del state.tasks[task.id]
        if task.in_queue or task.past.beyond:
            state.queue.discard(task)
        options = task.options
        commit = 0
        if options.max_queued and task.slot is None:  # else it waited no more
            state.crowd(task.name, -1)
        if options.durable or (to is _DEAD and not task.name.startswith(RESERVED)):  # a call's caller has its error
            commit = self._keep(task, now, to, code, outcome, message)
        if options.key is not None:
            self._release_key(task, now)
        if options.expires_s is not None or options.delay_s or options.at is not None:
            self._deadlines.task_ended()
            state.lingers(task)
        if task.owner and (session := state.sessions.get(task.owner)) is not None:
            session.calls.pop(task.id, None)
        if state.streams and task.id in state.streams:
            state.streams.end(task.id)
            state.effects.append(Streamed(task.id, commit))  # whoever waits for its next chunk hears that there is none
        for client, known_as in task.watchers:
            state.effects.append(Finished(client, known_as or task.id, to, code, outcome, commit))
        if task.past.cancel_tokens:
            self._answer_cancels(task, to, commit)
        if to is _COMPLETED:
            state.statistics.completed += 1
        else:
            self._count(task, to, code, message, commit)
            state.lingers(task)

    def _answer_cancels(self, task: Task, to: TaskState, commit: int) -> None:
        stopped = to is TaskState.CANCELLED and (not task.attempt or task.past.kill_wanted)
        for token in task.past.cancel_tokens:
            self._state.effects.append(Answer(token, stopped, commit))

    def _count(self, task: Task, to: TaskState, code: str, message: str, commit: int) -> None:
        statistics = self._state.statistics
        if to is TaskState.CANCELLED:
            statistics.cancelled += 1
        elif to is TaskState.EXPIRED:
            statistics.expired += 1
        else:
            statistics.dead += 1
            fields = {
                "task_id": task.id.hex(), "name": task.name, "code": code, "error": message,
                "failures": task.past.failures,
            }  # fmt: skip
            self._state.emit("task-dead", fields, commit)

    def _keep(self, task: Task, now: float, to: TaskState, code: str, outcome: Payload, message: str) -> int:
        state, past = self._state, task.past
        options = task.options
        durable = options.durable
        ended_at = now + state.wall_offset
        forget_at = max(ended_at + options.result_ttl_s, task.submitted_at + options.key_window_s)
        streamed = 0
        if durable:
            state.ended(task)
            if self._storeroom.reading:
                self._storeroom.ended(task)
            streamed = state.streams.weight(task.id) if state.streams else 0
        else:
            state.fact(TaskAdded(task.record(state.stored_due(task), TaskState.RUNNING)), False)
            for info in task.past.attempts:
                state.fact(AttemptEnded(task.id, info), False)
        return state.fact(
            TaskEnded(
                task.id, to, ended_at, task.started_at + state.wall_offset if task.started_at else None, task.attempt,
                past.failures, task.slot or past.last_worker, code, message, outcome,
                None if to is TaskState.DEAD else forget_at, streamed,
            ),
            durable,
        )  # fmt: skip

    def _release_key(self, task: Task, now: float) -> None:
        key = task.options.key
        assert key is not None
        held = self._state.keys.get(key)
        if held is not None and held[0] == task.id:
            if held[1] > now:
                self._deadlines.add(held[1], "key", key)
            else:
                del self._state.keys[key]

    def key_due(self, key: str, now: float) -> None:
        """The window of a key is over, unless a new task has the key by now."""
        held = self._state.keys.get(key)
        if held is not None and held[1] <= now and held[0] not in self._state.tasks:
            del self._state.keys[key]

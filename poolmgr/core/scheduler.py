"""The scheduler: every input that there is, and one way out.

Deterministic: the same calls with the same ``now`` values (seconds of boot time, never going back) give the same
effects, in any process. Inputs are methods, also of its parts; they decide, and change the state. ``flush`` dispatches
what can run and hands over the effects; ``next_wake`` says when ``tick`` is due. The shell (manager/) performs effects
and decides nothing; the simulator stands in the shell's place.

    submit, cancel, ...  ----> Intake ------------------.--> Lifecycle    what becomes of a task
    recover, loaded, ... ----> Recovery ----------------+--> Storeroom    whether it waits in memory
    attempts_done, ...   --.    (Completions)           +--> Dispatcher   which worker it gets (Starter)
    worker_exited, tick  --+-> Scheduler (is it current?)-'-> Supervisor   which workers there are
    sampled, ...         ----> MemoryLimits (too much?) ---------+
                                                        flush() -'--> effects

Fences. Each dispatch of a task gets the next number of this epoch, which stands for (task id, epoch, attempt). What a
worker says about any other number than the one at the head of its line is old news, and is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from poolmgr.config import Settings
from poolmgr.config.groups import REST
from poolmgr.core.autoscaler import Autoscaler
from poolmgr.core.balancer import Affine, Balancer, MostRecent, proves
from poolmgr.core.breakers import BLOCK, Breakers
from poolmgr.core.completions import Completions, Result
from poolmgr.core.deadlines import NEVER
from poolmgr.core.dispatch import Dispatcher
from poolmgr.core.effects import Drained, Effect, Interrupt, Look, Progressed
from poolmgr.core.failure import Failure
from poolmgr.core.intake import Intake
from poolmgr.core.lifecycle import Lifecycle
from poolmgr.core.memory_limits import MemoryLimits
from poolmgr.core.periodic import Periodic
from poolmgr.core.preemption import MEMORY, Preemption
from poolmgr.core.pressure import Pressure
from poolmgr.core.recovery import Recovery
from poolmgr.core.rollout import Rollout
from poolmgr.core.room import Room
from poolmgr.core.schedule import Schedule
from poolmgr.core.slot import Slot
from poolmgr.core.starter import RECALL_AFTER_S, Starter
from poolmgr.core.state import State
from poolmgr.core.store_trouble import StoreTrouble
from poolmgr.core.storeroom import Storeroom
from poolmgr.core.streams import Streams
from poolmgr.core.supervisor import Supervisor
from poolmgr.core.task import Task
from poolmgr.model import TaskState
from poolmgr.post_mortem import PostMortem

WINDOW = 16_000  # of the tasks of one line, so many are in memory at most; where there are many lines, fewer
WINDOW_BYTES = 64 << 20  # of the payloads of all tasks that wait
LATE_S = 1.0  # a tick that comes so much too late says that this process was blocked, not the workers
_SECOND_S = 1.0
_LOOK_SOON_S = 0.010  # a page that does not show what is expected is read again: soon, and then less and less often
_LOOK_LATE_S = 0.100
_UNSEEN_S = 5.0  # a worker that does not show to have begun what it was sent is killed so long after the time limit


class Scheduler:
    """Decides what runs where, when, and what happens on failure."""

    def __init__(
        self,
        settings: Settings,
        *,
        random: Callable[[], float],
        balancer: Balancer | None = None,
        wall_offset: float = 0.0,
        window: int = WINDOW,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self.state = State(settings, balancer or Affine(MostRecent()), random, wall_offset, window, window_bytes)
        self.breakers = Breakers(self.state)
        self._starter = Starter(self.state, self.breakers)
        self._dispatcher = Dispatcher(self.state, self.breakers, self._starter)
        self.storeroom = Storeroom(self.state, window)
        self._lifecycle = Lifecycle(self.state, self._starter, self._dispatcher, self.storeroom, self.breakers)
        self._completions = Completions(self.state, self._starter, self.breakers, self._lifecycle)
        self.room = Room(self.state)
        self.supervisor = Supervisor(self.state, self._dispatcher, self._lifecycle)
        self.autoscaler = Autoscaler(self.state, self.supervisor)
        self.streams = Streams(self.state, self._starter, self.supervisor)
        self.intake = Intake(self.state, self._dispatcher, self._lifecycle, self.room, self.streams)
        self.recovery = Recovery(self.state, self.storeroom, self._lifecycle, self.intake)
        self.rollout = Rollout(self.state, self.supervisor, self._lifecycle, self.breakers)
        self.store_trouble = StoreTrouble(self.state, self._dispatcher, self._lifecycle, self.supervisor)
        self.periodic = Periodic(self.state, self.intake)
        self.memory_limits = MemoryLimits(self.state, self.supervisor)
        self.preemption = Preemption(self.state, self._dispatcher, self.supervisor, self.streams.is_resumable)
        self.pressure = Pressure(self.state, self._lifecycle, self.preemption, self.supervisor)
        self._when_due: dict[str, Callable[[Any, float], None]] = {
            "due": self._lifecycle.due, "expires": self._lifecycle.expire, "key": self._lifecycle.key_due,
            "rate": lambda name, now: self.state.queue.unblock(name, "rate"), BLOCK: self.breakers.due,
            "restart": lambda subject, now: self.supervisor.restart(subject[0], subject[1], now),
            "stuck": lambda subject, now: self.supervisor.stuck(subject[0], subject[1], now),
            "urgent": lambda subject, now: self.preemption.woken(),
        }  # fmt: skip
        self._second_at = NEVER
        self._drained = False

    # ------------------------------------------------------------------------------------------ life

    def begin(self, now: float) -> None:
        """Fill the pool."""
        self.state.started_at = now
        self._second_at = now + _SECOND_S
        self.state.statistics.mark(now)
        for group in self.state.groups.values():
            for _ in range(group.size):
                self.supervisor.add(now, group)
        self.state.emit("pool-initialized", {"pool_size": self.state.settings.pool_size})

    def drain(self, now: float) -> None:
        """No new work; running work finishes, or gives way to go on later; durable work stays, the rest is lost."""
        state = self.state
        if state.shutting_down:
            return
        state.shutting_down = True
        for slot in state.slots.values():
            self._dispatcher.recall(slot)
        self.preemption.drain(now)
        for task in [task for task in state.tasks.values() if task.slot is None and not task.options.durable]:
            self._lifecycle.lose(task, now)

    def stop_now(self, now: float) -> None:
        """Do not wait for running work: it is requeued (durable) or lost, and costs nobody."""
        self.drain(now)
        for slot in list(self.state.slots.values()):
            self.supervisor.doom(slot, "shutdown", 0, now, grace_s=0.0)

    # ------------------------------------------------------------------------------------------ attempts

    def attempts_done(self, worker: str, results: Sequence[Result], now: float) -> None:
        """A worker has completed these tasks, one after the other."""
        slot = self.state.slots.get(worker)
        if slot is None or slot.trouble:  # what it should have said before may be lost
            return
        ended = self._completions.take(slot, results, now)
        if ended:
            slot.proven = proves(ended[-1], results[-1][3])
            self._next_of(slot, ended[-1], len(ended), results[-1][2], now)

    def attempt_failed(
        self, worker: str, fence: int, begun_at: float, ended_at: float, failure: Failure, now: float
    ) -> None:
        """A worker has run a task, and its handler failed."""
        slot = self.state.slots.get(worker)
        if slot is None or not slot.in_flight or slot.in_flight[0].fence != fence or slot.trouble:
            return
        task = slot.in_flight.popleft()
        slot.proven = slot.proven and not failure.is_a_fault
        failure = self.memory_limits.judged(slot, failure)
        self._lifecycle.failed(task, slot, begun_at, failure, now)
        self._next_of(slot, task, 1, ended_at, now)
        self.memory_limits.failed(slot, failure, now)

    def released(self, worker: str, fence: int, begun_at: float, ended_at: float, now: float) -> None:
        """A worker has given up the task that it ran, as it was asked to."""
        slot = self.state.slots.get(worker)
        if slot is None or not slot.in_flight or slot.in_flight[0].fence != fence or slot.trouble:
            return
        if slot.preempting != fence:  # it could do so for ever
            self.worker_broken(worker, slot.incarnation, "it gave up a task that it was not asked for", now)
            return
        task = slot.in_flight.popleft()
        task.started_at = begun_at
        self._lifecycle.preempted(task, slot, "released", now)
        self._next_of(slot, task, 1, ended_at, now)
        if slot.preempting_for == MEMORY:  # what it has used is free for others once its process is gone
            self.supervisor.retire(slot, "memory_pressure", now)

    def _next_of(self, slot: Slot, task: Task, count: int, ended_at: float, now: float) -> None:
        """``count`` tasks have ended on a worker, ``task`` the last of them."""
        statistics = self.state.statistics
        statistics.executed += count
        if not slot.executed:
            statistics.first_of_process += 1
        slot.executed += count
        slot.last_activity = now
        slot.slow = False
        self._dispatcher.touch(slot)
        if slot.watched:
            self.memory_limits.task_ended(slot)
        if slot.recalling and (not slot.in_flight or slot.in_flight[0].fence > slot.recalling):
            slot.recalling = 0  # all that was recalled has ended; the answer may come whenever it does
        if slot.in_flight:
            self._starter.begin(slot, ended_at)
            return
        slot.next_look = NEVER
        if task.options.ephemeral and not slot.retiring:
            self.supervisor.retire(slot, "ephemeral", now)
        else:
            self.supervisor.rest(slot, now)

    def progressed(self, worker: str, fence: int, fraction: float, message: str) -> None:
        """A handler says how far it is."""
        slot = self.state.slots.get(worker)
        if slot is not None and slot.in_flight and slot.in_flight[0].fence == fence:
            task = slot.in_flight[0]
            for client, known_as in task.watchers:
                self.state.effects.append(Progressed(client, known_as or task.id, fraction, message))

    def page_seen(self, worker: str, incarnation: int, fence: int, begun_at: float, now: float) -> None:
        """What the worker's page shows: the task that it has begun last, and when. Deadlines count from there."""
        slot = self.state.slots.get(worker)
        if slot is None or slot.incarnation != incarnation or not slot.in_flight or slot.doomed is not None:
            return
        if self.preemption.is_over(slot, fence, now):
            return
        task = slot.in_flight[0]
        timeout_s, soft_timeout_s = self.streams.time_limits(task)
        if fence != task.fence and slot.seen != task.fence:
            # Not begun yet, or its result is on its way; or the task has written to the page, to have no time limit.
            if timeout_s is not None and now >= slot.begun_at + timeout_s + _UNSEEN_S:
                self.supervisor.doom(slot, "timeout", task.fence, now)
                return
            wait_s = min(max(now - slot.begun_at, _LOOK_SOON_S), _LOOK_LATE_S)
            self._starter.look_again(slot, now + wait_s)
            return
        if slot.seen != task.fence:  # what the page says later cannot move it
            slot.seen = task.fence
            slot.begun_at = max(slot.begun_at, begun_at)
        begun_at, fence = slot.begun_at, task.fence
        if task.past.kill_wanted:
            self.supervisor.doom(slot, "cancelled", fence, now)
            return
        if timeout_s is not None and now >= begun_at + timeout_s:
            self.supervisor.doom(slot, "timeout", fence, now)
            return
        if task.past.cancel_wanted and slot.cancelled != fence:
            slot.cancelled = fence
            self.state.effects.append(Interrupt(slot.id, incarnation, fence, "cancelled"))
        soft_at = NEVER if soft_timeout_s is None or slot.interrupted == fence else begun_at + soft_timeout_s
        if now >= soft_at:
            slot.interrupted = fence
            self.state.effects.append(Interrupt(slot.id, incarnation, fence, "soft_timeout"))
            soft_at = NEVER
        hard_at = NEVER if timeout_s is None else begun_at + timeout_s
        if len(slot.in_flight) > 1:
            if now >= begun_at + RECALL_AFTER_S:
                slot.slow = True
                self._dispatcher.touch(slot)
                self._dispatcher.recall(slot)
            else:
                hard_at = min(hard_at, begun_at + RECALL_AFTER_S)
        self._starter.look_again(slot, min(soft_at, hard_at, self.preemption.tell(slot, now)))

    def recall_sent(self, worker: str, incarnation: int, page_fence: int, now: float) -> None:
        """A recall was written to the worker, and then its page was read."""
        if (slot := self._current(worker, incarnation)) is not None:
            for task in self._dispatcher.recall_sent(slot, page_fence):
                self._lifecycle.requeue_free(task, now, begun=False)

    def recalled(self, worker: str, incarnation: int, fences: list[int], now: float) -> None:
        """The worker has answered a recall."""
        if (slot := self._current(worker, incarnation)) is None:
            return
        was_head = bool(slot.in_flight) and slot.in_flight[0].fence in fences
        for task in self._dispatcher.recalled(slot, fences):
            self._lifecycle.requeue_free(task, now, begun=False)
        self._dispatcher.touch(slot)
        if slot.in_flight:
            if was_head:
                self._starter.begin(slot, now)
        elif was_head:
            slot.next_look = NEVER
            self.supervisor.rest(slot, now)

    # ------------------------------------------------------------------------------------------ workers

    def _current(self, worker: str, incarnation: int) -> Slot | None:
        slot = self.state.slots.get(worker)
        return slot if slot is not None and slot.incarnation == incarnation else None

    def worker_spawned(self, worker: str, incarnation: int, pid: int) -> None:
        """The process of this incarnation exists."""
        if (slot := self._current(worker, incarnation)) is not None:
            self.supervisor.spawned(slot, pid)

    def worker_ready(self, worker: str, incarnation: int, capabilities: frozenset[str], now: float) -> None:
        """The worker can take work."""
        if (slot := self._current(worker, incarnation)) is not None:
            self.supervisor.ready(slot, capabilities, now)

    def heartbeat(self, worker: str, incarnation: int, now: float) -> None:
        """The worker's heart beats."""
        if (slot := self._current(worker, incarnation)) is not None:
            slot.heard_at = now
            slot.suspected = False

    def inspected(self, worker: str, incarnation: int, verdict: str, now: float) -> None:
        """What /proc shows of a silent worker: ``running``, ``stopped``, ``asleep`` or ``gone``."""
        if (slot := self._current(worker, incarnation)) is not None:
            self.supervisor.inspected(slot, verdict, now)

    def worker_exited(
        self,
        worker: str,
        incarnation: int,
        how: str,
        page_fence: int,
        begun_at: float,
        now: float,
        post_mortem: PostMortem | None = None,
    ) -> None:
        """The process has ended (``how``), or could not be made; all that it wrote has been taken in before."""
        if (slot := self._current(worker, incarnation)) is not None:
            self.supervisor.exited(slot, how, page_fence, begun_at, now, post_mortem)

    def worker_broken(self, worker: str, incarnation: int, error: str, now: float) -> None:
        """The worker wrote what the protocol does not know: end it."""
        if (slot := self._current(worker, incarnation)) is not None:
            slot.trouble = error
            self.state.emit("worker-error", {"worker_id": worker, "error": error})
            self.supervisor.doom(slot, "broken", 0, now, grace_s=0.0)

    def worker_worn(self, worker: str, incarnation: int, why: str, now: float) -> None:
        """A task has left the process in a state in which it begins no other: replace it. That costs nobody."""
        if (slot := self._current(worker, incarnation)) is not None:
            self.supervisor.retire(slot, why, now)

    def stop_worker(self, worker: str, now: float) -> None:
        """Drain one worker and take its slot away. Raises ``NotFound``."""
        slot = self.supervisor.find(worker)
        self.supervisor.remove(slot, now)

    def start_worker(self, now: float, group: str = REST) -> str:
        """One more slot; its id. Raises ``BadOption`` beyond ``max_workers``, ``NotFound`` for an unknown group."""
        before = set(self.state.slots)
        self.supervisor.scale(self.supervisor.size(group) + 1, now, group)
        return next(worker for worker in self.state.slots if worker not in before)

    # ------------------------------------------------------------------------------------------ time, and the way out

    def clock_changed(self, wall_offset: float, now: float) -> None:
        """The wall clock was set: what follows it (``at=``, schedules) moves, delays do not."""
        self.state.clock_changed(wall_offset)
        for task in self.state.tasks.values():
            if task.state is TaskState.SCHEDULED and (due_wall := task.past.due_wall) is not None:
                task.due_at = due_wall - wall_offset
                self.state.deadlines.add(max(now, task.due_at), "due", task)
        self.periodic.clock_changed(now)

    def next_wake(self) -> float:
        """When ``tick`` is due next; infinity for never."""
        return min(self.state.deadlines.next, self._starter.look_at, self._second_at, self.state.next_mark())

    def tick(self, now: float) -> None:
        """Do what is due. Schedules come last: their tasks are the newest, and what waited for its time before is in
        the queue by then, what has expired out of it. A queue that is full starts what it can to make room."""
        schedules: list[Schedule] = []
        while (due := self.state.deadlines.pop_due(now)) is not None:
            kind, subject = due
            if kind == "schedule":
                schedules.append(subject)
            elif (action := self._when_due.get(kind)) is not None:  # else it was to wake us, and no more
                action(subject, now)
        if schedules:
            self.periodic.all_due(schedules, now)
        self.state.mark_running(now)
        if self._starter.look_at <= now:
            for slot in self._starter.due_looks(now):
                self.state.effects.append(Look(slot.id, slot.incarnation))
        if now >= self._second_at:
            late = now - self._second_at > LATE_S
            self._second_at = now + _SECOND_S
            self.state.statistics.mark(now)
            self.supervisor.check(now, late)
            self.pressure.check(now, late)
            self.autoscaler.check(now, late or self.rollout.active)

    def flush(self, now: float) -> list[Effect]:
        """Start what can be started, and hand over everything that has been decided."""
        state = self.state
        if self.rollout.active:
            self.rollout.step(now)
        if self.storeroom.untidy:
            self.storeroom.tidy()
        self._dispatcher.dispatch(now)
        self.room.act(now)
        if state.queue.wanting or state.shelf is not None:
            self.storeroom.ask(now)
        if self._dispatcher.worn_out:
            for slot in self._dispatcher.worn_out:
                self.supervisor.retire(slot, "ephemeral", now)
            self._dispatcher.worn_out.clear()
        if self._dispatcher.starved:
            self.preemption.make_room(self._dispatcher.starved, now)
            self._dispatcher.starved.clear()
        if state.shutting_down and not self._drained and not any(s.in_flight for s in state.slots.values()):
            self._drained = True
            state.effects.append(Drained())
        return state.take()

"""Preemption: a running task gives its worker up, and goes back to its place in the queue. That costs it nothing.

    preempt --> Look --> the page shows that it runs --> Interrupt("preempt")
                                  |                          |
                   its grace is over: killed      it lets go (RELEASED), or ends after all
                                  |                          |
                                  '--> queued, at its old place, as an attempt that nobody pays for

What a task loses by it: nothing but the time since its last checkpoint, where it is *resumable*; else all that the
attempt has done. So it is chosen only for a reason, and where there is a choice, the one that has just begun.

Nothing starves. A task must have run for a while before it is chosen (``preempt_min_run_s``), twice as long after each
time that it was: so each attempt gets further than the one before, and in the end it is through, also if it never
keeps anything. One that must not run twice (``restartable=False``) is never asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from poolmgr.core.deadlines import NEVER
from poolmgr.core.dispatch import Dispatcher
from poolmgr.core.effects import Interrupt, Look
from poolmgr.core.load import startable
from poolmgr.core.ready_queue import blocks
from poolmgr.core.row import Demand
from poolmgr.core.slot import Slot
from poolmgr.core.state import State
from poolmgr.core.supervisor import Supervisor
from poolmgr.core.task import Task
from poolmgr.errors import NotFound, WrongState
from poolmgr.model import CRITICAL_MOST, TaskState

USER: Final = "user"
URGENT: Final = "urgent"  # CRITICAL work waits
DRAIN: Final = "drain"
MEMORY: Final = "memory"

GIVES_WAY_FROM: Final = 10  # tasks of a more urgent priority do not make room for CRITICAL ones
END_COMES_S: Final = 5.0  # so much longer than its time has one that has ended, as its page says
_DOUBLINGS_MOST: Final = 20


class Preemption:
    """Asks running tasks to give their workers up.

    Attributes:
        is_resumable: which tasks lose nothing by it.
    """

    def __init__(
        self, state: State, dispatcher: Dispatcher, supervisor: Supervisor, is_resumable: Callable[[Task], bool]
    ) -> None:
        self._state = state
        self._dispatcher = dispatcher
        self._supervisor = supervisor
        self._wakes_at = NEVER
        self.is_resumable = is_resumable

    # ------------------------------------------------------------------------------------------ asking

    def preempt(self, slot: Slot, why: str, now: float, grace_s: float) -> bool:
        """Ask what runs on ``slot`` to let go, and kill the worker if it has not after ``grace_s``. False: nothing
        runs there that may be run again.

        The page decides whether it has begun, and what the worker has written is read before it is judged.
        """
        if not self._may_be_asked(slot):
            return False
        task = slot.in_flight[0]
        if slot.preempting == task.fence:
            slot.preempt_by = min(slot.preempt_by, now + grace_s)
        else:
            slot.preempting, slot.preempting_for, slot.preempt_by = task.fence, why, now + grace_s
            self._dispatcher.recall(slot)
        self._state.effects.append(Look(slot.id, slot.incarnation))
        return True

    def ask(self, task_id: bytes, now: float) -> bool:
        """Somebody wants a task to give its worker up. False: it waits.

        Raises:
            NotFound: no live task has that id.
            WrongState: it runs, and may not be run again, or would be lost.
        """
        task = self._state.tasks.get(task_id)
        if task is None:
            raise NotFound(f"no task {task_id.hex()} that has not ended")
        if task.state is not TaskState.RUNNING or task.slot is None:
            return False
        if self._state.shutting_down and not task.options.durable:
            raise WrongState(f"the daemon is shutting down, and task {task_id.hex()} is not durable: it would be lost")
        if not task.options.restartable:
            raise WrongState(f"task {task_id.hex()} may not be run again (restartable=False): cancel it, or let it run")
        return self.preempt(self._state.slots[task.slot], USER, now, self._state.settings.preempt_grace_s)

    def drain(self, now: float) -> None:
        """The daemon stops: what can go on under the next one need not be waited for. How long it has is for the stop
        to say."""
        for slot in self._state.slots.values():
            if slot.in_flight and slot.in_flight[0].options.durable and self.is_resumable(slot.in_flight[0]):
                self.preempt(slot, DRAIN, now, NEVER)

    def _may_be_asked(self, slot: Slot) -> bool:
        if not slot.in_flight or slot.doomed is not None:
            return False
        options = slot.in_flight[0].options
        return options.restartable and (options.durable or not self._state.shutting_down)  # else it would be lost

    def is_over(self, slot: Slot, page_fence: int, now: float) -> bool:
        """Whether the time is over in which the task on ``slot`` was to let go; then its worker is killed.

        Where the page shows a later one, its end is on its way, and that one is not to die for it; or the task has
        written to the page, so that is not waited for without an end.
        """
        if slot.preempting != slot.in_flight[0].fence:
            return False
        if now < slot.preempt_by + (END_COMES_S if page_fence > slot.preempting else 0.0):
            return False
        self._supervisor.doom(slot, "preempted", slot.preempting, now)
        return True

    def tell(self, slot: Slot, now: float) -> float:
        """The page has shown that the task runs: tell it, once. When its time is over; infinity for never."""
        fence = slot.preempting
        if fence != slot.in_flight[0].fence:
            return NEVER
        if slot.preempt_told != fence:
            slot.preempt_told = fence
            self._state.effects.append(Interrupt(slot.id, slot.incarnation, fence, "preempt"))
        return slot.preempt_by if now < slot.preempt_by else slot.preempt_by + END_COMES_S

    # ------------------------------------------------------------------------------------------ whom to ask

    def candidates(self, now: float) -> list[Slot]:
        """The workers whose task might give way, those first that lose least: of the lowest priority, and of these the
        one that has begun last."""
        found = [slot for slot in self._state.slots.values() if self._gives_way_at(slot) <= now]
        found.sort(key=_loses_least)
        return found

    def _gives_way_at(self, slot: Slot) -> float:
        """When its task will have run for long enough to be asked; infinity for never."""
        if not self._may_be_asked(slot):
            return NEVER
        task = slot.in_flight[0]
        if slot.preempting == task.fence or task.past.cancel_wanted or task.options.priority <= CRITICAL_MOST:
            return NEVER
        doublings = min(task.past.preempted, _DOUBLINGS_MOST)
        return slot.begun_at + self._state.settings.preempt_min_run_s * float(1 << doublings)

    def make_room(self, demands: Mapping[Demand, float], now: float) -> None:
        """CRITICAL tasks of these demands wait, the first at this rank, and no worker is free for them: one resumable
        task gives way for each of them that waits."""
        giving = [
            (slot, at)
            for slot in self._state.slots.values()
            if not slot.leaving  # no other comes in its place
            and (at := self._gives_way_at(slot)) < NEVER
            and slot.in_flight[0].options.priority >= GIVES_WAY_FROM
            and self.is_resumable(slot.in_flight[0])
        ]
        if not giving:
            return
        giving.sort(key=lambda each: _loses_least(each[0]))
        for demand, rank in demands.items():
            missing = self._critical_waiting(demand, now) - self._coming(demand, now)
            for slot, at in giving:
                if missing <= 0:
                    break
                task = slot.in_flight[0]
                if not slot.fits(demand.requires) or slot.preempting == task.fence or self._rank(task) <= rank:
                    continue
                if at <= now:
                    self.preempt(slot, URGENT, now, self._state.settings.preempt_grace_s)
                    missing -= 1
                else:
                    self._wake(at)

    def _rank(self, task: Task) -> float:
        """Where it would stand in the queue. Where ageing is on, that may be before what is CRITICAL, and it would have
        given way to itself."""
        ageing, priority = self._state.queue.ageing, task.options.priority
        return priority if ageing is None else ageing.waits_since(task) + priority * ageing.aging_s

    def _critical_waiting(self, demand: Demand, now: float) -> int:
        """How many would begin if there were workers."""
        queue = self._state.queue
        counts: dict[str, int] = {}
        for lane in queue.lanes:
            if lane.demand is demand and not blocks(queue, lane):
                waiting = sum(row.waiting for row in lane.rows.values() if row.priority <= CRITICAL_MOST)
                counts[lane.name] = counts.get(lane.name, 0) + waiting
        count = sum(startable(self._state, name, waiting, now) for name, waiting in counts.items())
        return min(count, 1) if demand.alone else count

    def _coming(self, demand: Demand, now: float) -> int:
        """How many workers will be free for it before long."""
        return sum(
            not slot.leaving
            and slot.fits(demand.requires)
            and (
                slot.is_coming(now)
                or slot.doomed is not None
                or (slot.preempting == slot.in_flight[0].fence if slot.in_flight else bool(slot.retiring))
            )
            for slot in self._state.slots.values()
        )

    def _wake(self, at: float) -> None:
        """Look again at ``at``."""
        if at < self._wakes_at:
            self._wakes_at = at
            self._state.deadlines.add(at, "urgent", None)

    def woken(self) -> None:
        """The time has come: what follows, a dispatch, shows who still waits."""
        self._wakes_at = NEVER


def _loses_least(slot: Slot) -> tuple[int, float, int]:
    """Of the lowest priority first, and then what has begun last."""
    task = slot.in_flight[0]
    return -task.options.priority, -slot.begun_at, -task.fence

"""What a worker may take: measured by the shell, judged here.

``used_mb`` is always what the worker and all that it has started have taken since it was ready, or since a task with a
limit of its own began (``Cap``). What has no limit is measured, and never judged.

    busy, over the limit      -> Weigh, to be sure -> killed, cause out_of_memory: whatever it had begun pays
    idle, over the limit      -> GiveBack, and if that does not help: retired, which costs nobody
    idle, and over it soon    -> the same (memory_trend.py)
    over it, never of use     -> killed, and the slot pays: others like it would follow without end
    MemoryError in a handler  -> cause out_of_memory, and the worker is retired

A worker that never idles is measured between two tasks (``Measure``), if one of them took long enough to be seen.
"""

from __future__ import annotations

from typing import Final

from poolmgr.core.effects import Cap, GiveBack, Measure, Weigh
from poolmgr.core.failure import Failure
from poolmgr.core.slot import Slot
from poolmgr.core.state import State
from poolmgr.core.supervisor import Supervisor
from poolmgr.model import WorkerState

# It goes on allocating until it is dead: time to dump its stacks, and no more.
KILL_GRACE_S: Final = 0.05
# A full collection of a large heap may take so long, on a machine that has other work.
TRIM_S: Final = 2.0
_MEASURED: Final = frozenset({WorkerState.READY, WorkerState.BUSY, WorkerState.DRAINING})


class MemoryLimits:
    """Judges what workers have taken."""

    def __init__(self, state: State, supervisor: Supervisor) -> None:
        self._state = state
        self._supervisor = supervisor

    def sampled(self, worker: str, incarnation: int, used_mb: float, now: float) -> None:
        """A quick estimate of what the worker has taken."""
        slot = self._slot(worker, incarnation)
        if slot is None:
            return
        slot.memory_used_mb = used_mb
        if not slot.in_flight:
            self._at_rest(slot, used_mb, now)
            return
        slot.watched = True
        limit_mb = slot.memory_limit_mb
        over = 0 < limit_mb < used_mb  # or so it seems
        slot.memory_peak_mb = max(slot.memory_peak_mb, limit_mb if over else used_mb)
        if over and not slot.weighing:
            slot.weighing = True
            self._state.effects.append(Weigh(slot.id, incarnation, slot.in_flight[0].fence))

    def weighed(self, worker: str, incarnation: int, fence: int, used_mb: float, now: float) -> None:
        """The answer to ``Weigh``: what it has taken, for certain. If the task has ended meanwhile, it says nothing of
        the next; what the worker holds between the two is measured, too."""
        slot = self._slot(worker, incarnation)
        if slot is None or not slot.in_flight or slot.in_flight[0].fence != fence:
            return
        slot.weighing = False
        slot.memory_used_mb = used_mb
        if used_mb > slot.memory_limit_mb:
            slot.memory_peak_mb = max(slot.memory_peak_mb, used_mb)
            self._supervisor.doom(slot, "out_of_memory", fence, now, grace_s=KILL_GRACE_S)

    def measured(self, worker: str, incarnation: int, used_mb: float, now: float) -> None:
        """The answer to ``Measure``: what the worker held between two tasks."""
        slot = self._slot(worker, incarnation)
        if slot is not None:
            slot.memory_used_mb = used_mb
            self._at_rest(slot, used_mb, now)

    def _slot(self, worker: str, incarnation: int) -> Slot | None:
        slot = self._state.slots.get(worker)
        if slot is None or slot.incarnation != incarnation or slot.state not in _MEASURED:
            return None
        return slot

    def _at_rest(self, slot: Slot, used_mb: float, now: float) -> None:
        limit_mb = slot.group.worker_memory_limit_mb
        slot.memory_trend.add(slot.executed, used_mb)
        if not limit_mb or slot.retiring:
            return
        if used_mb <= limit_mb and not slot.memory_trend.crosses(limit_mb):
            slot.trim = None
            return
        if not slot.in_flight:
            if slot.trim is None:  # it may be garbage
                slot.trim = slot.executed, now + TRIM_S
                self._state.effects.append(GiveBack(slot.id, slot.incarnation))
                return
            executed, until = slot.trim
            if slot.executed == executed > 0 and now < until:
                return  # it may be at it; one that runs a task instead has shown what it holds
        if slot.executed or slot.in_flight:
            why = "memory_limit" if used_mb > limit_mb else "memory_trend"
            fields = {"worker_id": slot.id, "used_mb": round(used_mb, 1), "limit_mb": limit_mb, "reason": why}
            self._state.emit("worker-recycled", fields)
            self._supervisor.retire(slot, why, now)
        else:
            slot.trouble = f"it took {used_mb:.0f} MB before it had run a task, and its limit is {limit_mb} MB"
            self._state.emit("worker-error", {"worker_id": slot.id, "error": slot.trouble})
            self._supervisor.doom(slot, "memory", 0, now, grace_s=0.0)

    # ------------------------------------------------------------------------------------------ around a task

    def task_ended(self, slot: Slot) -> None:
        """The task of a ``watched`` worker has ended."""
        slot.watched = slot.weighing = False
        slot.memory_peak_mb = 0.0
        if slot.memory_limit_mb != slot.group.worker_memory_limit_mb:
            slot.memory_limit_mb = slot.group.worker_memory_limit_mb
            self._state.effects.append(Cap(slot.id, slot.incarnation, None))
        self._state.effects.append(Measure(slot.id, slot.incarnation))

    def failed(self, slot: Slot, failure: Failure, now: float) -> None:
        """Its handler has failed so. One that was refused memory may be in any state."""
        if failure.code == "out_of_memory":
            self._supervisor.retire(slot, "out_of_memory", now)

    def judged(self, slot: Slot, failure: Failure) -> Failure:
        """The failure of a handler. Where the worker has a limit, a MemoryError is what that looks like from inside."""
        limit_mb = slot.memory_limit_mb
        types = (failure.type, *failure.types)
        if not limit_mb or failure.code != "task_failed" or "MemoryError" not in types:
            return failure
        taken = f"its worker took {slot.memory_peak_mb:.0f} MB, " if slot.memory_peak_mb >= 1 else ""
        message = failure.message or "no more memory was to be had"
        return failure._replace(code="out_of_memory", message=f"{message} ({taken}its limit is {limit_mb} MB)")

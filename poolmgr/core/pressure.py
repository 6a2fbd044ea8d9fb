"""Memory pressure of the machine: four levels, what each holds back, and the way out of each.

The shell measures (``measured``, once a second or more often) how much of the memory is in use, page cache left
out, and for how much of the last ten seconds all work has stood still for want of memory. Thresholds make a level of
that (``memory_thresholds``, 70, 85 and 95 %):

    normal     all runs
    high       idle workers give memory back first; LOW tasks are held; sheddable ones that wait end, ``shed``
    critical   ... and one running task gives way, the newest of the lowest priority; then it is measured again
    emergency  ... and nothing starts but CRITICAL tasks

Up at once, down when it has been ``MARGIN`` points below the threshold for ``CALM_S``: so nothing swings to and fro.
Where work stands still (``STALLED`` %), the use counts as ``STALL_POINTS`` more: the kernel knows better than a
percentage, but cannot by itself make a level of a machine that is half empty.

No level is for ever, even where the memory is somebody else's and stays in use:

- Of what is held, one task is let through each ``LET_EVERY_S``, longer the higher the level.
- The last running task is never made to give way, so that something always gets done; and each has longer than the last
  time before it may be asked again (core/preemption.py).
- Where nothing is measured any more, the level is normal.

What gave way for memory's sake does not start again, nor do others of its priority, before the level is below critical:
it would be back at once.
"""

from __future__ import annotations

from typing import Final

from poolmgr.core.effects import Trim
from poolmgr.core.lifecycle import Lifecycle
from poolmgr.core.memory import STALLED, Level
from poolmgr.core.preemption import MEMORY, Preemption
from poolmgr.core.priority_hold import PriorityHold
from poolmgr.core.slot import Slot
from poolmgr.core.state import State
from poolmgr.core.supervisor import Supervisor
from poolmgr.model import CRITICAL_MOST, LOW_LEAST, PRIORITY_MOST, TaskState

MARGIN: Final = 5.0  # points; a tenth of the threshold, where that is less
CALM_S: Final = 3.0
STALL_POINTS: Final = 10.0
LET_EVERY_S: Final = {Level.HIGH: 10.0, Level.CRITICAL: 30.0, Level.EMERGENCY: 60.0}
TRIM_EVERY_S: Final = 10.0
TRIM_TAKES_S: Final = 0.5  # and then it is measured, before anybody loses anything
SETTLES_S: Final = 1.0  # after a worker has gone
UNMEASURED_S: Final = 10.0
BRIEF_S: Final = 1.0  # what has kept no checkpoint so far has so long to keep one; in an emergency no time at all


class Pressure:
    """What the scheduler does about the machine's memory."""

    def __init__(self, state: State, lifecycle: Lifecycle, preemption: Preemption, supervisor: Supervisor) -> None:
        self._state = state
        self._lifecycle = lifecycle
        self._preemption = preemption
        self._supervisor = supervisor
        self._memory = state.memory
        self._priorities = PriorityHold(state.queue)
        self._measured_at = 0.0
        self._calm_since: float | None = None
        self._trims_at = 0.0
        self._acts_at = 0.0
        self._let_at = 0.0  # when a task was last let through, or nothing was held
        self._giving: tuple[Slot, int, int] | None = None  # the worker, its incarnation and the fence that gives way
        self._yielded = PRIORITY_MOST + 1  # the most urgent priority of which one has given way

    # ------------------------------------------------------------------------------------------ the level

    def measured(self, percent: float, stalled: float, now: float, of: str = "the machine's memory") -> None:
        """So much of the memory is in use, page cache left out, and for so much of the last ten seconds all work has
        stood still for want of it; both in percent."""
        memory = self._memory
        memory.percent, memory.stalled, memory.of, self._measured_at = percent, stalled, of, now
        level = memory.level
        up, stays = self._reached(0.0), self._reached(MARGIN)
        if up > level:
            self._enter(up, now)
        elif stays >= level:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= CALM_S:
            self._enter(stays, now)
        self._act(now)

    def check(self, now: float, late: bool) -> None:
        """Once a second: a level that nobody measures is none. Where the scheduler was ``late``, whoever measures was,
        too: where memory is short that is no wonder, and no sign that it is not."""
        if late:
            self._measured_at = now
        if self._memory.level and now - self._measured_at > UNMEASURED_S:
            self._memory.of = ""
            self._enter(Level.NORMAL, now)

    def _reached(self, margin: float) -> Level:
        """The level of what was measured, with thresholds that are so much lower."""
        counted = self._memory.percent + (STALL_POINTS if self._memory.stalled >= STALLED else 0.0)
        thresholds = self._state.settings.memory_thresholds
        return Level(sum(counted > each - min(margin, each / 10) for each in thresholds))

    def _enter(self, level: Level, now: float) -> None:
        before, self._memory.level = self._memory.level, level
        self._calm_since = None
        if before is Level.NORMAL:
            self._trims_at, self._acts_at, self._let_at = now, now + TRIM_TAKES_S, now
        if level is Level.NORMAL:
            self._state.shedding = False
        if level < Level.CRITICAL:
            self._giving, self._yielded = None, PRIORITY_MOST + 1
        self._hold()
        fields = {
            "level": level.word,
            "before": before.word,
            "percent": round(self._memory.percent, 1),
            "why": self._memory.why,
        }
        self._state.emit("memory-pressure", fields)

    def _hold(self) -> None:
        """Tasks of which priorities do not start."""
        level = self._memory.level
        held_from = LOW_LEAST if level else PRIORITY_MOST + 1
        if level >= Level.CRITICAL:
            held_from = min(held_from, self._yielded)
        if level is Level.EMERGENCY:
            held_from = CRITICAL_MOST + 1
        self._priorities.hold_from(held_from)

    # ------------------------------------------------------------------------------------------ what is done

    def _act(self, now: float) -> None:
        level = self._memory.level
        if level is Level.NORMAL:
            return
        if now >= self._trims_at:
            self._trims_at = now + TRIM_EVERY_S
            self._state.effects.append(Trim())
        if now < self._acts_at:
            return
        if not self._state.shedding:
            self._shed(now)
        if level >= Level.CRITICAL and not self._still_giving(now):
            self._preempt_one(now)
        if now - self._let_at >= LET_EVERY_S[level] or not self._priorities.holds_any:
            self._priorities.let_one_through()
            self._let_at = now

    def _shed(self, now: float) -> None:
        """From now on sheddable tasks that would wait end at once; first those that do."""
        state = self._state
        state.shedding = True
        waiting = [task for task in state.tasks.values() if task.state is TaskState.QUEUED and task.slot is None]
        count = sum(self._lifecycle.shed(task, now) for task in waiting)
        if count:
            state.emit("tasks-shed", {"count": count})

    def _still_giving(self, now: float) -> bool:
        """Whether the last one that was to give way still has its memory; or it was not measured since."""
        if self._giving is None:
            return now < self._acts_at
        slot, incarnation, fence = self._giving
        if slot.incarnation == incarnation and slot.pid is not None:
            if not slot.in_flight:
                self._supervisor.retire(slot, "memory_pressure", now)  # its end came first; the memory is still there
                return True
            if slot.in_flight[0].fence == fence:
                return True
        self._giving = None
        self._acts_at = now + SETTLES_S
        return True

    def _preempt_one(self, now: float) -> None:
        state = self._state
        candidates = self._preemption.candidates(now)
        if not candidates or sum(bool(slot.in_flight) for slot in state.slots.values()) < 2:
            return
        slot = candidates[0]
        task = slot.in_flight[0]
        grace_s = state.settings.preempt_grace_s
        if not self._preemption.is_resumable(task):
            grace_s = 0.0 if self._memory.level is Level.EMERGENCY else min(BRIEF_S, grace_s)
        if self._preemption.preempt(slot, MEMORY, now, grace_s):
            self._giving = slot, slot.incarnation, task.fence
            self._yielded = min(self._yielded, task.options.priority)
            self._hold()

"""How many workers the load is worth, where that is left to the pool (``autoscale``). Looked at once a second.

*Up*: no worker is idle, and tasks have waited longer than ``autoscale_wait_s``, or will at the present pace; so at two
looks in a row. Then the workers are doubled, but no more are added than tasks wait. The next time is when the new
ones are ready and it still is so.

*Down*: for ``autoscale_idle_s`` it was not so, and at no look were more than four fifths of those busy that would be
left. Then one goes, and one more after each tenth of that time, for as long as that holds.

Between the two is room in which nothing happens: a load that wavers around what the workers can do makes them more,
and then none fewer. The machine has the last word: where it is busy or short of memory, no workers are added, as they
would have nothing to work with. Only those that belong to no group are counted, and changed.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

from poolmgr.config.groups import REST
from poolmgr.core.load import Load, load_of
from poolmgr.core.state import State
from poolmgr.core.supervisor import Supervisor

LOOKS: Final = 2  # in a row at which there are too few
MACHINE_KNOWN_S: Final = 5.0  # what was said of the machine longer ago says nothing
_USED_AT_MOST: Final = 0.8  # of the workers that are left
_DOWN_STEPS: Final = 10
_UNKNOWN: Final = -1e9


class Scaled(NamedTuple):
    """What was done last: when (boot time), from how many workers to how many, and why."""

    at: float
    before: int
    after: int
    reason: str


class Autoscaler:
    """Scales the workers that belong to no group. Does nothing where ``autoscale`` is off."""

    def __init__(self, state: State, supervisor: Supervisor) -> None:
        self._state = state
        self._supervisor = supervisor
        self.load: Load | None = None  # at the last look
        self.reason = "it was not looked at yet"  # why at the last look nothing was done, or what was
        self.last: Scaled | None = None
        self.cpu_percent = 0.0
        self._machine_at = _UNKNOWN
        self._pressed = 0  # looks in a row
        self._calm_since = 0.0
        self._down_at = 0.0  # when the next may go
        self._size = -1  # that this has seen, or made
        self._busy: deque[tuple[float, int]] = deque()  # when, how many: the first is the most of the time that counts

    def machine(self, cpu_percent: float, now: float) -> None:
        """So much of the machine's processors is in use. How short memory is, core/pressure.py is told."""
        self.cpu_percent = cpu_percent
        self._machine_at = now

    def check(self, now: float, late: bool) -> None:
        """Look, and scale. ``late``: the scheduler was, or workers are being replaced; such a look proves nothing."""
        settings = self._state.settings
        if not settings.autoscale or self._state.shutting_down:
            return
        load = self.load = load_of(self._state, now)
        if load.size != self._size:  # scaled by somebody else
            self._restart(load.size, now)
        if late:
            self._restart(load.size, now)
            self.reason = "this was no time to judge"
            return
        self._note(load.busy, now)
        pressed = not load.idle and max(load.longest_s, load.expected_s) > settings.autoscale_wait_s
        self._pressed = self._pressed + 1 if pressed else 0
        if pressed:
            self._calm_since = now
            self._go_up(load, now)
        else:
            self._go_down(load, now)

    def _restart(self, size: int, now: float) -> None:
        self._size = size
        self._pressed = 0
        self._calm_since = self._down_at = now
        self._busy.clear()

    def _note(self, busy: int, now: float) -> None:
        while self._busy and self._busy[0][0] <= now - self._state.settings.autoscale_idle_s:
            self._busy.popleft()
        while self._busy and self._busy[-1][1] <= busy:
            self._busy.pop()
        self._busy.append((now, busy))

    def _go_up(self, load: Load, now: float) -> None:
        waits_s = max(load.longest_s, load.expected_s)
        why = f"{load.waiting} tasks wait, for {waits_s:.1f} s, and no worker is idle"
        settings = self._state.settings
        most = settings.max_workers - load.others
        if self._pressed < LOOKS:
            self.reason = f"{why}: for how long is to be seen"
        elif load.size >= most:
            self.reason = f"{why}; max_workers is reached"
        elif load.coming:
            self.reason = f"{why}; {load.coming} new workers are not ready yet"
        elif load.size and not load.busy:
            self.reason = f"{why}; none is of use, and more would not be"
        elif self._machine_at < now - MACHINE_KNOWN_S:
            self.reason = f"{why}; how busy the machine is, is not known"
        elif self.cpu_percent > settings.autoscale_cpu_percent:
            self.reason = f"{why}; the machine is busy already ({self.cpu_percent:.0f} % of its CPU)"
        elif self._state.memory.level:
            self.reason = f"{why}; memory is short: {self._state.memory.why}"
        else:
            wanted = min(max(2 * load.size, 1), load.size + load.waiting)
            least = settings.min_workers - load.others  # workers may have been taken out by hand
            self._scale(load.size, min(max(wanted, least), most), why, now)

    def _go_down(self, load: Load, now: float) -> None:
        settings = self._state.settings
        kept = min(1, self._state.groups[REST].size)  # for its tasks, where there were workers for them at the start
        least = max(kept, settings.min_workers - load.others)
        peak = self._busy[0][1]
        if load.waiting and not load.idle:
            self.reason = f"{load.waiting} tasks wait, and not for long"
        elif load.size <= least:
            self.reason = "nothing more waits than can be begun; min_workers is reached"
        elif now < self._calm_since + settings.autoscale_idle_s:
            self.reason = f"it is to be seen whether so many are needed: {self._calm_for(now)}"
        elif peak > _USED_AT_MOST * (load.size - 1):
            self.reason = f"up to {peak} of {load.size} workers were busy in the last {settings.autoscale_idle_s:g} s"
        elif now >= self._down_at:
            why = f"at most {peak} of {load.size} workers were busy in the last {settings.autoscale_idle_s:g} s"
            self._scale(load.size, load.size - 1, why, now)

    def _calm_for(self, now: float) -> str:
        return f"for {now - self._calm_since:.0f} of {self._state.settings.autoscale_idle_s:g} s no task had to wait"

    def _scale(self, before: int, after: int, why: str, now: float) -> None:
        self._supervisor.scale(after, now, REST, why)
        self.last = Scaled(now, before, after, why)
        self.reason = f"from {before} to {after} workers: {why}"
        self._size = after
        self._pressed = 0
        if after < before:
            self._down_at = now + self._state.settings.autoscale_idle_s / _DOWN_STEPS

    def seen(self, now: float) -> dict[str, Any] | None:
        """What there is to be told: the load, and what was done about it and why. None where it is off."""
        settings = self._state.settings
        if not settings.autoscale:
            return None
        found = {} if self.load is None else self.load._asdict()
        last = None if self.last is None else {
            "at": self.last.at + self._state.wall_offset, "before": self.last.before, "after": self.last.after,
            "reason": self.last.reason,
        }  # fmt: skip
        known = self._machine_at >= now - MACHINE_KNOWN_S
        return {
            **found,
            "cpu_percent": round(self.cpu_percent, 1) if known else None,
            "reason": self.reason,
            "last": last,
        }

"""Do circuit breakers open when they should, hold what they should, and let go? Checked after every flush.

1. A breaker opens only after so many failed attempts of its name, since it was last closed.
2. Of an open name nothing starts before its time is over, and then one at a time: the next when that one has ended, or
   has had as long as the breaker was open.
3. What must drain drains (simulator.py): no probe, whatever becomes of it, holds a name back for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from poolmgr.core.effects import Effect, Emit, Start
from poolmgr.core.scheduler import Scheduler

_ROUNDING_S = 1e-6


class BreakerCheck:
    """Watches the names of one epoch, by events and starts alone."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._state = scheduler.state
        self._failed: Counter[str] = Counter()  # since the breaker was last closed
        self._free_at: dict[str, float] = {}  # when the next of a name may start that is held back
        self._probe: dict[str, int] = {}  # the fence of the one that was started last

    def decided(self, effects: Sequence[Effect], told_at: float, now: float) -> None:
        """Raise ``AssertionError`` with what is wrong. What was decided was decided between ``told_at`` and now."""
        settings = self._state.settings
        for effect in effects:
            if isinstance(effect, Start):
                self._started(effect, now)
            elif isinstance(effect, Emit) and effect.name == "task-failed":
                self._failed[effect.fields["name"]] += 1
            elif isinstance(effect, Emit) and effect.name == "breaker-opened":
                name = effect.fields["name"]
                assert settings.breaker_failures, f"{name}: there are to be no breakers"
                assert self._failed[name] >= settings.breaker_failures, f"{name} opens after {self._failed[name]}"
                self._free_at[name] = told_at + settings.breaker_open_s
                self._probe.pop(name, None)
            elif isinstance(effect, Emit) and effect.name == "breaker-closed":
                name = effect.fields["name"]
                del self._free_at[name]
                self._probe.pop(name, None)
                self._failed[name] = 0

    def _started(self, start: Start, now: float) -> None:
        free_at = self._free_at.get(start.name)
        if free_at is None:
            return
        ended = start.name in self._probe and self._probe[start.name] not in self._in_flight()
        assert ended or now >= free_at - _ROUNDING_S, f"{start.name} is held back, and starts {free_at - now} s early"
        self._probe[start.name] = start.fence
        self._free_at[start.name] = now + self._state.settings.breaker_open_s

    def _in_flight(self) -> set[int]:
        return {task.fence for slot in self._state.slots.values() for task in slot.in_flight}

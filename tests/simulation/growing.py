"""Does the autoscaler keep to its bounds, and heed the machine? Checked after every flush."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from poolmgr.core.effects import Effect, Emit
from poolmgr.core.scheduler import Scheduler

_ASKED: Final = "asked for"


class GrowthCheck:
    """Watches how one epoch's pool is scaled."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._settings = scheduler.state.settings

    def decided(self, effects: Sequence[Effect]) -> None:
        """Raise ``AssertionError`` with what is wrong."""
        for effect in effects:
            if not isinstance(effect, Emit) or effect.fields.get("reason") in (None, _ASKED):
                continue
            if effect.name in ("pool-scaled-up", "pool-scaled-down"):
                self._check(effect)

    def _check(self, event: Emit) -> None:
        fields, settings, autoscaler = event.fields, self._settings, self._scheduler.autoscaler
        assert settings.autoscale, f"{fields}: nobody has asked for that"
        assert fields["reason"]
        assert settings.min_workers <= fields["new_size"] <= settings.max_workers, f"{fields} is out of bounds"
        assert fields["group"] == "default"
        if event.name == "pool-scaled-up":
            assert autoscaler.cpu_percent <= settings.autoscale_cpu_percent, f"{fields}: the machine is busy"
            before = fields["new_size"] - fields["count"]
            twice = fields["count"] <= max(1, before) or fields["new_size"] == settings.min_workers
            assert twice, f"{fields}: that is more than twice"
        else:
            assert fields["count"] == 1, f"{fields}: one at a time"

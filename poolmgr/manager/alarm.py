"""What wakes the daemon when it is time for something: one timer of the loop, for the earliest."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Alarm:
    """Calls ``ring`` once, at the earliest of the times that it was set to since it last did, or up to a millisecond or
    two later.

    A loop's timers count whole milliseconds, and uvloop rounds to the nearest. What it rounds to none runs in the next
    turn; and whoever sees there that it is not time yet, and asks for the rest, keeps the loop busy until it is. So
    what is due now rings in the next turn, and all else after one millisecond at least.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at: float, now: float) -> None:
        """Ring at the time ``at``, infinity for never, unless that is to be sooner; it is ``now``."""
        if at >= self._at:
            return
        self.cancel()
        self._at = at
        self._timer = self._loop.call_later(math.ceil(max(0.0, at - now) * 1000) / 1000, self._due)

    def cancel(self) -> None:
        """Do not ring before it is set again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._at = math.inf

    def _due(self) -> None:
        self._timer = None
        self._at = math.inf
        self._ring()

"""The scheduler's clock: boot time, which goes on while the machine sleeps and is never set."""

from __future__ import annotations

import time


def now() -> float:
    """Seconds of CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_offset() -> float:
    """What to add to boot time for wall time."""
    return time.time() - now()

"""The scheduler's clock: boot time, which goes on while the machine sleeps and is never set."""

from __future__ import annotations

import math
import time


def now() -> float:
    """Seconds of CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_offset() -> float:
    """What to add to boot time for wall time."""
    return time.time() - now()


def timer_s(delay_s: float) -> float:
    """What a loop's timer is to wait, so that it is then at least ``delay_s`` later: whole milliseconds, at least one.

    uvloop rounds to the nearest. What it rounds to none runs in the next turn; and whoever sees there that it is not
    time yet, and asks for the rest, keeps the loop busy until it is.
    """
    return max(1, math.ceil(delay_s * 1000)) / 1000

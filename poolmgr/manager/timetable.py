"""When the ticks of a schedule are: the calendar that the scheduler is given.

Cron expressions are read by cronsim, which follows Debian's cron, also where clocks are put forward or back: a job at a
fixed time that falls into the gap runs right after it, one that falls into the repeated hour runs once; a job with a
``*`` (or ``*/n``) for its hour or minute follows the clock as it is. Times of day are those of ``zoneinfo``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import cache
from itertools import takewhile
from math import floor

from poolmgr.errors import BadOption
from poolmgr.schedule import Timing

_FIRST_LOOK_S = 60.0  # how far back the latest ticks are looked for, and then four times as far, and so on


class Timetable:
    """A ``core.periodic.Timetable``."""

    def after(self, timing: Timing, anchor: float, wall: float) -> float | None:
        if timing.every_s is not None:
            return anchor + _number(timing.every_s, anchor, wall) * timing.every_s
        return next(_cron_ticks(timing, wall), None)

    def between(self, timing: Timing, anchor: float, after: float, until: float, most: int) -> list[float]:
        if timing.every_s is not None:
            end = _number(timing.every_s, anchor, until)
            first = max(_number(timing.every_s, anchor, after), end - most)
            return [anchor + number * timing.every_s for number in range(first, end)]
        look_s = _FIRST_LOOK_S
        while True:  # back from ``until``: since ``after`` there may have been millions
            start = max(after, until - look_s)
            found = deque(takewhile(lambda tick: tick <= until, _cron_ticks(timing, start)), maxlen=most)
            if len(found) == most or start == after:
                return list(found)
            look_s *= 4.0

    def check(self, timing: Timing, now: float) -> None:
        """Raise ``BadOption`` if the expression or the time zone cannot be read, or there is no tick after ``now``."""
        if self.after(timing, now, now) is None:
            raise BadOption(f"cron {timing.cron!r} never comes: is there such a date?")


def _number(every_s: float, anchor: float, wall: float) -> int:
    """The number of the first tick after ``wall``, from 1. Exact, although quotients are rounded."""
    number = max(1, floor((wall - anchor) / every_s))
    while anchor + number * every_s <= wall:
        number += 1
    return number


def _cron_ticks(timing: Timing, wall: float) -> Iterator[float]:
    """All ticks after ``wall``."""
    from cronsim import CronSim, CronSimError

    assert timing.cron is not None
    try:
        moments = CronSim(timing.cron, datetime.fromtimestamp(wall, _zone(timing.timezone)))
    except CronSimError as error:
        fields = "minute, hour, day of the month, month, day of the week"
        raise BadOption(f"cron {timing.cron!r} cannot be read ({error}): it takes {fields}") from None
    last = wall
    for moment in moments:
        tick = moment.timestamp()
        if tick > last:  # in a repeated hour it begins with those of the hour before
            last = tick
            yield tick


@cache
def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # also where no time zones are installed
    from zoneinfo import ZoneInfo, available_timezones

    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # not found; a directory; no name that a file may have
        pass
    if not available_timezones():
        raise BadOption(f"time zone {name!r}: this system has no time zones: install tzdata (apt, or pip)")
    raise BadOption(f"unknown time zone {name!r}: it takes an IANA name, such as 'Europe/Berlin'")

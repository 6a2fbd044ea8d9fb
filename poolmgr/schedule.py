"""Work that is done again and again: when, and what is known of such a schedule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from poolmgr.errors import BadOption

MISSED: Final = ("once", "skip", "all")
SHORTEST_S: Final = 0.1  # between two ticks of one schedule
LONGEST_S: Final = 10.0**9
DECLARED: Final = "app:"  # what the ids of schedules begin with that belong to the app's code; the task's name follows

_CRON_CHARS: Final = 200
_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class Timing(NamedTuple):
    """When the ticks of a schedule are: give ``cron`` or ``every_s``. Each tick is a moment that has one task.

        Timing(cron="30 8 * * MON-FRI", timezone="Europe/Berlin")
        Timing(every_s=60, missed="skip")

    Attributes:
        cron: minute, hour, day of the month, month, day of the week, as cron(8) reads them; a sixth field in front is
            for seconds.
        every_s: seconds from tick to tick, counted from when the schedule was made: what comes late delays no other.
        timezone: whose clock ``cron`` means, by its IANA name, such as ``"America/New_York"``.
        missed: what becomes of ticks for which no daemon was there, or over which the clock was set: ``"once"`` makes
            one task for them all, ``"skip"`` none, ``"all"`` one for each (of the last 1,000).
    """

    cron: str | None = None
    every_s: float | None = None
    timezone: str = "UTC"
    missed: str = "once"


class ScheduleInfo(NamedTuple):
    """What is known of a schedule. Times are wall times in seconds since 1970.

    Attributes:
        id: what it is called.
        name: of the tasks that it makes.
        cron, every_s, timezone, missed: its ``Timing``.
        paused: it makes no tasks until it is resumed.
        declared: it belongs to the app's code (``@task(schedule=...)``).
        created_at: when it got its timing.
        last_tick: the latest tick that has had its turn, or None.
        last_task: the id of that one's task: 32 hex digits. It need not exist: ticks may be skipped.
        upcoming: its next ticks, as many as were asked for.
        trouble: why a tick that is due has no task yet; empty: all is well.
    """

    id: str
    name: str
    cron: str | None = None
    every_s: float | None = None
    timezone: str = "UTC"
    missed: str = "once"
    paused: bool = False
    declared: bool = False
    created_at: float = 0.0
    last_tick: float | None = None
    last_task: str | None = None
    upcoming: tuple[float, ...] = ()
    trouble: str = ""


def schedule_info(found: Mapping[str, Any]) -> ScheduleInfo:
    """The info of a map of its fields, from here or from a newer peer: unknown names are left out."""
    known = {name: value for name, value in found.items() if name in ScheduleInfo._fields}
    return ScheduleInfo(**{**known, "upcoming": tuple(known.get("upcoming", ()))})


def timing_of(found: Mapping[str, Any]) -> Timing:
    """The timing in a map, as a user or a peer wrote it, as far as it can be checked without a calendar.

    Raises:
        BadOption: it has neither or both of ``cron`` and ``every_s``, or a value of the wrong kind.
    """
    given: dict[str, Any] = {name: found[name] for name in Timing._fields if found.get(name) is not None}
    if ("cron" in given) == ("every_s" in given):
        raise BadOption("a schedule takes either cron or every_s")
    if given.get("missed", "once") not in MISSED:
        raise BadOption(f"missed takes {', '.join(map(repr, MISSED))}, got {given['missed']!r}")
    if not isinstance(given.get("timezone", ""), str):
        raise BadOption(f"timezone takes a name such as 'Europe/Berlin', got {given['timezone']!r}")
    if "cron" in given:
        cron = given["cron"]
        if not isinstance(cron, str) or len(cron) > _CRON_CHARS:
            raise BadOption(f"cron takes a string such as '30 8 * * MON-FRI', got {cron!r}")
        return Timing(**{**given, "cron": " ".join(cron.split())})
    every_s = given["every_s"]
    if isinstance(every_s, bool) or not isinstance(every_s, (int, float)) or not SHORTEST_S <= every_s <= LONGEST_S:
        raise BadOption(f"every_s takes seconds, at least {SHORTEST_S:g}, got {every_s!r}")
    if given.get("timezone", "UTC") != "UTC":
        raise BadOption("timezone belongs to cron: every_s counts seconds, which are the same everywhere")
    return Timing(**{**given, "every_s": float(every_s)})


def check_id(id: Any) -> str:
    """``id``, if a user may call a schedule so. Raises ``BadOption``."""
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise BadOption(f"a schedule's id is 1 to 100 letters, digits, '_', '.' and '-', got {id!r}")
    return id

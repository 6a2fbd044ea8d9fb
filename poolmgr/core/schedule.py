"""The scheduler's own record of a schedule, and what the tasks are called that it makes."""

from __future__ import annotations

from typing import Final

try:
    from _blake2 import blake2b  # hashlib's own: hashlib loads OpenSSL, too, 3.5 MB of every daemon
except ImportError:
    from hashlib import blake2b

from poolmgr.core.changes import ScheduleRecord

ORIGIN: Final = "schedule:"  # what the origin of a schedule's task begins with; the schedule's id follows


class Schedule:
    """One schedule. Only ``core`` changes it."""

    __slots__ = ("due_at", "next_tick", "record", "trouble", "turn_at")

    def __init__(self, record: ScheduleRecord) -> None:
        self.record = record
        self.next_tick: float | None = None  # wall time; None: there is none, or nothing is to come of it now
        self.due_at = 0.0  # the boot time of that
        self.trouble = ""  # why a tick that is due has no task yet
        self.turn_at = 0.0  # the boot time at which a tick had its turn last, in this epoch


def task_id(record: ScheduleRecord, tick: float) -> bytes:
    """The id of the one task that a tick can have: shaped as every id is, its random part drawn from schedule and tick.

    A schedule that was removed and made again is another: its ticks are its own.
    """
    drawn = blake2b(f"{record.id}\0{record.created_at!r}\0{tick!r}".encode(), digest_size=10)
    return int(tick * 1000).to_bytes(6, "big") + drawn.digest()


def origin_text(origin: bytes | str | None) -> str | None:
    """Where a task comes from, for people: the id of the dead task, ``schedule:`` and a schedule's id, or nothing."""
    return origin.hex() if isinstance(origin, bytes) else origin

"""Which ids of durable tasks are surely new, so that nobody need ask the store for each submit.

An id begins with the time at which it was made, and the ids of the durable tasks that were taken in the last seconds
are known here, whichever connection they came by. So one that was made in these seconds, and is not among them, is
new. All others may have been submitted before, by a client that has lost its connection: the store is asked.

Where the clock is set back, ids are older than what is known here reaches back to until the clock has caught up: then
the store is asked for each. That is slower, and never wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from poolmgr.model import last_id_of

KEPT_S = 5.0
AHEAD_S = 60.0  # a client's clock may be so much ahead, and no more is done for its submits than for others'
_FEW = 2_000


class RecentIds:
    """Those of one daemon. ``begin`` with what the store has, then ``advance`` each second."""

    def __init__(self, wall_now: float) -> None:
        self._since = b""  # all that are larger, and were taken, are known here
        self._newest = last_id_of(wall_now + AHEAD_S)  # those that are larger are of no known time
        self._advanced = wall_now
        self._taken: set[bytes] = set()
        self._left = 0  # how many were left when those that are too old were last dropped

    def begin(self, last: bytes, ahead: Iterable[bytes]) -> None:
        """The largest id of a known time that the store has or had, and those beyond that it has."""
        self._since = max(self._since, last)
        self._taken.update(ahead)

    def advance(self, wall_now: float) -> None:
        """Time goes on. What it has brought since the last time is known for as long again: it may have come late."""
        self._since = max(self._since, last_id_of(min(wall_now, self._advanced) - KEPT_S))
        self._newest = last_id_of(wall_now + AHEAD_S)
        self._advanced = wall_now
        # Seldom enough to cost little, and often enough to take little: what comes and goes in heaps makes holes.
        if len(self._taken) > self._left + max(self._left // 4, _FEW):
            self._taken = {id for id in self._taken if id > self._since}
            self._left = len(self._taken)

    def is_new(self, id: bytes) -> bool:
        """Whether no durable task can have this id."""
        return self._since < id <= self._newest and id not in self._taken

    def are_new(self, ids: Sequence[bytes]) -> bool:
        """The same of each, one after the other; there is at least one."""
        return (
            self._since < min(ids)
            and max(ids) <= self._newest
            and self._taken.isdisjoint(ids)
            and len(set(ids)) == len(ids)
        )

    def __contains__(self, id: bytes) -> bool:
        return id in self._taken

    def take(self, ids: Iterable[bytes]) -> None:
        """Durable tasks of these ids exist from now on."""
        self._taken.update(ids)

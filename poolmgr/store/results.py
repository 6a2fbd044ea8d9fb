"""What the results of finished tasks weigh, and which tasks are forgotten first.

Tasks that ended in another way than dead are kept until they expire, or until all outcomes, and the chunks of their
streams, together weigh more than allowed; but as long as a deduplication key holds, its task is. The sum runs along in
memory; where something has happened that it does not know the weight of, it is counted anew from an index, the next
time that somebody asks.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence

from poolmgr.core.changes import TaskEnded


class Results:
    """Those of one database.

    Args:
        sql: the store's statements.
        limit_bytes: of all outcomes together. None: no limit.
    """

    def __init__(self, sql: Mapping[str, str], limit_bytes: int | None) -> None:
        self._sql = sql
        self._limit_bytes = math.inf if limit_bytes is None else limit_bytes
        self._bytes: int | None = None

    def ended(self, run: Sequence[TaskEnded], known: int) -> None:
        """These tasks have ended, ``known`` of which were known and not final before."""
        if known != len(run):
            self._bytes = None
        elif self._bytes is not None:
            self._bytes += sum(len(each.outcome) + each.streamed for each in run if each.expires_at is not None)

    def lost_count(self) -> None:
        """Something else has changed them."""
        self._bytes = None

    def forget(self, connection: sqlite3.Connection, wall_now: float, limit: int) -> int:
        """Forget those that have expired, then those that would expire next as long as there is too much; how many.

        At most ``limit``, so that it takes some milliseconds. A dead task has no time at which it expires, and is not
        among them. Nor is one whose deduplication key still holds: a start knows the key from its row alone.
        """
        forgotten = self._forget_expired(connection, wall_now, limit)
        if self._limit_bytes < math.inf and forgotten < limit:
            forgotten += self._forget_excess(connection, wall_now, limit - forgotten)
        return forgotten

    def _forget_expired(self, connection: sqlite3.Connection, wall_now: float, limit: int) -> int:
        expired = connection.execute(self._sql["first_to_expire"], (wall_now, limit)).fetchall()
        if expired:
            *last, _ = expired[-1]
            connection.execute(self._sql["forget_until"], last)
        if self._bytes is not None:
            self._bytes -= sum(size for *_, size in expired)
        return len(expired)

    def _forget_excess(self, connection: sqlite3.Connection, wall_now: float, limit: int) -> int:
        if self._bytes is None:
            (self._bytes,) = connection.execute(self._sql["results_bytes"]).fetchone()
        weighs = self._bytes or 0
        if weighs <= self._limit_bytes:
            return 0
        forgotten = 0
        for id, size in connection.execute(self._sql["first_to_spare"], (wall_now, limit)).fetchall():
            if weighs <= self._limit_bytes:
                break
            connection.execute(self._sql["purge_task"], (id,))
            forgotten += 1
            weighs -= size
        self._bytes = weighs
        return forgotten

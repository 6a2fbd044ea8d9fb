"""How the SQLite store keeps streams: a row for each that says how far it has come, and one for each chunk.

Changes of streams are applied one by one in Python: what becomes of a chunk depends on how far its stream has come.
They are rare beside those of tasks, and large.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from poolmgr.core.changes import ChunkAdded, ChunksDropped
from poolmgr.core.stream import ROW_BYTES
from poolmgr.payload import inline
from poolmgr.store.rows import LONG_BYTES
from poolmgr.store.spool import Spool

STREAM_CHANGES: Final = frozenset({ChunkAdded, ChunksDropped})


class _Row(NamedTuple):
    """How far a stream has come."""

    kept: int
    dropped: int
    size: int
    first: int
    checkpoint: bytes | None  # None: as it was before


class StreamRows:
    """Those of one database. Its methods are called inside the store's transactions."""

    def __init__(self, sql: Mapping[str, str], spool: Spool) -> None:
        self._sql = sql
        self._spool = spool

    def apply(self, connection: sqlite3.Connection, run: Sequence[Any]) -> None:
        """Changes of streams, in their order."""
        for id, changes in groupby(run, lambda change: change.id):
            found = connection.execute(self._sql["growing_stream"], (id,)).fetchone()
            if found is None:
                continue  # unknown, or final
            before = row = _Row(*found)
            for change in changes:
                if type(change) is ChunkAdded:
                    row = self._add(connection, row, change)
                else:
                    row = self._drop(connection, row, id, change.below)
            if row != before:
                connection.execute(self._sql["set_stream"], (id, *row))

    def _add(self, connection: sqlite3.Connection, row: _Row, change: ChunkAdded) -> _Row:
        id, seq, payload, checkpoint = change
        if payload is None:
            if checkpoint is not None and row.first <= seq <= row.kept:
                row = row._replace(first=seq, checkpoint=checkpoint)
            return row
        if seq != row.kept:
            return row
        if not seq:
            self._forget_remains(connection, id)
        size = len(payload) + ROW_BYTES
        content = None if len(payload) > LONG_BYTES else inline(payload)
        if content is None:
            self._spool.write(connection, id, "chunk", payload, seq)
        connection.execute(self._sql["add_chunk"], (id, seq, content, size))
        row = row._replace(kept=seq + 1, size=row.size + size)
        return row if checkpoint is None else row._replace(first=seq + 1, checkpoint=checkpoint)

    def _drop(self, connection: sqlite3.Connection, row: _Row, id: bytes, below: int) -> _Row:
        below = min(below, row.kept)
        if below <= row.dropped:
            return row
        some = (id, row.dropped, below)
        (size,) = connection.execute(self._sql["bytes_of_chunks"], some).fetchone()
        connection.execute(self._sql["drop_chunks"], some)
        return row._replace(dropped=below, size=row.size - size)

    def _forget_remains(self, connection: sqlite3.Connection, id: bytes) -> None:
        """Of an earlier task of that id."""
        if connection.execute(self._sql["stream_is_gone"], (id,)).rowcount:
            connection.execute(self._sql["drop_chunks"], (id, 0, 1 << 62))

    def sweep(self, connection: sqlite3.Connection, limit: int) -> int:
        """Remove at most so many chunks of streams whose tasks are forgotten; how many."""
        swept = 0
        while swept < limit:
            found = connection.execute(self._sql["a_forgotten_stream"]).fetchone()
            if found is None:
                break
            (last,) = connection.execute(self._sql["first_chunks"], (found[0], limit - swept)).fetchone()
            if last is None:
                connection.execute(self._sql["stream_is_gone"], found)
            else:
                swept += connection.execute(self._sql["drop_chunks"], (found[0], 0, last + 1)).rowcount
        return swept

"""What the SQLite store tells: tasks, ends, shelves, lives. Every look-up is one statement of queries.sql."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Final, TypeVar

from poolmgr.core.allotment import first_of
from poolmgr.core.changes import ScheduleRecord, StreamRecord, TaskRecord
from poolmgr.core.shelf import LineKey, Place, ShelfSize
from poolmgr.errors import StoreUnavailable
from poolmgr.model import FINAL, TaskInfo, TaskState
from poolmgr.payload import Lost, Payload
from poolmgr.store.base import AHEAD_MOST, Chunks, Ids, Outcome
from poolmgr.store.refusal import CORRUPT, refusal
from poolmgr.store.rows import (
    UNREADABLE,
    Row,
    attempt_of,
    info_of,
    line_of,
    outcome_of,
    pack_demand,
    record_of,
    schedule_of,
)
from poolmgr.store.schema import load_statements
from poolmgr.store.spool import ContentLost, Kind, Spool, spool_of
from poolmgr.worker_life import WorkerLife

_AFTER_ALL_IDS: Final = b"\xff" * 17  # an id has 16 bytes
_BEFORE_ALL: Final = (-(2**63), b"")  # (order, id) of no task
_PAGE: Final = 1000  # tasks read at a time, of all that are in hand
_ENDED_BADLY: Final = frozenset({TaskState.DEAD, TaskState.CANCELLED, TaskState.EXPIRED})  # they have an index

T = TypeVar("T")


class Reading:
    """The reading half of ``SqliteStore``; for the rest see there."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._sql = load_statements()
        self._spool = Spool(spool_of(path), self._sql)
        self._connection: sqlite3.Connection | None = None

    def in_hand(self) -> Iterator[TaskRecord]:
        after = _BEFORE_ALL
        while page := self._read(self._record_of, "in_hand_page", *after, _PAGE):
            yield from page
            after = page[-1].order, page[-1].id

    def shelves(self) -> list[ShelfSize]:
        found = self._read(lambda row: ShelfSize(line_of(*row[:4]), *row[4:]), "queued_sizes")
        scheduled = self._read(lambda row: ShelfSize(None, *row), "scheduled_size")
        return [*found, *(each for each in scheduled if each.tasks)]

    def shelf(self, line: LineKey | None, after: Place, limit: int, limit_bytes: int = sys.maxsize) -> list[TaskRecord]:
        if line is None:
            found = self._each(self._record_of, "scheduled_page", *after, limit)
        else:
            columns = (line.name, pack_demand(line.requires, line.ephemeral), line.priority, line.group)
            found = self._each(self._record_of, "queued_page", *columns, after[1], limit)
        with closing(found):
            return first_of(found, limit, limit_bytes)

    def keys(self, wall_now: float) -> list[tuple[str, bytes, float]]:
        return sorted(self._read(lambda row: (row[0], row[1], row[2]), "keys", wall_now), key=lambda each: each[1])

    def ids(self, newest: bytes) -> Ids:
        ahead = self._read(lambda row: bytes(row[0]), "ids_beyond", newest, AHEAD_MOST + 1)
        if len(ahead) > AHEAD_MOST:
            newest, ahead = b"\xff" * 16, []
        (last,) = self._read(lambda row: bytes(row[0]), "last_id", newest)
        return Ids(max(last, self.forgotten()), tuple(ahead))

    def forgotten(self) -> bytes:
        (last,) = self._read(lambda row: bytes(row[0]), "forgotten")
        return last

    def schedules(self) -> list[ScheduleRecord]:
        return self._read(schedule_of, "schedules")

    def streams(self) -> list[StreamRecord]:
        return self._read(lambda row: StreamRecord(*row), "streams")

    def chunks(self, task_id: bytes, offset: int, limit: int, limit_bytes: int = sys.maxsize) -> Chunks | None:
        row = _first(self._read(lambda row: (int(row[0]), int(row[1]), bool(row[2])), "stream", task_id))
        if row is None:
            return None
        kept, dropped, final = row
        count = min(limit, kept - offset) if offset >= dropped else 0
        found: list[Payload] = []
        if count > 0:
            with closing(
                self._each(lambda row: self._chunk_of(task_id, *row), "chunks", task_id, offset, count)
            ) as some:
                weighs = 0
                for payload in some:
                    found.append(payload)
                    weighs += len(payload)
                    if weighs >= limit_bytes:
                        break
        return Chunks(found, kept, dropped, final)

    def _chunk_of(self, task_id: bytes, seq: int, payload: bytes | None) -> Payload:
        return payload if payload is not None else self._content(task_id, "chunk", seq)

    def record(self, task_id: bytes) -> TaskRecord | None:
        return _first(self._read(self._record_of, "record", task_id))

    def task(self, task_id: bytes) -> TaskInfo | None:
        info = _first(self._read(info_of, "task", task_id))
        if info is None:
            return None
        return info._replace(attempts=tuple(self._read(attempt_of, "attempts", task_id)))

    def outcome(self, task_id: bytes) -> Outcome | None:
        def decode(row: Row) -> Outcome:
            return outcome_of(row if row[2] is not None else (*row[:2], self._content(task_id, "outcome")))

        return _first(self._read(decode, "outcome", task_id))

    def tasks(
        self,
        *,
        state: TaskState | None = None,
        name: str | None = None,
        limit: int = 100,
        before: bytes | None = None,
    ) -> list[TaskInfo]:
        statement = "tasks_ended_badly" if state in _ENDED_BADLY else "tasks"
        return self._read(
            info_of, statement, before or _AFTER_ALL_IDS, max(0, limit), None if state is None else state.value, name
        )

    def counts(self) -> dict[TaskState, int]:
        return dict(self._read(lambda row: (TaskState(row[0]), int(row[1])), "counts"))

    def lives(self, worker: str | None = None, limit: int = 100) -> list[WorkerLife]:
        return self._read(lambda row: WorkerLife(*row), "lives", worker, max(0, limit))

    def _record_of(self, row: Row) -> TaskRecord:
        if row[2] is not None:
            return record_of(row)
        record = record_of((*row[:2], b"", *row[3:]))
        payload: Payload
        try:
            payload = self._content(record.id, "payload")
        except ContentLost as lost:
            # Where the database is not there either, the whole directory was moved, and may come back.
            if record.state in FINAL or not os.path.exists(self.path):
                raise
            payload = Lost(lost.why)
        return record._replace(payload=payload)

    def _content(self, id: bytes, kind: Kind, seq: int = 0) -> bytes:
        with self._translated() as connection:
            return self._spool.content(connection, id, kind, seq)

    def _read(self, decode: Callable[[Row], T], statement: str, *values: object) -> list[T]:
        """The rows that ``statement`` finds, decoded."""
        with self._translated() as connection:
            rows = connection.execute(self._sql[statement], values).fetchall()
        return list(self._decoded(decode, rows))

    def _each(self, decode: Callable[[Row], T], statement: str, *values: object) -> Generator[T, None, None]:
        """The same one by one, for who may not want all of them; to be closed, or else the log cannot be emptied."""
        with self._translated() as connection, closing(connection.execute(self._sql[statement], values)) as rows:
            yield from self._decoded(decode, rows)

    def _decoded(self, decode: Callable[[Row], T], rows: Iterable[Row]) -> Iterator[T]:
        try:
            yield from map(decode, rows)
        except UNREADABLE as error:
            raise StoreUnavailable(f"{self.path}: a row makes no sense ({error}): {CORRUPT}") from error

    @contextmanager
    def _translated(self) -> Iterator[sqlite3.Connection]:
        """The open connection, with SQLite's and the system's errors as ours."""
        if self._connection is None:
            raise StoreUnavailable(f"{self.path} is not open")
        try:
            yield self._connection
        except (sqlite3.Error, OSError) as error:
            raise refusal(self.path, error) from error


def _first(found: list[T]) -> T | None:
    return found[0] if found else None

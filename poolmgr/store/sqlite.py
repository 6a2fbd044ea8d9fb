"""The store that survives: SQLite with a write-ahead log.

One connection, which one thread at a time uses. Every ``apply`` is one transaction, so its price is one sync
of the log, however many changes it holds (docs/decisions tells why that is enough). What it bears depends on
``synchronous``: ``FULL`` syncs each commit and survives a power loss; ``NORMAL`` syncs now and then, survives
the death of every process, and may lose the last commits when the power fails.

The log is bounded: SQLite moves it into the database every 1,000 pages (4 MB), ``expire`` truncates it once
the store is idle, and ``close`` removes it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from poolmgr.core.changes import Change, ScheduleRecord, TaskEnded, TaskRecord, TasksPurged
from poolmgr.core.failure import Failure
from poolmgr.core.shelf import LineKey, Place, ShelfSize
from poolmgr.errors import StoreUnavailable
from poolmgr.model import FINAL, TaskInfo, TaskState
from poolmgr.store.base import Ids, Outcome
from poolmgr.store.connecting import connect
from poolmgr.store.inspection import inspect
from poolmgr.store.refusal import CORRUPT, refusal
from poolmgr.store.results import Results
from poolmgr.store.rows import (
    UNREADABLE,
    Row,
    attempt_of,
    has_spooled,
    info_of,
    line_of,
    outcome_of,
    pack_demand,
    record_of,
    schedule_of,
    spooled,
    statements_for,
)
from poolmgr.store.schema import check_library, in_blocks, load_statements
from poolmgr.store.spool import Kind, Missing, Spool, spool_of
from poolmgr.store.write_ahead_log import log_of
from poolmgr.worker_life import WorkerLife

_log = logging.getLogger(__name__)

_AFTER_ALL_IDS: Final = b"\xff" * 17  # an id has 16 bytes
_BEFORE_ALL: Final = (-(2**63), b"")  # (order, id) of no task
_PAGE: Final = 1000  # tasks read at a time, of all that are in hand
_IDLE_ROUNDS: Final = 2  # calls of expire() with nothing between them, after which the store counts as idle

_ENDED_BADLY: Final = frozenset({TaskState.DEAD, TaskState.CANCELLED, TaskState.EXPIRED})  # they have an index

T = TypeVar("T")


class SqliteStore:
    """A ``store.base.Store`` in the file ``path``, which is made with mode 0600; its directory must exist.

    Args:
        path: of the database; SQLite keeps ``-wal`` and ``-shm`` files beside it, and large payloads and outcomes are
            files in the directory ``spool`` there.
        synchronous: ``FULL`` (default, survives a power loss) or ``NORMAL`` (survives any process's death).
        results_limit_bytes: what the outcomes of finished tasks may weigh together, dead letters not counted; beyond it
            ``expire`` forgets those first that would expire first. None: no limit.
        busy_timeout_s: how long a call waits for a lock of another process before it gives up.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        results_limit_bytes: int | None = None,
        busy_timeout_s: float = 1.0,
    ) -> None:
        self.path = Path(path)
        self._synchronous = synchronous
        self._busy_timeout_s = busy_timeout_s
        self._log = log_of(self.path)
        self._sql = load_statements()
        self._blocks = {name: in_blocks(statement) for name, statement in self._sql.items()}
        self._spool = Spool(spool_of(self.path), self._sql)
        self._results = Results(self._sql, results_limit_bytes)
        self._connection: sqlite3.Connection | None = None
        self._idle_rounds = 0
        self._in_place: list[os.stat_result] = []  # of the files, as they were opened

    # ------------------------------------------------------------------------------------------- life

    def open(self) -> int:
        if self._connection is not None:
            raise StoreUnavailable(f"{self.path} is open already")
        check_library()
        inspect(self.path, synced=self._synchronous == "FULL", busy_timeout_s=self._busy_timeout_s)
        self._create_private()
        self._idle_rounds = 0
        self._in_place = []
        try:
            self._connection = self._connect()
            epoch = self._begin_epoch()
            self._in_place = _stat(self.path, self._log)
            self._results.lost_count()
            self._bury(self._spool.attach(self._connection, epoch))
            return epoch
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise refusal(self.path, error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()  # as the last connection it empties the log into the database and deletes it

    def _check_in_place(self) -> None:
        """What is written to files that somebody has removed or replaced is lost with this process."""
        if self._in_place and not _same_files(self._in_place, _stat(self.path, self._log)):
            raise StoreUnavailable(
                f"{self.path} or its log was removed or replaced while it was in use: put the files back "
                f"(they are still in /proc/{os.getpid()}/fd, until this process ends)"
            )

    def _create_private(self) -> None:
        """Make the file with its mode before SQLite does so with the process's; its log inherits the mode.

        A file that is there is not touched: closing it here would drop the locks that this process has on it.
        """
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise StoreUnavailable(f"cannot create {self.path}: {error.strerror}") from error

    def _connect(self) -> sqlite3.Connection:
        statements = sum(map(len, self._blocks.values())) + 8
        return connect(self.path, self._synchronous, self._busy_timeout_s, statements)

    def _begin_epoch(self) -> int:
        with self._transaction() as connection:
            connection.execute(self._sql["begin_epoch"], (time.time(),))
            (epoch,) = connection.execute(self._sql["last_epoch"]).fetchone()
        return int(epoch)

    def _bury(self, missing: Sequence[Missing]) -> None:
        """A task whose payload is gone can never run: it ends dead, and says why."""
        for id, kind, file in missing:
            _log.error("the %s of task %s is missing: %s", kind, id.hex(), file)
            info = self.task(id)
            if kind == "payload" and info is not None and info.state not in FINAL:
                message = f"its payload is gone: somebody has removed {file}"
                failure = Failure("payload_lost", message)
                self.apply(
                    [
                        TaskEnded(
                            id, TaskState.DEAD, time.time(), info.started_at, info.attempt, info.failures, None,
                            failure.code, message, failure.packed(), None,
                        )
                    ]
                )  # fmt: skip

    # ------------------------------------------------------------------------------------------- writing

    def apply(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        self._idle_rounds = 0
        try:
            self._apply(changes, _as_they_are)
        except UnicodeEncodeError:
            self._apply(changes, _encodable)

    def _apply(self, changes: Sequence[Change], prepare: Callable[[Iterable[Row]], Iterable[Row]]) -> None:
        with self._transaction() as connection:
            for kind, group in groupby(changes, type):
                run = list(group)
                if not has_spooled(kind, run):
                    self._apply_run(connection, kind, run, prepare)
                    continue
                for change in run:  # one by one: each finds what those before it have done
                    if (large := spooled(change)) is not None:
                        self._spool.put(connection, *large)
                    self._apply_run(connection, kind, [change], prepare)

    def _apply_run(
        self,
        connection: sqlite3.Connection,
        kind: type[Change],
        run: Sequence[Any],
        prepare: Callable[[Iterable[Row]], Iterable[Row]],
    ) -> None:
        changed = 0
        for name, rows in statements_for(kind, run):
            changed = self._write(connection, name, list(prepare(rows)))
        if kind is TaskEnded:  # its last statement has changed their rows
            self._results.ended(run, changed)
        elif kind is TasksPurged:
            self._results.lost_count()

    def _write(self, connection: sqlite3.Connection, name: str, rows: list[Row]) -> int:
        """Apply a statement to all ``rows``, in as few steps as there are blocks for; how many it has changed."""
        done = changed = 0
        for size, statement in self._blocks[name]:
            while len(rows) - done >= size:
                changed += connection.execute(statement, [*chain.from_iterable(rows[done : done + size])]).rowcount
                done += size
        return changed

    def expire(self, wall_now: float, limit: int = 1000) -> int:
        with self._transaction() as connection:
            forgotten = self._results.forget(connection, wall_now, max(0, limit))
        self._idle_rounds = 0 if forgotten else self._idle_rounds + 1
        if self._idle_rounds == _IDLE_ROUNDS:
            self._truncate_log(connection)
        return forgotten

    def vacuum(self) -> None:
        """Give back the space that forgotten tasks have left. Commits wait for it, some seconds a gigabyte."""
        with self._translated() as connection:
            self._check_in_place()
            vacuum(connection)

    @contextmanager
    def files_held(self) -> Iterator[None]:
        """No file of the spool is removed inside. May be used beside the store's thread."""
        self._spool.holds += 1
        try:
            yield
        finally:
            self._spool.holds -= 1

    def _truncate_log(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:
            pass  # the log stays as long as it is, and bounded; what was asked for is done

    # ------------------------------------------------------------------------------------------- reading

    def in_hand(self) -> Iterator[TaskRecord]:
        after = _BEFORE_ALL
        while page := self._read(self._record_of, "in_hand_page", *after, _PAGE):
            yield from page
            after = page[-1].order, page[-1].id

    def shelves(self) -> list[ShelfSize]:
        found = self._read(lambda row: ShelfSize(line_of(*row[:4]), *row[4:]), "queued_sizes")
        scheduled = self._read(lambda row: ShelfSize(None, *row), "scheduled_size")
        return [*found, *(each for each in scheduled if each.tasks)]

    def shelf(self, line: LineKey | None, after: Place, limit: int) -> list[TaskRecord]:
        if line is None:
            return self._read(self._record_of, "scheduled_page", *after, limit)
        demand = pack_demand(line.requires, line.ephemeral)
        return self._read(self._record_of, "queued_page", line.name, demand, line.priority, line.group, after[1], limit)

    def keys(self, wall_now: float) -> list[tuple[str, bytes, float]]:
        return sorted(self._read(lambda row: (row[0], row[1], row[2]), "keys", wall_now), key=lambda each: each[1])

    def ids(self, newest: bytes) -> Ids:
        last, forgotten = self._read(lambda row: row, "ids", newest)[0]
        return Ids(max(last, forgotten), forgotten)

    def schedules(self) -> list[ScheduleRecord]:
        return self._read(schedule_of, "schedules")

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
        return record_of(row if row[2] is not None else (*row[:2], self._content(row[0], "payload"), *row[3:]))

    def _content(self, id: bytes, kind: Kind) -> bytes:
        with self._translated() as connection:
            return self._spool.content(connection, id, kind)

    # ----------------------------------------------------------------------------------------- the connection

    def _read(self, decode: Callable[[Row], T], statement: str, *values: object) -> list[T]:
        """The rows that ``statement`` finds, decoded."""
        with self._translated() as connection:
            rows = connection.execute(self._sql[statement], values).fetchall()
        try:
            return [decode(row) for row in rows]
        except UNREADABLE as error:
            raise StoreUnavailable(f"{self.path}: a row makes no sense ({error}): {CORRUPT}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done inside is committed, or else nothing is.

        Takes the write lock at once: waiting for it half-way could fail with the work done.
        """
        with self._translated() as connection:
            self._check_in_place()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                self._spool.sync()
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # after some errors SQLite has rolled back by itself
                    connection.execute("ROLLBACK")
                self._spool.undo()
                self._results.lost_count()
                raise
            self._spool.settle()

    @contextmanager
    def _translated(self) -> Iterator[sqlite3.Connection]:
        """The open connection, with SQLite's and the system's errors as ours."""
        if self._connection is None:
            raise StoreUnavailable(f"{self.path} is not open")
        try:
            yield self._connection
        except (sqlite3.Error, OSError) as error:
            raise refusal(self.path, error) from error


def vacuum(connection: sqlite3.Connection) -> None:
    """Write the database anew, as small as it can be. Needs that much space twice, for as long as it takes."""
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _stat(*paths: Path) -> list[os.stat_result]:
    """Of those that exist."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            found.append(os.stat(path))
    return found


def _same_files(some: list[os.stat_result], others: list[os.stat_result]) -> bool:
    return len(some) == len(others) and all(map(os.path.samestat, some, others))


def _first(found: list[T]) -> T | None:
    return found[0] if found else None


def _as_they_are(rows: Iterable[Row]) -> Iterable[Row]:
    return rows


def _encodable(rows: Iterable[Row]) -> Iterable[Row]:
    """The rows with half surrogate pairs escaped: an exception's text may hold some, and UTF-8 cannot."""
    return (
        tuple(v.encode("utf-8", "backslashreplace").decode() if isinstance(v, str) else v for v in row) for row in rows
    )

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
from operator import itemgetter
from typing import Any, Final, Literal

from poolmgr.core.changes import Change, TaskEnded, TasksPurged
from poolmgr.core.failure import Failure
from poolmgr.errors import StoreUnavailable
from poolmgr.model import FINAL, TaskState
from poolmgr.store.connecting import connect
from poolmgr.store.inspection import inspect
from poolmgr.store.reading import Reading
from poolmgr.store.refusal import refusal
from poolmgr.store.results import Results
from poolmgr.store.rows import (
    Row,
    SharedRow,
    has_spooled,
    spooled,
    statements_for,
)
from poolmgr.store.runs import ShortLife, runs_of
from poolmgr.store.schema import check_library, in_blocks
from poolmgr.store.spool import Missing
from poolmgr.store.stream_rows import STREAM_CHANGES, StreamRows
from poolmgr.store.write_ahead_log import log_of

_log = logging.getLogger(__name__)

_SHARED: Final = itemgetter(0)
_IDLE_ROUNDS: Final = 2  # calls of expire() with nothing between them, after which the store counts as idle


class SqliteStore(Reading):
    """A ``store.base.Store`` in the file ``path``, which is made with mode 0600; its directory must exist.

    Args:
        path: of the database; SQLite keeps ``-wal`` and ``-shm`` files beside it, and large payloads and outcomes are
            files in the directory ``spool`` there.
        synchronous: ``FULL`` (default, survives a power loss) or ``NORMAL`` (survives any process's death).
        results_limit_bytes: what the outcomes and chunks of finished tasks may weigh together, dead letters not
            counted; beyond it ``expire`` forgets those first that would expire first, but for those whose deduplication
            keys still hold. None: no limit.
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
        super().__init__(os.fspath(path))
        self._synchronous = synchronous
        self._busy_timeout_s = busy_timeout_s
        self._log = log_of(self.path)
        if synchronous == "NORMAL":
            self._spool.log = self._log
        self._blocks = {name: in_blocks(statement) for name, statement in self._sql.items()}
        self._results = Results(self._sql, results_limit_bytes)
        self._streams = StreamRows(self._sql, self._spool)
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
        for id, kind, why in missing:
            _log.error("the %s of task %s is gone: %s", kind, id.hex(), why)
            info = self.task(id)
            if kind == "payload" and info is not None and info.state not in FINAL:
                message = f"its payload is gone: {why}"
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

    def _apply(self, changes: Sequence[Change], prepare: Callable[[Iterable[SharedRow]], Iterable[SharedRow]]) -> None:
        with self._transaction() as connection:
            for kind, run in runs_of(changes):
                if kind in STREAM_CHANGES:
                    self._streams.apply(connection, run)
                    continue
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
        kind: type,
        run: Sequence[Any],
        prepare: Callable[[Iterable[SharedRow]], Iterable[SharedRow]],
    ) -> None:
        changed = 0
        for name, rows in statements_for(kind, run):
            changed = self._write(connection, name, prepare(rows))
        if kind is TaskEnded:  # its last statement has changed their rows
            self._results.ended(run, changed)
        elif kind is ShortLife:
            self._results.ended([each.end for each in run], changed)
        elif kind is TasksPurged:
            self._results.lost_count()

    def _write(self, connection: sqlite3.Connection, name: str, rows: Iterable[SharedRow]) -> int:
        """Apply a statement to all ``rows``, in as few steps as there are blocks for; how many it has changed."""
        changed = 0
        for shared, alike in groupby(rows, _SHARED):
            own = [row for _, row in alike]
            done = 0
            for size, statement in self._blocks[name]:
                while len(own) - done >= size:
                    parameters = [*shared, *chain.from_iterable(own[done : done + size])]
                    changed += connection.execute(statement, parameters).rowcount
                    done += size
        return changed

    def expire(self, wall_now: float, limit: int = 1000) -> int:
        with self._transaction() as connection:
            forgotten = self._results.forget(connection, wall_now, max(0, limit))
        self._idle_rounds = 0 if forgotten else self._idle_rounds + 1
        if self._idle_rounds == _IDLE_ROUNDS:
            self._truncate_log(connection)
        return forgotten

    def sweep(self, limit: int = 200) -> int:
        with self._transaction() as connection:
            swept = self._streams.sweep(connection, max(0, limit))
        if swept:
            self._idle_rounds = 0
        return swept

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

    # ----------------------------------------------------------------------------------------- the connection

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


def vacuum(connection: sqlite3.Connection) -> None:
    """Write the database anew, as small as it can be. Needs that much space twice, for as long as it takes."""
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _stat(*paths: str) -> list[os.stat_result]:
    """Of those that exist."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            found.append(os.stat(path))
    return found


def _same_files(some: list[os.stat_result], others: list[os.stat_result]) -> bool:
    return len(some) == len(others) and all(map(os.path.samestat, some, others))


def _as_they_are(rows: Iterable[SharedRow]) -> Iterable[SharedRow]:
    return rows


def _encodable(rows: Iterable[SharedRow]) -> Iterable[SharedRow]:
    """The rows with half surrogate pairs escaped: an exception's text may hold some, and UTF-8 cannot."""
    return ((_escaped(shared), _escaped(own)) for shared, own in rows)


def _escaped(row: Row) -> Row:
    return tuple(v.encode("utf-8", "backslashreplace").decode() if isinstance(v, str) else v for v in row)

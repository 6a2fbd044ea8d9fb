"""The product's own store, in a file that the simulated daemon leaves behind when it dies.

A process that is killed has written some of its bytes, in their order, and closes nothing. So a crash takes the bytes
of the database and of its log, lets go of the store, and puts the bytes back for the next one. Its troubles are
SQLite's own: another connection has the lock, the database may not grow by a page, or a write ends half-way.
"""

from __future__ import annotations

import os
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Final

from poolmgr.errors import StoreUnavailable
from poolmgr.store.base import Store
from poolmgr.store.sqlite import SqliteStore

_RAM: Final = Path("/dev/shm")
_ANY_SIZE: Final = 0xFFFFFFFE  # pages
_PAGE: Final = 4096  # bytes; of the log a little more, but all that matters is to begin near what changes
_TORN_BYTES: Final = 40_000  # at most so much of a write that fails has been written


class _Store(SqliteStore):
    """Syncs nothing: processes die here, and the power stays on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, busy_timeout_s=0.0)

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    def migrate_only(self) -> None:
        """Make the file as it is before its first epoch."""
        self._connect().close()

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def pragma(self, text: str) -> object:
        """The answer to a PRAGMA on the store's own connection."""
        assert self._connection is not None
        (answer,) = self._connection.execute(f"PRAGMA {text}").fetchone()
        return answer


class File:
    """A ``Medium`` that is an SQLite database, in memory where the machine has a file system for that."""

    def __init__(self) -> None:
        self._folder = Path(mkdtemp(prefix="poolmgr-simulation-", dir=_RAM if os.access(_RAM, os.W_OK) else None))
        self._path = self._folder / "poolmgr.db"
        self._log = self._folder / "poolmgr.db-wal"
        self._path.write_bytes(_empty())
        self._intruder: sqlite3.Connection | None = None
        self.store = _Store(self._path)

    def open(self) -> int:
        self.store = _Store(self._path)
        return self.store.open()

    def close(self) -> None:
        if self._intruder is not None:
            self._intruder.close()
            self._intruder = None
        self.store.close()

    def crash(self) -> None:
        if self.store.is_open:
            self._leave(*self._bytes())

    def crash_in(self, action: Callable[[Store], object], share: float) -> None:
        database, log = self._bytes()
        with self.store.files_held(), suppress(StoreUnavailable):  # it goes before it would remove any
            action(self.store)
        database_after, log_after = self._bytes()
        if len(log_after) < len(log):  # it was moved into the database, and then truncated
            self._leave(_torn(database, database_after, share), log)
        else:  # the log is written first; if it was moved, that came later
            self._leave(database, _torn(log, log_after, share))

    def _bytes(self) -> tuple[bytes, bytes]:
        return self._path.read_bytes(), self._log.read_bytes() if self._log.exists() else b""

    def _leave(self, database: bytes, log: bytes) -> None:
        """The next daemon finds this."""
        self.close()
        self._path.write_bytes(database)
        self._log.write_bytes(log)

    @contextmanager
    def trouble(self, kind: str, size: float) -> Iterator[None]:
        trouble = {"busy": self._busy, "full": self._full, "failing": self._failing}.get(kind)
        if trouble is None:
            yield
        else:
            with trouble(size):
                yield

    @contextmanager
    def _busy(self, size: float) -> Iterator[None]:
        """Someone else writes."""
        if self._intruder is None:
            self._intruder = sqlite3.connect(self._path, isolation_level=None)
        self._intruder.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            self._intruder.execute("ROLLBACK")

    @contextmanager
    def _full(self, size: float) -> Iterator[None]:
        """The database cannot grow. What needs no new page still fits."""
        self.store.pragma("max_page_count = 1")  # SQLite makes of it what there are
        try:
            yield
        finally:
            self.store.pragma(f"max_page_count = {_ANY_SIZE}")

    @contextmanager
    def _failing(self, size: float) -> Iterator[None]:
        """The log cannot grow beyond some byte: the write that reaches it is cut off there."""
        written = self._log.stat().st_size if self._log.exists() else 0
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)  # Python ignores SIGXFSZ
        resource.setrlimit(resource.RLIMIT_FSIZE, (written + int(size * _TORN_BYTES), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def check(self) -> None:
        found = self.store.pragma("integrity_check")
        assert found == "ok", f"the file is damaged: {found}"

    def remove(self) -> None:
        self.close()
        rmtree(self._folder, ignore_errors=True)


def _torn(before: bytes, after: bytes, share: float) -> bytes:
    """A file that was to become ``after``, written from its start on, when its writer died.

    ``share`` of what changes had been written, and so never the last byte that does.
    """
    first, last = 0, len(after)
    while first < last and before[first : first + _PAGE] == after[first : first + _PAGE]:
        first += _PAGE
    if len(before) >= last:  # written over from its start, and not to its end
        while last > first and before[last - _PAGE : last] == after[last - _PAGE : last]:
            last -= _PAGE
        while last > first and before[last - 1] == after[last - 1]:
            last -= 1
    cut = first + int(share * max(0, last - first))
    return after[:cut] + before[cut:]


@cache
def _empty() -> bytes:
    """A database as the migrations make it."""
    folder = Path(mkdtemp(prefix="poolmgr-simulation-"))
    try:
        path = folder / "poolmgr.db"
        _Store(path).migrate_only()
        return path.read_bytes()
    finally:
        rmtree(folder)

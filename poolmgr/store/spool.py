"""Large payloads, outcomes and chunks: files beside the database, named by its rows.

A file is written and synced, and its directory too, before the row that names it is committed; it goes after the row
has gone, and where commits are not synced each by itself (NORMAL), after that has been synced. So a crash at any point
leaves at worst a file that no row names, and the next start removes those. No name is used twice, so a file that is to
go is never one that has come back.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal, NamedTuple

from poolmgr.errors import StoreUnavailable
from poolmgr.payload import Payload, inline

Kind = Literal["payload", "outcome", "chunk"]

_NAME: Final = re.compile(r"[0-9a-f]+-[0-9a-f]+")  # epoch, number: all that is ever removed
_NOTE_DROPPED: Final = """
CREATE TEMP TRIGGER note_dropped AFTER DELETE ON main.spool BEGIN SELECT note_dropped(OLD.file); END
"""


class Missing(NamedTuple):
    """A row whose file is not there, or not the one that was written; ``why`` says which."""

    id: bytes
    kind: Kind
    why: str


class ContentLost(StoreUnavailable):
    """A file is not there, or not the one that was written: to try again does not help. ``why`` is for people."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


def spool_of(database: str) -> str:
    """Where the files of ``database`` are."""
    return os.path.join(os.path.dirname(database), "spool")


class Spool:
    """The files of one database. Its methods are called inside the store's transactions, but for ``content``.

    Args:
        directory: made with mode 0700 when the first file is written.
        sql: the store's statements.

    Attributes:
        log: the write-ahead log, if it is to be synced before a file goes: a power loss may undo commits.
        holds: while it is above 0, no file is removed.
    """

    def __init__(self, directory: str, sql: Mapping[str, str]) -> None:
        self.directory = directory
        self._sql = sql
        self._epoch = 0
        self._count = 0
        self._synced = True
        self._written: list[str] = []  # in this transaction
        self._dropped: list[str] = []  # by this transaction
        self._gone: set[str] = set()  # by earlier ones: to be removed
        self.log: str | None = None
        self.holds = 0

    def attach(self, connection: sqlite3.Connection, epoch: int) -> list[Missing]:
        """Begin an epoch: remove files that no row names; which files are missing.

        Raises:
            OSError: what is there cannot be told.
        """
        self._epoch, self._count = epoch, 0
        self._written, self._dropped, self._gone = [], [], set()
        connection.create_function("note_dropped", 1, self._dropped.append)
        connection.execute(_NOTE_DROPPED)
        rows = connection.execute(self._sql["spooled"]).fetchall()
        self._remove(files_in(self.directory) - {file for *_, file, _ in rows})
        found = ((id, kind, _trouble(self._path(file), size)) for id, kind, _, file, size in rows)
        return [Missing(id, kind, why) for id, kind, why in found if why is not None]

    def put(self, connection: sqlite3.Connection, id: bytes, kind: Kind, content: Payload) -> None:
        """Write a file, and its row, for a task that has room for it: one that is not known yet, or not final yet.

        Raises:
            OSError: the disk refuses.
        """
        (wanted,) = connection.execute(self._sql[f"awaits_{kind}"], (id,)).fetchone()
        if wanted:
            self.write(connection, id, kind, content)

    def write(self, connection: sqlite3.Connection, id: bytes, kind: Kind, content: Payload, seq: int = 0) -> None:
        """Write a file, and its row. ``seq``: of a chunk. Raises ``OSError``: the disk refuses."""
        self._count += 1
        name = f"{self._epoch:x}-{self._count:x}"
        self._write(name, content)
        connection.execute(self._sql["add_spooled"], (id, kind, seq, name, len(content)))

    def _write(self, name: str, content: Payload) -> None:
        if not os.path.isdir(self.directory):
            os.mkdir(self.directory, 0o700)
            make_durable(directory_of(self.directory))
        self._synced = False
        self._written.append(name)
        fd = os.open(self._path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(inline(content))
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def sync(self) -> None:
        """The transaction is about to be committed: the names of its files must survive a power loss, too."""
        if not self._synced:
            make_durable(self.directory)
            self._synced = True

    def settle(self) -> None:
        """The transaction is committed: remove what it has dropped, once nobody holds it."""
        self._written.clear()
        if self._dropped:
            self._gone.update(self._dropped)
            self._dropped.clear()
        if self._gone and not self.holds:
            self._remove(self._gone)
            self._gone.clear()

    def undo(self) -> None:
        """The transaction is rolled back: remove what it has written."""
        if self._written:
            self._remove(set(self._written))
        self._written.clear()
        self._dropped.clear()

    def content(self, connection: sqlite3.Connection, id: bytes, kind: Kind, seq: int = 0) -> bytes:
        """The payload, outcome or chunk of a task, which has it here.

        Raises:
            ContentLost: its file is missing, or not the one that was written.
            StoreUnavailable: it cannot be read now.
        """
        row = connection.execute(self._sql["spooled_of"], (id, kind, seq)).fetchone()
        what = named(kind, seq)
        if row is None:
            raise StoreUnavailable(f"the {what} of task {id.hex()} is nowhere: see poolmgr db check")
        file, size = row
        return read_whole(self._path(file), size, f"the {what} of task {id.hex()}")

    def _remove(self, names: set[str]) -> None:
        """What stays, the next start removes."""
        with suppress(OSError):
            # Where there is no log, it is in the database, and that is synced.
            if names and self.log is not None and os.path.exists(self.log):
                make_durable(self.log)
                make_durable(directory_of(self.log))
            for name in names:
                with suppress(OSError):
                    os.unlink(self._path(name))

    def _path(self, name: str) -> str:
        return path_in(self.directory, name)


def named(kind: Kind, seq: int) -> str:
    """What people call the content of a file."""
    return f"{kind} {seq}" if kind == "chunk" else kind


def path_in(directory: str, name: str) -> str:
    """Where the spool file ``name`` is. A ``pathlib.Path`` would put each name into the interpreter's table of interned
    strings, which grows by half a megabyte when some ten thousand have come and gone; and its import takes as much."""
    return os.path.join(directory, name)


def files_in(directory: str) -> set[str]:
    """The names of the spool files in ``directory``."""
    try:
        return {name for name in os.listdir(directory) if _NAME.fullmatch(name)}
    except FileNotFoundError:
        return set()


def read_whole(path: str, size: int, what: str) -> bytes:
    """The content of a spool file. Raises ``ContentLost`` or ``StoreUnavailable``, as ``Spool.content`` does."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError as error:
        raise ContentLost(f"{what} cannot be read from {path}: {error.strerror}", _removed(path)) from error
    except OSError as error:
        raise StoreUnavailable(f"{what} cannot be read from {path}: {error.strerror}") from error
    if len(content) != size:
        why = _changed(path, len(content), size)
        raise ContentLost(f"{what} is lost: {why}", why)
    return content


def _trouble(path: str, size: int) -> str | None:
    """Why a file is as good as missing; None if it is not. Raises ``OSError``."""
    try:
        found = os.stat(path).st_size
    except FileNotFoundError:
        return _removed(path)
    return None if found == size else _changed(path, found, size)


def _removed(path: str) -> str:
    return f"somebody has removed {path}"


def _changed(path: str, found: int, size: int) -> str:
    return f"{path} has {found} bytes in place of {size}: somebody has changed it"


def directory_of(path: str) -> str:
    """The directory that holds what has this path."""
    return os.path.dirname(path) or "."


def make_durable(path: str) -> None:
    """Have a file's content, or a directory's names, survive a power loss from here on. Raises ``OSError``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""A copy of a database that somebody may be writing to: one file, from which a daemon can be started.

SQLite copies what was committed at one moment, and readers never hold up the writer. What the spool directory holds for
that moment's tasks goes into the copy, so that it is whole.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from typing import Final

from poolmgr.errors import StoreUnavailable, UsageError
from poolmgr.store.inspection import read_only
from poolmgr.store.refusal import refusal
from poolmgr.store.schema import check_owner, has_table
from poolmgr.store.spool import directory_of, make_durable, path_in, read_whole, spool_of

_INTO: Final = {
    "payload": "INSERT INTO long_payloads (id, payload) VALUES (:id, :content)",
    "outcome": "INSERT INTO long_outcomes (id, outcome) VALUES (:id, :content)",
    "chunk": "UPDATE chunks SET payload = :content WHERE id = :id AND seq = :seq",
}


def back_up(database: str | os.PathLike[str], target: str | os.PathLike[str], *, alone: bool) -> int:
    """Copy ``database`` to the new file ``target`` (mode 0600), synced; its size in bytes.

    The files of its spool must stay until this returns. One that is missing already is missing in the copy: a daemon
    that starts from it says so.

    Args:
        alone: nobody else has the database open, nor will meanwhile.

    Raises:
        UsageError: ``target`` is there already.
        StoreUnavailable: the database cannot be read, or the copy cannot be written. Nothing is left of it then.
    """
    database, target = os.fspath(database), os.fspath(target).rstrip("/")
    if os.path.exists(target):
        raise UsageError(f"{target} is there already, and is not overwritten: choose another name")
    part = f"{target}.part"
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise UsageError(f"{part} is there already: another backup writes it, or was cut off and left it") from None
    except OSError as error:
        raise refusal(part, error) from error
    try:
        _copy(database, part, alone)
        _take_in_spool(part, spool_of(database))
        _publish(part, target)
    except FileExistsError:
        raise UsageError(f"{target} has come to be meanwhile, and is not overwritten") from None
    except (sqlite3.Error, OSError) as error:
        raise refusal(database, error) from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
    return os.stat(target).st_size


def _copy(database: str, part: str, alone: bool) -> None:
    with closing(read_only(database, 1.0, alone=alone)) as source:
        check_owner(source, database)
        source.execute("VACUUM INTO ?", (part,))


def _take_in_spool(part: str, spool: str) -> None:
    with closing(sqlite3.connect(part, isolation_level=None)) as copy:
        copy.execute("PRAGMA journal_mode = OFF")  # nobody has it yet, and a copy that is cut off is removed
        copy.execute("PRAGMA synchronous = OFF")
        if not has_table(copy, "spool"):  # it is of an older version
            return
        seq = "seq" if has_table(copy, "chunks") else "0"
        for id, kind, number, file, size in copy.execute(f"SELECT id, kind, {seq}, file, bytes FROM spool").fetchall():
            with suppress(StoreUnavailable):
                content = read_whole(path_in(spool, file), size, kind)
                copy.execute(_INTO[kind], {"id": id, "seq": number, "content": content})
                copy.execute("DELETE FROM spool WHERE file = ?", (file,))


def _publish(part: str, target: str) -> None:
    make_durable(part)
    os.link(part, target)  # unlike a rename it fails where the name is taken
    make_durable(directory_of(target))

"""How the SQLite store connects to its file: what is set on the connection, and that the file is ours and of today."""

from __future__ import annotations

import os
import sqlite3
from typing import Final

from poolmgr.errors import StoreUnavailable
from poolmgr.store.schema import check_owner, migrate

_CACHE_KIB: Final = 16 * 1024

# Before a value is bound, its class is searched for an adapter; that finds none for bytes and None, of which rows are
# full, and costs more than binding them (3 of 10 us for a new task). Registered ones are found at once.
sqlite3.register_adapter(bytes, bytes)
sqlite3.register_adapter(type(None), lambda none: none)


def connect(
    path: str | os.PathLike[str], synchronous: str, busy_timeout_s: float, cached_statements: int
) -> sqlite3.Connection:
    """A connection to the database of the newest schema, in the mode in which it is used.

    Raises:
        StoreUnavailable: the file is not ours, or of a newer version, or its file system cannot hold a log.
        sqlite3.Error: SQLite refuses.
    """
    connection = sqlite3.connect(
        path,
        timeout=busy_timeout_s,
        isolation_level=None,  # transactions begin and end where the store says so
        check_same_thread=False,
        cached_statements=cached_statements,
    )
    try:
        check_owner(connection, str(path))
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreUnavailable(f"{path}: its file system cannot hold a write-ahead log (mode {mode})")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA secure_delete = OFF")  # some builds overwrite all that is deleted with zeros
        connection.execute("PRAGMA temp_store = MEMORY")
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection

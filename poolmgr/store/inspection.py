"""A look at the files before they are opened to be written: what is damaged, or not ours, stays byte for byte as it is.

To open a damaged database can make it worse, and to close it may write its log into it. So it is looked at first,
without any right to write: the header and the schema, all pages where there are not too many, and the log.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Final

from poolmgr.errors import StoreUnavailable
from poolmgr.store.refusal import CORRUPT, KEPT, refusal
from poolmgr.store.schema import APPLICATION_ID, check_owner
from poolmgr.store.write_ahead_log import log_of, size_of, trouble_with_log

_MAGIC: Final = b"SQLite format 3\0"
# All pages of larger files are looked at by `poolmgr db check` only: 64 MB take a quarter of a second at each start.
_ALL_PAGES_BYTES: Final = 64 << 20


def inspect(path: str, *, synced: bool, busy_timeout_s: float) -> None:
    """Refuse what must not be written to, and change nothing. A file that is missing, or empty, is fine.

    Args:
        synced: whether each commit was synced (``synchronous=FULL``).

    Raises:
        StoreUnavailable: saying what is wrong, and what to do.
    """
    try:
        size = size_of(path)
        cut_off = os.path.exists(f"{path}-journal")  # a first start that was: SQLite repairs it
        if size and not cut_off and not _is_database(path):
            raise StoreUnavailable(f"{path}: {CORRUPT} (file is not a database)")
        trouble = trouble_with_log(path, APPLICATION_ID, synced=synced)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be read: {error.strerror}") from error
    if trouble is not None:
        raise StoreUnavailable(f"{path}: {trouble} ({os.path.basename(log_of(path))}): {KEPT}")
    if not size or cut_off:
        return
    try:
        with closing(read_only(path, busy_timeout_s, alone=True)) as connection:
            check_owner(connection, path)
            if size <= _ALL_PAGES_BYTES:
                _check_pages(path, connection.execute)
    except sqlite3.Error as error:
        raise refusal(path, error) from error


def _is_database(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_only(path: str, busy_timeout_s: float, *, alone: bool) -> sqlite3.Connection:
    """A connection that cannot write. If nobody else uses the file, and there is no log, it makes no file either."""
    still = alone and not size_of(log_of(path))
    query = "?mode=ro&immutable=1" if still else "?mode=ro"
    name = os.path.join(os.getcwd(), path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(f"file://{name}{query}", uri=True, timeout=busy_timeout_s, isolation_level=None)


def _check_pages(path: str, execute: Callable[[str], sqlite3.Cursor]) -> None:
    (found,) = execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise StoreUnavailable(f"{path}: {CORRUPT} ({' '.join(found.split())})")

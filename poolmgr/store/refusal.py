"""What SQLite's errors mean for whoever runs the daemon: what went wrong, and what to do."""

from __future__ import annotations

import errno
import sqlite3
from typing import Final

from poolmgr.errors import StoreUnavailable

KEPT: Final = (
    "nothing was deleted: put a backup in its place, or move it away together with its -wal and -shm files and the "
    "spool directory, and begin anew"
)
CORRUPT: Final = f"the file is corrupt; {KEPT}"
_LOCKED: Final = "another process has locked it: find it (fuser), and end it"
_MODES: Final = "look at the owner and mode of the file and of its directory, and whether they can be written at all"
_CAUSES: Final = {  # by SQLite's primary result code
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_CORRUPT: CORRUPT,
    sqlite3.SQLITE_NOTADB: CORRUPT,
    sqlite3.SQLITE_READONLY: f"it cannot be written: {_MODES}",
    sqlite3.SQLITE_PERM: f"it cannot be written: {_MODES}",
    sqlite3.SQLITE_CANTOPEN: f"it cannot be opened: {_MODES}",
    sqlite3.SQLITE_IOERR: "the disk fails: look at the kernel's log",
}

_OF_ERRNO: Final = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_PERM,
    errno.EPERM: sqlite3.SQLITE_PERM,
    errno.ENOENT: sqlite3.SQLITE_CANTOPEN,
    errno.ENOTDIR: sqlite3.SQLITE_CANTOPEN,
}


def refusal(path: str, error: sqlite3.Error | OSError) -> StoreUnavailable:
    """The error of the store in ``path`` that stands for ``error``."""
    if isinstance(error, OSError):
        told = _CAUSES[_OF_ERRNO.get(error.errno or 0, sqlite3.SQLITE_IOERR)]
        return StoreUnavailable(f"{error.filename or path}: {told} ({error.strerror})")
    code = getattr(error, "sqlite_errorcode", 0)  # an error of the module itself has none
    cause = _CAUSES.get(code & 0xFF)  # the rest of an extended code says where it happened
    return StoreUnavailable(f"{path}: {cause} ({error})" if cause else f"{path}: {error}")

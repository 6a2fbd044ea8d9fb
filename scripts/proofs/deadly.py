"""The daemon, which kills itself (SIGKILL) at a named point: what ``crash`` starts in the place of poolmgr.

``DEADLY`` in the environment says when: "apply COMMIT|after|3" is after the third COMMIT within ``SqliteStore.apply``,
"clock||0.2" is after 0.2 s, wherever that is, and nothing is never. All else is the daemon as it is: every statement
passes through one method of the connection, and the few other points are wrapped from outside.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from poolmgr.cli import main
from poolmgr.manager import maintenance
from poolmgr.manager.manager import Manager
from poolmgr.store.schema import load_migrations
from poolmgr.store.spool import Spool
from poolmgr.store.sqlite import SqliteStore
from poolmgr.store.writer import StoreWriter

VARIABLE: Final = "DEADLY"
CLOCK: Final = "clock"
BEFORE, AFTER = "before", "after"

# Each, before and after; with how often it may be passed before it kills. Those of the last three groups are rare.
POINTS: Final[dict[str, int]] = {
    "apply BEGIN": 60,
    "apply statement": 200,
    "apply COMMIT": 60,
    "committed": 60,  # the writer tells that it has committed
    "release": 60,  # acknowledgements and results go out
    "spool write": 3,  # a large payload or result becomes a file
    "spool sync": 3,
    "spool remove": 1,
    "open migration": len(load_migrations()),
    "open BEGIN": 1,  # of the epoch
    "open COMMIT": 1,
    "expire BEGIN": 3,
    "expire COMMIT": 3,
    "expire checkpoint": 1,  # the log is emptied into the file, and truncated
    "close": 1,  # as the last connection: the same, and the log is deleted
}
_WITHIN: Final = ("open", "apply", "expire", "close")  # the store's methods that name a statement
_VERBS: Final = {"BEGIN": "BEGIN", "COMMIT": "COMMIT", "PRAGMA wal_checkpoint": "checkpoint"}


class Fate:
    """Counts the passings of one point, and kills at the last."""

    def __init__(self, point: str, side: str, passings: int) -> None:
        self._fatal = (point, side)
        self._left = passings
        self.within = ""  # the store's method that runs

    def pass_by(self, point: str, side: str) -> None:
        """This point is passed."""
        if (point, side) == self._fatal:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, point: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it, with the point before and after."""
        self.pass_by(point, BEFORE)
        result = function(*arguments)
        self.pass_by(point, AFTER)
        return result


def doom(fate: Fate) -> None:
    """Wrap every point of this process."""

    class Connection(sqlite3.Connection):
        """One whose statements are points."""

        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            verb = next((name for start, name in _VERBS.items() if sql.startswith(start)), "statement")
            cursor: sqlite3.Cursor = fate.around(f"{fate.within} {verb}", super().execute, sql, *values)
            return cursor

        def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
            cursor: sqlite3.Cursor = fate.around(f"{fate.within} statement", super().executemany, sql, rows)
            return cursor

        def executescript(self, sql: str) -> sqlite3.Cursor:
            cursor: sqlite3.Cursor = fate.around(f"{fate.within} migration", super().executescript, sql)
            return cursor

        def close(self) -> None:
            fate.around("close", super().close)

    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **kwargs: connect(*args, **{**kwargs, "factory": Connection})
    for name in _WITHIN:
        setattr(SqliteStore, name, _named(fate, name, getattr(SqliteStore, name)))
    init = StoreWriter.__init__

    def with_done(self: StoreWriter, store: Any, done: Callable[..., None], **options: Any) -> None:
        init(self, store, lambda *told: fate.around("committed", done, *told), **options)

    StoreWriter.__init__ = with_done  # type: ignore[method-assign]
    for name, method in (("write", "_write"), ("sync", "sync"), ("remove", "_remove")):
        setattr(Spool, method, _passing(fate, f"spool {name}", getattr(Spool, method)))
    release = Manager._release
    Manager._release = lambda self, number: fate.around("release", release, self, number)  # type: ignore[method-assign]


def _passing(fate: Fate, point: str, method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: fate.around(point, method, *args)


def _named(fate: Fate, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        before, fate.within = fate.within, name
        try:
            return method(*args, **kwargs)
        finally:
            fate.within = before

    return call


def _die_after(seconds: float) -> None:
    def wait() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    maintenance.INTERVAL_S = 0.05  # old results are forgotten, and the log is emptied, while there is still a daemon
    maintenance.EXPIRE_INTERVAL_S = 0.1
    if fatal := os.environ.get(VARIABLE):
        point, side, number = fatal.split("|")
        if point == CLOCK:
            _die_after(float(number))
        else:
            doom(Fate(point, side, int(number)))
    sys.exit(main())

"""Where an executor's calls go: a connection of its own, to a daemon of its own or to a client's, and its end.

A line ends when every call has: on ``Executor.shutdown``, when the executor is garbage, or when the program ends. So
the program waits at its exit for calls under way, as it does for those of the standard library's executors.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import Any

from poolmgr.client.call_link import CallLink
from poolmgr.client.private import PrivateDaemon
from poolmgr.client.redial import Redial
from poolmgr.errors import ConnectionLost

_open: set[CallLine] = set()
_exiting = False


class CallLine:
    """One executor's connection, made with the first call.

    Args:
        connect: makes it; with a daemon, if that is to end with the line.

    Attributes:
        files: file descriptors that are closed with the line.
    """

    def __init__(self, connect: Callable[[], tuple[CallLink, PrivateDaemon | None]]) -> None:
        self._connect = connect
        self.files: list[int] = []
        self._lock = threading.Lock()
        self._link: CallLink | None = None
        self._daemon: PrivateDaemon | None = None

    def link(self) -> CallLink:
        """The connection, which may be lost by now. Errors: those of making it; RuntimeError as the program exits."""
        if self._link is None:
            with self._lock:
                if self._link is None:
                    if _exiting:
                        raise RuntimeError("cannot schedule new futures after interpreter shutdown")
                    self._link, self._daemon = self._connect()
                    _open.add(self)
        return self._link

    def cancel_waiting(self) -> None:
        """Cancel what has not begun."""
        if self._link is not None:
            self._link.cancel_waiting()

    def finish(self) -> None:
        """Wait for the calls, then end the connection, and the daemon if it is the line's own. Safe to call twice."""
        link = self._link
        if link is None:
            self._close_files()
            return
        try:
            link.drain()
        finally:  # also where Ctrl-C has ended the wait
            link.close(ConnectionLost("the executor was shut down"))
            if self._daemon is not None:
                self._daemon.end()
            self._close_files()
            _open.discard(self)

    def finish_in_background(self) -> None:
        """The same, without waiting here. What is left at the program's exit is waited for there."""
        if self._link is None:
            self._close_files()
        elif self in _open and not _exiting:
            threading.Thread(target=self.finish, name="poolmgr-executor", daemon=True).start()

    def _close_files(self) -> None:
        while self.files:
            os.close(self.files.pop())


def private_line(settings: dict[str, Any]) -> CallLine:
    """A line to a daemon of its own, which is started with the first call."""

    def connect() -> tuple[CallLink, PrivateDaemon]:
        daemon = PrivateDaemon(settings)
        return CallLink.adopt(daemon.sock, "executor"), daemon

    return CallLine(connect)


def line_of(redial: Redial) -> CallLine:
    """A line to the daemon of a client, beside the client's own connection.

    Raises:
        NotAllowed: that daemon is of another user.
        PoolError: it cannot be connected to.
    """

    def connect() -> tuple[CallLink, None]:
        link = redial.another(CallLink)
        link.check_peer()
        return link, None

    line = CallLine(connect)
    line.link()
    return line


def _finish_all() -> None:
    global _exiting
    _exiting = True
    for line in tuple(_open):
        line.finish()


atexit.register(_finish_all)
os.register_at_fork(after_in_child=_open.clear)  # they are the parent's to end

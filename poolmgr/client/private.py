"""A daemon of this program's own: exec'd on one end of a socketpair, of which the program holds the other.

It keeps nothing on disk, and has no socket that anybody else could find. It goes when the program says so, closes its
end, or dies. See daemon/private.py for the other side.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final

from poolmgr.client.dial import BUFFER_BYTES
from poolmgr.errors import ConfigError, StartFailed

_PATIENCE_S: Final = 10.0  # for a daemon that was told to go
# What this program may have ignored or blocked, and a child would inherit.
_RESET: Final = (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGUSR1)
_NO_SETTINGS_HERE: Final = frozenset({"socket", "socket_group", "state_dir", "synchronous"})


class PrivateDaemon:
    """A daemon that is coming up. Nobody waits for it: what is sent meanwhile is answered once its workers are ready.

    Args:
        settings: those of docs/reference/settings.md, by their names. The environment and files are not looked at.

    Attributes:
        sock: this program's end of the connection. The daemon sends ERROR on it, and closes, if it does not come up.

    Raises:
        ConfigError: a setting that makes no sense for it (others are checked by the daemon).
        StartFailed: it cannot be exec'd.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        for name in sorted(_NO_SETTINGS_HERE & settings.keys()):
            raise ConfigError(f"{name} is no setting of a private pool, which has neither a socket file nor a disk")
        request = json.dumps({"flags": dict(settings), "path": _import_path(), "program": os.getpid()})
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            for each in (self.sock, theirs):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            fd = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3)  # 0 to 2 are taken, even where this program closed them
            try:
                self.pid = _exec(fd, request)
            except OSError as error:
                self.sock.close()
                raise StartFailed(f"the private daemon cannot be started: {error}") from error
            finally:
                os.close(fd)
        self._process: int | None = os.pidfd_open(self.pid)

    def end(self) -> None:
        """Have it go, workers and all, and return when it is gone. Safe to call twice, and in a forked child.

        Its socket is whoever's to close that took it over.
        """
        with self._lock:
            process, self._process = self._process, None
            if process is None:
                return
            try:
                if self._owner == os.getpid():
                    self._end(process)
            finally:
                os.close(process)

    def _end(self, process: int) -> None:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                signal.pidfd_send_signal(process, number)
            except ProcessLookupError:
                break
            if poll.poll(_PATIENCE_S * 1000):
                break
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # the program waits for all its children, or ignores SIGCHLD


def _exec(fd: int, request: str) -> int:
    # -P: a daemon.py in the current directory is the program's business, not ours.
    argv = [sys.executable, "-P", "-m", "poolmgr.daemon.private", str(fd), request]
    # A session of its own: Ctrl-C, Ctrl-Z and the end of the terminal are for the program, which tells it what to do.
    return os.posix_spawn(
        sys.executable,
        argv,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, fd, fd)],
        setsid=True,
        setsigmask=(),
        setsigdef=_RESET,
    )


def _import_path() -> list[str]:
    """Where this program finds its modules, and the workers therefore shall."""
    here = os.getcwd()
    return list(dict.fromkeys(os.path.join(here, each) if each else here for each in sys.path))

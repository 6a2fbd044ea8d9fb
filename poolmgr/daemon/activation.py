"""The socket that systemd has opened for the daemon (sd_listen_fds(3)): a client that comes early waits in it.

Such a socket stays systemd's. Its path, mode and group are those of the socket unit, and it is there before the daemon
starts, while it restarts, and after it has stopped.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from poolmgr.config import Settings
from poolmgr.errors import ConfigError

FIRST_FD = 3


def passed_socket(settings: Settings, environ: MutableMapping[str, str]) -> socket.socket | None:
    """The listening Unix socket that this process was started with; None if it was started without one.

    Removes $LISTEN_PID, $LISTEN_FDS and $LISTEN_FDNAMES where they are meant for this process: workers are not.

    Raises:
        ConfigError: it was given something else, or more than one, or not the one that the setting ``socket`` names.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    del environ["LISTEN_PID"]
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if count != "1":
        raise ConfigError(
            f"systemd has passed {count or 'no'} sockets, and one is wanted: one ListenStream= in its unit"
        )
    os.set_inheritable(FIRST_FD, False)
    try:
        sock = socket.socket(fileno=FIRST_FD)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"what systemd has passed is not a socket: {error.strerror}") from None
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM or not listens:
        raise ConfigError("systemd has passed a socket of another kind: poolmgr takes ListenStream=/a/path, Accept=no")
    path = sock.getsockname()
    if not isinstance(path, str) or not path.startswith("/"):
        raise ConfigError("systemd has passed an abstract socket, which anybody may use: ListenStream= wants a path")
    if settings.socket and os.path.realpath(settings.socket) != os.path.realpath(path):
        raise ConfigError(f"systemd listens on {path}, and the setting socket says {settings.socket}: make them agree")
    return sock

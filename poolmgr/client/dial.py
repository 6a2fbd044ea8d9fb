"""Opening the connection: where the daemon is, whether it may be trusted, and what to say when it is not there."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from typing import Final, NamedTuple

from poolmgr.errors import NotAllowed, NotRunning, Unavailable

# The kernel takes what it allows without privilege. A few hundred small messages fill its default.
BUFFER_BYTES: Final = 1024 * 1024
_PEER: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_TIMEVAL: Final = struct.Struct("ll")


class Route(NamedTuple):
    """How a client connects.

    Attributes:
        path: the daemon's socket; None: where ``find_socket`` finds one.
        timeout_s: how long connecting, and the answer to a request, may take.
        name: what the daemon is told that this client is.
        reconnect_s: for how long a connection that breaks is dialled again; 0: not at all.
    """

    path: str | None
    timeout_s: float
    name: str
    reconnect_s: float


def dial(path: str | None, timeout_s: float) -> socket.socket:
    """A blocking socket connected to the daemon at ``path`` (None: where ``find_socket`` finds one).

    Raises:
        NotRunning: nobody listens there.
        NotAllowed: the directory or the daemon belongs to neither this user nor root, or the socket is not ours to use.
        Unavailable: the daemon did not take the connection within ``timeout_s``.
    """
    from poolmgr.config import find_socket

    found = find_socket(path)
    owner = _check_directory(found)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"no socket can be made: {error.strerror or error}") from None
    try:
        _connect(sock, found, timeout_s)
        check_peer(sock, found, owner)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    except BaseException:
        sock.close()
        raise
    return sock


def check_peer(sock: socket.socket, path: str, *trusted: int) -> None:
    """Refuse a daemon that runs as anybody but root, this user, or a user in ``trusted``.

    Raises:
        NotAllowed: it does.
    """
    _, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if uid not in (0, os.geteuid(), *trusted):
        raise NotAllowed(f"the daemon on {path} runs as user {uid}, which is neither you nor root")


def _check_directory(path: str) -> int:
    """The owner of the socket's directory, who may put any socket there: this user, root, or the one root chose."""
    from poolmgr.config.locations import is_system_socket

    directory = os.path.dirname(os.path.abspath(path))
    try:
        owner = os.stat(directory).st_uid
    except FileNotFoundError:
        raise NotRunning(_not_running(path)) from None
    except OSError as error:
        raise NotAllowed(f"{directory} cannot be looked at: {error.strerror}") from None
    if owner not in (0, os.geteuid()) and not is_system_socket(path):
        raise NotAllowed(f"{path} is not trusted: its directory belongs to neither you nor root")
    return owner


def _connect(sock: socket.socket, path: str, timeout_s: float) -> None:
    # connect() to a Unix socket whose backlog is full waits for as long as the send time-out says. Python's own
    # time-outs would make the socket non-blocking, and connect() fail at once.
    give_up_at = time.monotonic() + timeout_s
    connected = False
    try:
        while not connected:
            seconds = max(give_up_at - time.monotonic(), 0.001)
            limit = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            sock.connect(path)
            connected = _is_connected(sock)
            if not connected and time.monotonic() >= give_up_at:
                raise BlockingIOError
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunning(_not_running(path)) from None
    except PermissionError:
        raise NotAllowed(f"{path} may be used by the daemon's user and group only") from None
    except BlockingIOError:
        raise Unavailable(f"the daemon on {path} did not take the connection within {timeout_s:g} s") from None
    except OSError as error:
        raise NotRunning(f"{path} cannot be connected to: {error.strerror or error}") from None


def _is_connected(sock: socket.socket) -> bool:
    """Whether connect() has connected it. Where a signal has interrupted that, Python looks for an error of the socket
    to see what came of it, and a Unix socket that is not connected has none."""
    try:
        sock.getpeername()
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return False
    return True


def _not_running(path: str) -> str:
    return f"no daemon answers on {path}; start one with: poolmgr start --app MODULE"

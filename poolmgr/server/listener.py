"""The Unix socket that clients come to."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

from poolmgr.config import Settings
from poolmgr.config.locations import group_id
from poolmgr.manager.clock import now
from poolmgr.manager.manager import Manager
from poolmgr.parcels.stream import Stream, refuse_files
from poolmgr.server.connection import Connection
from poolmgr.server.options import OptionCache
from poolmgr.server.peer import Peer, peer_of
from poolmgr.wire.framing import read_buffer

BACKLOG = 512
HANG_UP_S = 10.0  # for all clients to read what they are owed when the daemon ends ...
TAKE_NOTHING_S = 1.0  # ... and for any of them to go on doing so
_BUFFER_BYTES = 1 << 20  # of what a client has not read yet; the kernel takes what it allows without privilege
_ACCEPT_AGAIN_S = 0.5  # where the process or the system has no more descriptors

_log = logging.getLogger(__name__)


class Listener:
    """Serves ``manager`` on a socket file."""

    def __init__(self, manager: Manager, settings: Settings) -> None:
        self._manager = manager
        self._group = group_id(settings.socket_group) if settings.socket_group else None
        self._sock: socket.socket | None = None
        self._options: OptionCache
        self._buffer = read_buffer()  # for what is read of all of them, one after the other
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self.path = ""  # known once it listens

    def start(self, address: str | socket.socket) -> None:
        """Listen on the path ``address``, or take over a socket that listens already.

        Raises:
            OSError: the socket cannot be made there.
        """
        sock = self._bind(address) if isinstance(address, str) else address
        self.path = sock.getsockname()
        self._options = OptionCache(self._manager.shell.handlers)
        self._manager.reloads.listeners.append(self._options.forget)
        self._sock = sock
        sock.setblocking(False)
        refuse_files(sock)  # already while a connection waits to be accepted
        sock.listen(BACKLOG)
        self._listen()

    def _listen(self) -> None:
        if self._sock is not None:
            self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        """Take all that have come. Not asyncio's server: its transports carry no descriptors."""
        assert self._sock is not None
        for _ in range(BACKLOG):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.error("no client can be accepted, for now: %s", error)
                self._loop.remove_reader(self._sock)
                self._loop.call_later(_ACCEPT_AGAIN_S, self._listen)
                return
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            connection = Connection(self._manager, self._options, self._peer, self._connections)
            Stream(self._loop, sock, connection, self._buffer)

    def _bind(self, path: str) -> socket.socket:
        """Mode 0600, or 0660 and the group's, before the first client can connect."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        umask = os.umask(0o177 if self._group is None else 0o117)
        try:
            sock.bind(path)
        finally:
            os.umask(umask)
        # Not where there is no need to: a hardened service may not change owners at all.
        if self._group is not None and os.stat(path).st_gid != self._group:
            os.chown(path, -1, self._group)
        return sock

    def _peer(self, transport: Stream) -> Peer:
        return peer_of(transport.get_extra_info("socket"), self._group)

    def close(self) -> None:
        """No more clients; those that are there stay. Safe to call twice, or before ``start``."""
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    async def hang_up(self) -> None:
        """Part with each client once it has taken what it is owed. One that takes nothing of it is not waited for."""
        leaving = [connection.hang_up() for connection in tuple(self._connections)]
        give_up_at = now() + HANG_UP_S
        before = -1
        while self._connections and now() < give_up_at:
            left = sum(connection.unsent for connection in self._connections)
            if left == before:
                break
            before = left
            await asyncio.wait(leaving, timeout=TAKE_NOTHING_S)
        for connection in tuple(self._connections):
            connection.cut_off()

"""A connection for the calls of one executor: it can tell when all of them have ended, and cancel them all."""

from __future__ import annotations

import socket
import threading
from typing import Self

from poolmgr.client.dial import check_peer
from poolmgr.client.link import Link
from poolmgr.errors import ConnectionLost, PoolError


class CallLink(Link):
    """A ``Link`` on which a call that was abandoned still counts until it has ended."""

    forgets_abandoned = False

    @classmethod
    def adopt(cls, sock: socket.socket, name: str) -> Self:
        """Take over a connected socket. The welcome is not waited for: what is sent before is answered after it."""
        link = cls(sock)
        link._transmit(link.protocol.hello, name)
        return link

    def check_peer(self) -> None:
        """Refuse a daemon from which pickles are not to be loaded.

        Raises:
            NotAllowed: it runs as another user than this one or root.
        """
        try:
            check_peer(self._sock, "the client's socket")
        except PoolError:
            self.close(ConnectionLost("the daemon is not trusted"))
            raise

    def cancel_waiting(self) -> None:
        """Cancel every call that has not begun; their ends follow."""
        with self.lock:
            waiting = list(self.protocol.unended)
        self.abandon(waiting)

    def drain(self) -> None:
        """Wait until every call has ended, and the callbacks of those that the reading thread has told have run."""
        protocol = self.protocol
        self.wait(lambda: not protocol.unended or protocol.lost is not None)
        reader = self._background
        if reader is not None and reader is not threading.current_thread():
            reader.join()

    def lose(self, cause: PoolError) -> None:
        """End the connection; what is owed fails because of ``cause``."""
        for pending, _ in self._lose(cause):
            pending.announce()

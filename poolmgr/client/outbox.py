"""What the sync client has to send: the kernel takes what it can, the rest is kept. Nothing here ever blocks."""

from __future__ import annotations

import socket
from typing import Final

_NOW: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Outbox:
    """Bytes on their way to a socket. Calls must not overlap.

    Attributes:
        unsent: what the kernel did not take; ``flush`` tries again.
        hung_up: the peer takes no more. What it still says is to be read: it may hold the reason.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.unsent = bytearray()
        self.hung_up = False
        self._sock = sock

    def send(self, data: bytes) -> None:
        if self.unsent:
            self.unsent += data
            return
        sent = self._try(data)
        if sent < len(data):
            self.unsent += memoryview(data)[sent:]

    def flush(self) -> None:
        if self.unsent:
            del self.unsent[: self._try(self.unsent)]

    def _try(self, data: bytes | bytearray) -> int:
        try:
            return self._sock.send(data, _NOW)
        except BlockingIOError:
            return 0
        except OSError:
            self.hung_up = True
            return len(data)

"""What the sync client has to send: the kernel takes what it can, the rest is kept. Nothing here ever blocks."""

from __future__ import annotations

import errno
import socket
from collections import deque
from typing import Final

from poolmgr.client.outgoing import Message, Outgoing
from poolmgr.parcels.passing import FileMessage, send

_NOW: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Outbox:
    """Bytes, and files, on their way to a socket. Calls must not overlap.

    Attributes:
        unsent: what the kernel did not take; ``flush`` tries again.
        hung_up: the peer takes no more. What it still says is to be read: it may hold the reason.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.unsent: deque[bytearray | FileMessage] = deque()
        self.hung_up = False
        self._sock = sock

    def send(self, message: Outgoing) -> None:
        """Send one message, or several."""
        if isinstance(message, list):
            for each in message:
                self._send(each)
        else:
            self._send(message)

    def _send(self, message: Message) -> None:
        if self.unsent:
            self._keep(message)
            return
        if isinstance(message, FileMessage):
            self.unsent.append(message)
            self.flush()
            return
        sent = self._try(message)
        if sent < len(message):
            self.unsent.append(bytearray(memoryview(message)[sent:]))

    def flush(self) -> None:
        while self.unsent:
            first = self.unsent[0]
            if isinstance(first, FileMessage):
                first = self._try_file(first)
            else:
                del first[: self._try(first)]
            if first:
                self.unsent[0] = first
                return
            self.unsent.popleft()

    def _keep(self, message: Message) -> None:
        if isinstance(message, FileMessage):
            self.unsent.append(message)
        elif isinstance(last := self.unsent[-1], bytearray):
            last += message
        else:
            self.unsent.append(bytearray(message))

    def _try(self, data: bytes | bytearray) -> int:
        try:
            return self._sock.send(data, _NOW)
        except BlockingIOError:
            return 0
        except OSError:
            self.hung_up = True
            return len(data)

    def _try_file(self, message: FileMessage) -> FileMessage | bytearray:
        """What is left of it."""
        try:
            sent = send(self._sock, message.data, message.parcel.fd, _NOW)
        except BlockingIOError:
            return message
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:
                whole = bytearray(message.otherwise())
                del whole[: self._try(whole)]
                return whole
            self.hung_up = True
            return bytearray()
        return bytearray(message.data[sent:])

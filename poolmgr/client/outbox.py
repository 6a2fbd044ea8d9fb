"""What the sync client has to send: the kernel takes what it can, the rest is kept. Nothing here ever blocks."""

from __future__ import annotations

import errno
import socket
from collections import deque
from typing import Final

from poolmgr.client.outgoing import Message, Outgoing
from poolmgr.parcels.passing import FileMessage, send
from poolmgr.wire.parts import LARGE_BYTES, Part, rest_of

_NOW: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_PARTS: Final = 64  # in one send


class Outbox:
    """Bytes, and files, on their way to a socket. Calls must not overlap.

    Attributes:
        unsent: what the kernel did not take; ``flush`` tries again.
        hung_up: the peer takes no more. What it still says is to be read: it may hold the reason.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.unsent: deque[Message] = deque()
        self.hung_up = False
        self._sock = sock

    def send(self, message: Outgoing) -> None:
        """Send one message, or several."""
        if type(message) is bytes and not self.unsent:
            try:
                sent = self._sock.send(message, _NOW)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.hung_up = True
                return
            if sent < len(message):
                self._keep(memoryview(message)[sent:])
            return
        waits = bool(self.unsent)
        for each in message if isinstance(message, list) else (message,):
            self._keep(each)
        if not waits:
            self.flush()

    def flush(self) -> None:
        """Send what the kernel takes."""
        while self.unsent:
            rest: list[Message] = []
            first = self.unsent.popleft()
            if isinstance(first, FileMessage):
                rest += self._try_file(first)
            else:
                parts = self._take_parts(first)
                rest += rest_of(parts, self._try(parts))
            if rest:
                self.unsent.extendleft(reversed(rest))
                return

    def _take_parts(self, first: Part) -> list[Part]:
        """``first``, and the bytes behind it, up to the next file."""
        parts = [first]
        while self.unsent and len(parts) < _PARTS and not isinstance(each := self.unsent[0], FileMessage):
            parts.append(each)
            self.unsent.popleft()
        return parts

    def _keep(self, message: Message) -> None:
        last = self.unsent[-1] if self.unsent else None
        if isinstance(message, FileMessage) or len(message) >= LARGE_BYTES:
            self.unsent.append(message)
        elif isinstance(last, bytearray):  # many small ones are one
            last += message
        else:
            self.unsent.append(bytearray(message))

    def _try(self, parts: list[Part]) -> int:
        try:
            return self._sock.send(parts[0], _NOW) if len(parts) == 1 else self._sock.sendmsg(parts, (), _NOW)
        except BlockingIOError:
            return 0
        except OSError:
            self.hung_up = True
            return sum(map(len, parts))

    def _try_file(self, message: FileMessage) -> list[Message]:
        """What is left of it."""
        try:
            sent = send(self._sock, message.data, message.parcel.fd, _NOW)
        except BlockingIOError:
            return [message]
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:
                whole = message.otherwise()
                return list(rest_of([whole], self._try([whole])))
            self.hung_up = True
            return []
        return list(rest_of([message.data], sent))

"""The manager's end of one worker's control channel: packets both ways, and the files that some of them bring."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from poolmgr.errors import ProtocolError
from poolmgr.manager.console import PAUSE_S, Console
from poolmgr.parcels.passing import ANCILLARY_BYTES, RECEIVE, dispose, received, send
from poolmgr.wire.framing import Decoder, encode
from poolmgr.wire.messages import RESULT

_BYTES = 65536
_BURST = 64  # packets of one that has said too many
_AHEAD = 512  # packets ahead of a result's file: more than the channel holds
_FILES = 32  # that may have come before their DONEs: more than a worker has tasks


class ControlChannel:
    """One end of a socketpair. It is heard from ``listen`` on."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = loop
        self._files: dict[int, int] = {}  # by fence: results that are still to be told of
        self._told: Callable[[list[Any]], None]
        self._babbled: Callable[[str], None]
        self._console: Console

    def listen(self, console: Console, told: Callable[[list[Any]], None], babbled: Callable[[str], None]) -> None:
        """Begin to read.

        Args:
            console: what is logged counts with what is printed.
            told: called with each message that brings no file.
            babbled: called with what is wrong, where something is no message.
        """
        self._console, self._told, self._babbled = console, told, babbled
        self._loop.add_reader(self._sock, self._read)

    def tell(self, message: list[Any], fd: int | None = None) -> bool:
        """Send one packet, with a descriptor; False if it cannot be taken now."""
        try:
            if fd is None:
                self._sock.send(encode(message))
            else:
                send(self._sock, encode(message), fd, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def file_of(self, fence: int) -> int | None:
        """The file of this fence's result, the caller's to close from here on: it came before the result was told.

        None: it did not, as far as that was looked for: somebody may send other packets without end.
        """
        for _ in range(_AHEAD):
            if fence in self._files or not self._hear_packet():
                break
        return self._files.pop(fence, None)

    def _read(self) -> None:
        """One packet. From one that logs without end many packets, but then none for a moment."""
        if self._hear_packet() and self._console.budget.spent:
            self._loop.remove_reader(self._sock)
            self._loop.call_later(PAUSE_S, self._read_again)

    def _read_again(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._console.rest()
        for _ in range(_BURST):
            if not self._hear_packet():
                break
        self._loop.add_reader(self._sock, self._read)

    def _hear_packet(self) -> bool:
        """Whether there was one."""
        if self._sock.fileno() < 0:
            return False
        try:
            data, ancillary, _, _ = self._sock.recvmsg(_BYTES, ANCILLARY_BYTES, RECEIVE)
        except BlockingIOError:
            return False
        except OSError:
            data, ancillary = b"", []
        fds = received(ancillary) if ancillary else []
        if not data and not fds:  # its end
            self._loop.remove_reader(self._sock)
            return False
        try:
            messages = Decoder().feed(data)
            if fds:
                self._keep(messages, fds)
            else:
                for message in messages:
                    self._told(message)
        except ProtocolError as error:
            self._babbled(f"on the control channel: {error}")
        finally:
            for fd in fds:
                dispose(fd)
        return True

    def _keep(self, messages: list[list[Any]], fds: list[int]) -> None:
        """The file of a result."""
        if len(fds) != 1 or len(messages) != 1 or len(messages[0]) < 2 or messages[0][0] != RESULT:
            raise ProtocolError("descriptors with what is no RESULT")
        fence = messages[0][1]
        if type(fence) is not int or fence in self._files or len(self._files) >= _FILES:
            raise ProtocolError(f"a file too many, or of the wrong fence {fence!r:.40}")
        self._files[fence] = fds.pop()

    def close(self) -> bool:
        """Let go of it, and of files that nothing was told of. Safe to call twice; False if it was closed before."""
        if self._sock.fileno() < 0:
            return False
        self._loop.remove_reader(self._sock)
        self._sock.close()
        while self._files:
            dispose(self._files.popitem()[1])
        # They hold the process that holds this, with its buffers. It goes now, not when garbage is collected next.
        self._told = self._babbled = _unheard
        return True


def _unheard(what: object) -> None:
    """Of a channel that is closed, nothing is left to be told."""

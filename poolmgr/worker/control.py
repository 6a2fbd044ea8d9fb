"""The worker's end of its control channel: packets both ways, and the files of payloads, in both directions.

The file of a START's payload comes ahead of the START, so it is there when that is read. Files that have come, and
whose tasks have not begun, are kept by their fences.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from msgpack import packb, unpackb

from poolmgr.errors import BadValue
from poolmgr.parcels.memfds import Memfds
from poolmgr.parcels.parcel import PARCEL_BYTES, Parcel
from poolmgr.parcels.passing import ANCILLARY_BYTES, RECEIVE, received, send
from poolmgr.wire import values
from poolmgr.wire.messages import ARGUMENTS, RESULT
from poolmgr.wire.parts import LARGE_BYTES, Part
from poolmgr.worker.run import encode_result, result_parts
from poolmgr.worker.warden import FILES

_PACKET_BYTES = 65536
_MOST = 64  # results in files that are not read yet; further ones go inline
_MOST_BYTES = 128 << 20
_KEEP_BYTES = 64 << 20  # of memory to be used again
_KEEP_IDLE_BYTES = 2 << 20  # ... of a worker that has nothing to do

_close, _DONTWAIT = os.close, socket.MSG_DONTWAIT  # a task may replace them in their modules


class Control:
    """One end of a socketpair, which blocks.

    Attributes:
        send: as of a socket.
        restless: ``rest`` is to be called when there is nothing to do.
    """

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self.send = self._socket.send
        self._receive = self._socket.recvmsg
        self._files: dict[int, int] = {}
        self._memfds = Memfds(_MOST, _MOST_BYTES, _KEEP_BYTES)
        self._passes = os.environ.get(FILES) == "1"
        self.restless = False

    def fileno(self) -> int:
        """Its descriptor."""
        return self._socket.fileno()

    def packet(self) -> list[Any] | None:
        """The next message, if there is one, and it is none that brings a file."""
        while True:
            try:
                data, ancillary, _, _ = self._receive(_PACKET_BYTES, ANCILLARY_BYTES, RECEIVE | _DONTWAIT)
            except (BlockingIOError, InterruptedError):
                return None
            if not data:
                return None
            message: list[Any] = unpackb(data)
            if not ancillary:
                return message
            fds = received(ancillary)
            if message[0] == ARGUMENTS and len(fds) == 1:
                self._files[message[1]] = fds[0]
            else:
                for fd in fds:
                    _close(fd)

    def call(self, fence: int, size: int, writable: bool) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a START whose payload is in a file. All that has come was read by ``packet``.

        Raises:
            BadValue: the file has not come, or what is in it cannot be read.
        """
        fd = self._files.pop(fence, -1)
        if fd < 0:
            raise BadValue("the file with the arguments did not come")
        parcel = Parcel(fd, size)
        try:
            return values.read_call(parcel, writable)
        finally:
            parcel.close()

    def drop(self, *fences: int) -> None:
        """These tasks are not to be begun, or have failed: close their files, those that are still there."""
        for fence in fences:
            fd = self._files.pop(fence, -1)
            if fd >= 0:
                _close(fd)

    def carried(self, fence: int, result: Any) -> bytes | list[Part] | int:
        """What DONE carries for a result: its payload, in parts where it is large; or its size, where that is sent in a
        file. Raises ``Failed``."""
        parts = result_parts(result) or [encode_result(result)]
        size = sum(map(len, parts))
        if self._passes and size >= PARCEL_BYTES and (parcel := self._memfds.write(parts)) is not None:
            self.restless = True
            try:
                send(self._socket, packb((RESULT, fence)), parcel.fd, 0)
                return size
            except OSError:  # as many descriptors are on their way as the system allows
                pass
            finally:
                parcel.close()
        return parts if size >= LARGE_BYTES else b"".join(parts)

    def rest(self) -> None:
        """There is nothing to do for now: give memory back."""
        self.restless = False
        self._memfds.trim(_KEEP_IDLE_BYTES)

    def close(self, *others: int) -> None:
        """In a forked copy: let go of it, of all files, and of ``others``."""
        for fd in (*self._files.values(), self.fileno(), *others):
            try:
                _close(fd)
            except OSError:
                pass
        self._files.clear()
        self._memfds.forget()
        self._passes = False

"""Descriptors over a Unix socket, beside its bytes (SCM_RIGHTS)."""

from __future__ import annotations

import _thread
import os
import socket
import struct
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from poolmgr.parcels.parcel import Parcel, is_memfd

PASSED: Final = 32  # descriptors in one send
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(PASSED * 4)
RECEIVE: Final = socket.MSG_CMSG_CLOEXEC

_WAITING: Final = 128  # descriptors that may wait to be closed; further ones are closed at once
_INT: Final = struct.Struct("i")
_LINGER_NOT: Final = struct.pack("ii", 0, 0)

Ancillary = list[tuple[int, int, bytes]]


class FileMessage(NamedTuple):
    """A message that names a payload by its size, to be sent with a descriptor of its file.

    Attributes:
        otherwise: makes the message with the payload in it, for where no more descriptors may be on their way.
    """

    data: bytes
    parcel: Parcel
    otherwise: Callable[[], bytes]


def send(sock: socket.socket, data: bytes | bytearray | memoryview, fd: int, flags: int) -> int:
    """As ``sock.send``, with a descriptor: where any byte was sent, that was, too."""
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _INT.pack(fd))], flags)


def received(ancillary: Ancillary) -> list[int]:
    """The descriptors that a ``recvmsg`` has brought, which are the caller's to close."""
    found = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


class _Closer:
    """Closes descriptors in a thread, which is there while there are any to close.

    A process that has one of them wait for ever, as by a file system of its own, has those behind it wait, too: up to a
    bound, and no more threads than one.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._waiting: deque[int] = deque()
        self._at_it = _thread.allocate_lock()  # held by the thread

    def close(self, fd: int) -> None:
        if len(self._waiting) >= _WAITING:
            _close(fd)
            return
        self._waiting.append(fd)
        if self._at_it.acquire(blocking=False):
            try:
                _thread.start_new_thread(self._close_all, ())
            except RuntimeError:  # the system has no more threads
                self._close_all()

    def _close_all(self) -> None:
        while True:
            while self._waiting:
                _close(self._waiting.popleft())
            self._at_it.release()
            # One that came just before that has found the lock held.
            if not self._waiting or not self._at_it.acquire(blocking=False):
                return


_closer = _Closer()


def dispose(fd: int) -> None:
    """Close what a peer has sent and should not have. It never raises. A close may wait (a TCP socket that lingers, a
    file of a file system that does not answer), so that is done where nobody waits."""
    global _closer
    if is_memfd(fd):
        _close(fd)
        return
    if _closer.pid != os.getpid():  # forked: the thread is the parent's
        _closer = _Closer()
    _linger_no_more(fd)
    _closer.close(fd)


def _linger_no_more(fd: int) -> None:
    try:
        sock = socket.socket(fileno=fd)
    except OSError:  # it is none
        return
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    except OSError:
        pass
    finally:
        sock.detach()


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:  # it is closed all the same
        pass


def dispose_all(fds: Iterable[int]) -> None:
    """``dispose`` of each."""
    for fd in fds:
        dispose(fd)

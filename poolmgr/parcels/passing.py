"""Descriptors over a Unix socket, beside its bytes (SCM_RIGHTS)."""

from __future__ import annotations

import _thread
import os
import socket
import struct
from array import array
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from poolmgr.parcels.parcel import Parcel, is_memfd

PASSED: Final = 32  # descriptors in one send
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(PASSED * 4)
RECEIVE: Final = socket.MSG_CMSG_CLOEXEC

_INT: Final = struct.Struct("i")

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


def dispose(fd: int) -> None:
    """Close what a peer has sent and should not have. A close may wait (a TCP socket that lingers), so that is done
    where nobody waits."""
    if is_memfd(fd):
        os.close(fd)
    else:
        _thread.start_new_thread(os.close, (fd,))


def dispose_all(fds: Iterable[int]) -> None:
    """``dispose`` of each."""
    for fd in fds:
        dispose(fd)

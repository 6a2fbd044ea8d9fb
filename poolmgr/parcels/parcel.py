"""A payload in a file, and the descriptor by which it is held: closed once, when nobody needs it any more."""

from __future__ import annotations

import fcntl
import os
from typing import Any, Final

from poolmgr.errors import BadDescriptor

# Payloads of so many bytes and more travel in files, where the peer takes them. Below, making, passing and closing one
# costs more than copying (docs/explanation/performance.md).
PARCEL_BYTES: Final = 128 * 1024
# The least that is taken in a file: what is smaller may be in a row of the store (store/rows.py).
LEAST_BYTES: Final = 64 * 1024 + 1
_MISSING: Final = b"\xc1"  # begins no MessagePack value
_CHUNK_BYTES: Final = 1 << 20


class Allowance:
    """How many descriptors may be held for somebody; of an ``outer`` one's, too. Any thread may call any method."""

    __slots__ = ("_left", "_outer", "most")

    def __init__(self, most: int, outer: Allowance | None = None) -> None:
        self.most = most
        self._left = [None] * most  # tokens, since these come and go in one step
        self._outer = outer

    def take(self) -> bool:
        """Take one. False: all are taken, here or in the outer one."""
        try:
            self._left.pop()
        except IndexError:
            return False
        if self._outer is not None and not self._outer.take():
            self._left.append(None)
            return False
        return True

    def give_back(self) -> None:
        """One is not needed any more."""
        self._left.append(None)
        if self._outer is not None:
            self._outer.give_back()

    @property
    def taken(self) -> int:
        """How many are."""
        return self.most - len(self._left)


class Parcel:
    """``size`` bytes from the beginning of the file ``fd``, which is this object's to close (payload.Filed).

    It is only ever read, never mapped: whatever is done to the file, a read returns. Nor does one ever raise: who would
    meet that is the daemon's loop, or its store, and what cannot be read is missing like what is not there.

    Args:
        allowance: gets one back when the descriptor is closed.
    """

    __slots__ = ("_allowance", "fd", "size")

    def __init__(self, fd: int, size: int, allowance: Allowance | None = None) -> None:
        self.fd = fd
        self.size = size
        self._allowance = allowance

    def __len__(self) -> int:
        return self.size

    def read(self, offset: int, count: int) -> bytes:
        """So many bytes from ``offset`` on; fewer where the file is shorter than was said, or cannot be read."""
        found = self._some(offset, count)
        if len(found) < count:  # a read may be interrupted, and takes 2 GB at most
            parts = [found]
            while found:
                offset += len(found)
                count -= len(found)
                found = self._some(offset, count) if count else b""
                parts.append(found)
            return b"".join(parts)
        return found

    def read_own(self, offset: int, count: int) -> bytearray:
        """The same in memory of the caller's own, which may be written to. What is missing is zero."""
        memory = bytearray(count)
        view = memoryview(memory)
        while view:
            try:
                found = os.preadv(self.fd, [view], offset)
            except OSError:
                break
            if not found:
                break
            view, offset = view[found:], offset + found
        return memory

    def _some(self, offset: int, count: int) -> bytes:
        try:
            return os.pread(self.fd, count, offset)
        except OSError:
            return b""

    def content(self) -> bytes:
        return self.read(0, self.size).ljust(self.size, _MISSING)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Parcel, bytes)):
            return NotImplemented
        if len(other) != self.size:
            return False
        for offset in range(0, self.size, _CHUNK_BYTES):
            theirs = other.read(offset, _CHUNK_BYTES) if isinstance(other, Parcel) else other[offset:][:_CHUNK_BYTES]
            if self.read(offset, min(_CHUNK_BYTES, self.size - offset)) != theirs[: self.size - offset]:
                return False
        return True

    __hash__ = None  # type: ignore[assignment]

    def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError:  # a task may have closed it
                pass
            if self._allowance is not None:
                self._allowance.give_back()

    __del__ = close


def taken(fd: int, size: int, allowance: Allowance) -> Parcel | bytes:
    """What a checked descriptor holds: kept as it is, or, where ``allowance`` is used up, read into memory."""
    if allowance.take():
        return Parcel(fd, size, allowance)
    parcel = Parcel(fd, size)
    try:
        return parcel.content()
    finally:
        parcel.close()


def check(fd: int, size: Any, least: int, most: int) -> None:
    """Refuse a descriptor that came from a peer, unless it is a memfd of at least ``size`` bytes that cannot shrink.

    Anything else may be a file that keeps whoever reads it waiting, for ever if its maker wishes. This looks at nothing
    but what the kernel itself keeps, so it does not wait.

    Raises:
        BadDescriptor: with the reason.
    """
    if type(size) is not int or not least <= size <= most:
        raise BadDescriptor(f"a payload in a file has {least} to {most} bytes, this one {size!r:.40}")
    if not is_memfd(fd):
        raise BadDescriptor("a payload's file is a memfd that is sealed against shrinking (F_SEAL_SHRINK)")
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    # There is an access mode 3, too, which may neither read nor write.
    if flags & os.O_ACCMODE not in (os.O_RDONLY, os.O_RDWR) or flags & os.O_PATH:
        raise BadDescriptor("a payload's file can be read")
    if (there := os.fstat(fd).st_size) < size:
        raise BadDescriptor(f"a payload of {size} bytes in a file of {there}")


def is_memfd(fd: int) -> bool:
    """Whether it is a memfd that is sealed against shrinking: never waited for, to read or to close."""
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:
        return False

"""Memory files that are written once and read once, again and again: fresh pages are most of what one costs.

A megabyte into a new memfd takes 420 us, into one that has its pages 90 (Linux 6.18, two shared processors). But a file
must not be written again while anybody may still read it: that would show one task what another was given. Whether
anybody can, the kernel knows, and nobody is asked:

1. What is handed over is never our own open file, but another one of the same memory, opened by /proc/self/fd for
   reading. All copies of that, in processes and on their way in sockets, and all mappings, keep it open.
2. A write lease (F_SETLEASE) is granted only where no other open file of the same memory is left. So a memfd that gets
   one is ours alone again. It is given up at once.

A worker that is slow, stopped or stuck, a task that is tried again elsewhere, a client that never reads: all of them
keep their descriptor, and the memfd is not used again before it is closed. Where the kernel knows no leases, no memfd
is ever used again, nor kept once it is handed over; where there is no /proc, none is used at all.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import signal
from collections import deque
from collections.abc import Sequence
from typing import Final

from poolmgr.parcels.parcel import Parcel
from poolmgr.wire.parts import Part, rest_of

_TRIES: Final = 3  # memfds that are looked at before another is made
_PARTS: Final = 512  # buffers in one write; the kernel takes 1,024
_ZEROS: Final = bytes(64 * 1024)
_SHRINK: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class _Memfd:
    """One that is ours: ``inode`` tells whether its descriptor still is (a task may close what it likes).

    Attributes:
        size: of the file: that of the largest payload so far.
        used: how much of it the last payload took. What is behind that is zero.
        is_once: it is not to be used again, as a lease in somebody's way would end this process.
    """

    __slots__ = ("fd", "inode", "is_once", "size", "used")

    def __init__(self) -> None:
        """Raises ``OSError``."""
        made = os.memfd_create("poolmgr-payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.fchmod(made, 0o600)  # or any holder could open it for writing
            # The kernel does not count the open file that memfd_create makes as one that writes.
            self.fd = os.open(f"/proc/self/fd/{made}", os.O_RDWR | os.O_CLOEXEC)
        finally:
            os.close(made)
        self.inode = os.fstat(self.fd).st_ino
        self.size = self.used = 0
        self.is_once = False
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETSIG, signal.SIGURG)  # to whose lease is in somebody's way; it is ignored
        except OSError:
            self.is_once = True

    @property
    def is_ours(self) -> bool:
        try:
            return os.fstat(self.fd).st_ino == self.inode
        except OSError:
            return False

    @property
    def is_free(self) -> bool:
        """Whether nobody else has it open, or mapped, or will receive it. Raises ``OSError``: nobody knows."""
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EBUSY):
                return False
            raise
        fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return True

    def fill(self, parts: Sequence[Part], size: int) -> Parcel:
        """Raises ``OSError``."""
        self._write(parts, 0)
        if size < self.used:
            # The end of the last payload would be there for this one's receiver to read. To overwrite it costs less
            # than what that cost; a hole in its place would give the pages away, and those are what is kept.
            whole, rest = divmod(self.used - size, len(_ZEROS))
            self._write([_ZEROS] * whole + [_ZEROS[:rest]], size)
        self.used = size
        if size > self.size:
            if not self.size:
                fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SHRINK)
            self.size = size
        return Parcel(os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC), size)

    def _write(self, parts: Sequence[Part], offset: int) -> None:
        rest = list(parts)
        while rest:
            offset += (written := os.pwritev(self.fd, rest[:_PARTS], offset))
            rest = rest_of(rest, written)

    def close(self) -> None:
        if self.is_ours:
            os.close(self.fd)


class Memfds:
    """Those of one process. Any thread may call any method; a forked child has none of its parent's.

    Args:
        most: how many there may be, those included that others still read.
        most_bytes: what these may take together.
        keep_bytes: what may be kept to be used again; beyond that, those that nobody reads are closed.
    """

    def __init__(self, most: int, most_bytes: int, keep_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._keep_bytes = keep_bytes
        self._pid = os.getpid()
        self._lock = _thread.allocate_lock()  # ``threading`` is what a worker can do without
        self._made: deque[_Memfd] = deque()  # the one that was filled longest ago first
        self._bytes = 0  # of all of these
        self._out = 0  # being filled just now
        self._leases = True  # as far as is known

    def __len__(self) -> int:
        return len(self._made)

    def write(self, parts: Sequence[Part]) -> Parcel | None:
        """A file of what ``parts`` hold, one behind the other. None: there is none to be had, as others have not read
        what they have, or the system refuses."""
        size = sum(map(len, parts))
        if self._pid != os.getpid():
            self.forget()
        try:
            memfd = self._take(size)
            if memfd is None:
                return None
            try:
                parcel = memfd.fill(parts, size)
            except BaseException:
                memfd.close()
                memfd = None
                raise
            finally:
                self._put_back(memfd)
        except OSError:
            return None
        return parcel

    def trim(self, keep_bytes: int) -> None:
        """Keep no more than ``keep_bytes`` to be used again, and nothing of that which is still read: its memory goes
        when it has been read."""
        with self._lock:
            kept, size = deque[_Memfd](), 0
            for each in self._made:
                if size + each.size > keep_bytes or not self._is_free(each):
                    self._drop(each)
                else:
                    size += each.size
                    kept.append(each)
            self._made = kept

    def close(self) -> None:
        """Let go of all of them. What others have of them stays theirs."""
        with self._lock:
            while self._made:
                self._drop(self._made.popleft())

    def _take(self, size: int) -> _Memfd | None:
        with self._lock:
            made = self._made
            for _ in range(min(_TRIES, len(made))):
                memfd = made.popleft()
                if not memfd.is_ours:
                    self._drop(memfd)
                elif not self._is_free(memfd):
                    made.append(memfd)
                elif self._bytes > self._keep_bytes:
                    self._drop(memfd)
                elif self._bytes - memfd.size + max(size, memfd.size) <= self._most_bytes:
                    self._bytes -= memfd.size
                    self._out += 1
                    return memfd
                else:
                    self._drop(memfd)
            if not self._leases:
                while made:
                    self._drop(made.popleft())
            if len(made) + self._out >= self._most or self._bytes + size > self._most_bytes:
                return None
            self._out += 1
        try:
            return _Memfd()
        except BaseException:
            with self._lock:
                self._out -= 1
            raise

    def _put_back(self, memfd: _Memfd | None) -> None:
        with self._lock:
            self._out -= 1
            if memfd is None:
                return
            self._bytes += memfd.size
            if memfd.is_once or not self._leases:  # kept, it would count as one that is read, for ever
                self._drop(memfd)
            else:
                self._made.append(memfd)

    def _is_free(self, memfd: _Memfd) -> bool:
        try:
            return memfd.is_ours and memfd.is_free
        except OSError:
            self._leases = False
            return False

    def _drop(self, memfd: _Memfd) -> None:
        self._bytes -= memfd.size
        memfd.close()

    def forget(self) -> None:
        """In the child of a fork: a lease does not tell it from its parent, and both would write."""
        self._pid = os.getpid()
        self._lock = _thread.allocate_lock()
        self._out = 0
        for each in self._made:
            each.close()
        self._made.clear()
        self._bytes = 0

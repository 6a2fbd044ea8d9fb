"""A Unix socket on an event loop, with descriptors beside its bytes, which the loops' own transports cannot carry.

It reads and writes by itself, told by the loop when it can. To its protocol it is a transport as asyncio's are, which
also has ``write_file``, and calls ``files_received``.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import struct
import termios
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Protocol

from poolmgr.parcels.passing import RECEIVE, FileMessage, dispose_all, received, send
from poolmgr.wire.parts import Part, rest_of

_SEND: Final = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
_NOW: Final = socket.MSG_DONTWAIT
_CUT: Final = socket.MSG_CTRUNC  # descriptors were lost: there is room for all, so this process may have no more open
_ROOM: Final = socket.CMSG_SPACE(253 * 4)  # for as many as one send carries (SCM_MAX_FD): the kernel closes what has
# none, in the thread that reads, and a close may wait (a TCP socket that lingers)
_SO_PASSRIGHTS: Final = 83  # Linux 6.16 and later
_PARTS: Final = 512  # in one send; the kernel takes 1,024
_LEAST_BYTES: Final = 512  # of the kernel's memory that a message takes in a socket
_INT: Final = struct.Struct("i")
_READS: Final = 32  # in one turn of the loop
_PASSED_MOST: Final = 512  # descriptors, and what their files hold, that a peer may have been sent and not read
_PASSED_BYTES: Final = 128 << 20
_TAKE_NOTHING_S: Final = 10.0  # that a peer may, when the connection was closed


class StreamProtocol(Protocol):
    """Who is told of it, as an ``asyncio.Protocol`` is. ``data`` is good until ``data_received`` returns."""

    def connection_made(self, transport: Any) -> None: ...
    def files_received(self, fds: list[int], lost: bool) -> None:
        """These descriptors, now the protocol's to close, came with the bytes that are about to be told. ``lost``: and
        others, which this process has no room for."""
        ...

    def data_received(self, data: memoryview) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class Stream:
    """The connection ``sock``, from now until ``close`` or ``abort``, or until the peer ends it.

    Args:
        buffer: for what is read; several streams of one loop may share one.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: StreamProtocol, buffer: memoryview
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._protocol: StreamProtocol | None = protocol
        self._buffer = buffer
        self._receive = sock.recv_into
        self._send = sock.send
        self._unsent: deque[tuple[Part, FileMessage | None]] = deque()
        self._unsent_bytes = 0
        self._passed: deque[int] = deque()  # the sizes of files that the peer may not have read yet
        self._passed_bytes = 0  # ... together
        self._high, self._low = 65536, 16384
        self._takes_files = False
        self._refuses_files = refuse_files(sock)
        self._paused = False  # the protocol's writing
        self._reading = True
        self._closing = False
        self._give_up: asyncio.TimerHandle | None = None  # when it is closing
        self._fd = sock.fileno()
        protocol.connection_made(self)
        if self._reading and not self._closing:
            loop.add_reader(self._fd, self._read)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``"socket"`` is all that there is."""
        return self._sock if name == "socket" else default

    # ------------------------------------------------------------------------------------------ reading

    def take_files(self) -> None:
        """From now on take descriptors, too, which costs a little. Until then whoever sends any gets EPERM, or, where
        the kernel cannot refuse them, they are dropped."""
        if self._refuses_files and not self._closing:
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 1)
        self._takes_files = True

    def pause_reading(self) -> None:
        """Tell of no more until ``resume_reading``."""
        if self._reading and not self._closing:
            self._loop.remove_reader(self._fd)
        self._reading = False

    def resume_reading(self) -> None:
        """Go on after ``pause_reading``."""
        if not self._reading and not self._closing:
            self._loop.add_reader(self._fd, self._read)
        self._reading = True

    def _read(self) -> None:
        if self._takes_files:
            # A read ends behind a message with a file, and there may be many: they are told in one turn of the loop.
            for _ in range(_READS):
                if not self._read_with_files():
                    return
            return
        if not self._refuses_files:
            self._read_with_files()
            return
        try:
            count = self._receive(self._buffer, 0, _NOW)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        self._tell(count)

    def _read_with_files(self) -> bool:
        """Whether there may be more to read at once."""
        protocol = self._protocol
        if protocol is None or not self._reading:
            return False
        try:
            count, ancillary, flags, _ = self._sock.recvmsg_into([self._buffer], _ROOM, _NOW | RECEIVE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._end(error)
            return False
        if not self._takes_files:
            dispose_all(received(ancillary))
        elif ancillary or flags & _CUT:
            protocol.files_received(received(ancillary), bool(flags & _CUT))
        self._tell(count)
        return bool(ancillary)

    def _tell(self, count: int) -> None:
        protocol = self._protocol
        assert protocol is not None  # or there would be no reader
        if not count:
            self._end(None)
            return
        try:
            protocol.data_received(self._buffer[:count])
        except Exception as error:
            # As asyncio's transports do: what fails is this connection, and no "handle" of the loop's.
            self._loop.call_exception_handler(
                {"message": "a connection's protocol has failed", "exception": error, "protocol": protocol}
            )
            self._end(error)

    # ------------------------------------------------------------------------------------------ writing

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """The protocol is asked to pause when over ``high`` bytes are unsent, to go on at ``low``."""
        self._high, self._low = high, low

    def get_write_buffer_size(self) -> int:
        """Bytes that are unsent, those of files included."""
        return self._unsent_bytes

    def writelines(self, parts: Sequence[Part]) -> None:
        """``write`` of each, without joining them."""
        rest: Sequence[Part] = parts
        while rest and not self._unsent and not self._closing:
            try:
                sent = self._sock.sendmsg(rest[:_PARTS], (), _SEND)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._end(error)
                return
            rest = rest_of(rest, sent)
        if not self._closing:
            for each in rest:
                if each:
                    self._queue(each, None)

    def write(self, data: Part) -> None:
        """Send ``data``, or keep it until the socket takes it."""
        if self._closing or not data:
            return
        if self._unsent:
            self._queue(data, None)
            return
        try:
            sent = self._send(data, _SEND)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._end(error)
            return
        if sent < len(data):
            self._queue(memoryview(data)[sent:], None)

    def write_file(self, message: FileMessage) -> None:
        """Send it, with its file if that may be.

        Files that the peer does not take count by their size, as bytes do: it cannot have the system keep any number.
        """
        if self._closing:
            return
        data, parcel, otherwise = message
        if not self._may_pass(parcel.size):
            self.write(otherwise())
            return
        self._passed.append(parcel.size)
        self._passed_bytes += parcel.size
        if not self._unsent:
            try:
                sent = send(self._sock, data, parcel.fd, _SEND)
            except (BlockingIOError, InterruptedError):
                self._queue(data, message)
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:
                    self._end(error)
                else:
                    self.write(otherwise())
            else:
                if sent < len(data):
                    self._queue(memoryview(data)[sent:], None)
        else:
            self._queue(data, message)

    def _may_pass(self, size: int) -> bool:
        """Whether what the peer has not read yet leaves room for a file of ``size`` bytes."""
        passed = self._passed
        if self._passed_bytes + size > _PASSED_BYTES or len(passed) >= _PASSED_MOST:
            most = unread(self._sock) + len(self._unsent)
            while len(passed) > most:
                self._passed_bytes -= passed.popleft()
        return self._passed_bytes + size <= _PASSED_BYTES and len(passed) < _PASSED_MOST

    def _queue(self, data: Part, file: FileMessage | None) -> None:
        if not self._unsent:
            self._loop.add_writer(self._fd, self._write_more)
        self._unsent.append((data, file))
        self._unsent_bytes += len(data) + (file.parcel.size if file else 0)
        if not self._paused and self._unsent_bytes > self._high and self._protocol is not None:
            self._paused = True
            self._protocol.pause_writing()

    def _flush(self) -> None:
        """Send what the socket takes."""
        while self._unsent:
            data, file = self._unsent[0]
            try:
                sent = self._sock.send(data, _SEND) if file is None else send(self._sock, data, file.parcel.fd, _SEND)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if file is None or error.errno != errno.ETOOMANYREFS:
                    self._end(error)
                    return
                self._unsent[0] = (file.otherwise(), None)
                self._unsent_bytes += len(self._unsent[0][0]) - len(data) - file.parcel.size
                continue
            self._unsent_bytes -= sent + (file.parcel.size if file else 0)
            if sent == len(data):
                self._unsent.popleft()
            else:
                self._unsent[0] = (memoryview(data)[sent:], None)

    def _write_more(self) -> None:
        self._flush()
        if not self._unsent and self._protocol is not None:
            self._loop.remove_writer(self._fd)
            if self._closing:
                self._end(None)
                return
        if self._paused and self._unsent_bytes <= self._low and self._protocol is not None and not self._closing:
            self._paused = False
            self._protocol.resume_writing()

    # ------------------------------------------------------------------------------------------ the end

    def is_closing(self) -> bool:
        """Whether it was closed, or is about to be."""
        return self._closing

    def close(self) -> None:
        """Read no more, send what is unsent, and end; at once if the peer takes nothing of it for 10 s. Safe to call
        twice."""
        if self._closing:
            return
        self._closing = True
        if self._reading:
            self._loop.remove_reader(self._fd)
        if not self._unsent:
            self._end(None)
        else:
            self._give_up = self._loop.call_later(_TAKE_NOTHING_S, self._end_unless_it_takes, self._unsent_bytes)

    def _end_unless_it_takes(self, unsent_bytes: int) -> None:
        """Go on sending to a peer that has taken some of ``unsent_bytes`` since."""
        if self._unsent_bytes < unsent_bytes:
            self._give_up = self._loop.call_later(_TAKE_NOTHING_S, self._end_unless_it_takes, self._unsent_bytes)
        else:
            self._end(None)

    def abort(self) -> None:
        """End it now. Safe to call twice."""
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is None:
            return
        self._closing = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
        self._unsent.clear()
        self._unsent_bytes = 0
        self._loop.call_soon(self._tell_lost, protocol, error)

    def _tell_lost(self, protocol: StreamProtocol, error: Exception | None) -> None:
        if self._takes_files or not self._refuses_files:
            self._empty()
        self._sock.close()
        protocol.connection_lost(error)

    def _empty(self) -> None:
        """Take what was not read: with the socket the kernel would close its descriptors, in this thread."""
        try:
            self._sock.shutdown(socket.SHUT_RD)  # nothing comes behind it
            while True:
                count, ancillary, _, _ = self._sock.recvmsg_into([self._buffer], _ROOM, _NOW | RECEIVE)
                dispose_all(received(ancillary))
                if not count:
                    return
        except OSError:
            return


def refuse_files(sock: socket.socket) -> bool:
    """Have the kernel refuse descriptors that are sent to ``sock``, or to connections that it will accept. False: it
    is an older one, that cannot."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    except OSError:
        return False
    return True


def unread(sock: socket.socket) -> int:
    """How many messages the peer of a Unix socket may not have read yet, at most."""
    (taken,) = _INT.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))
    return -(-int(taken) // _LEAST_BYTES)

"""A connection that many threads share: a plain socket, without an event loop, and in the usual case without a thread.

Whoever waits and finds nobody reading becomes the **leader** (see ``lead``): it reads the socket and delivers to
everyone. The others **follow**: each sleeps until what it waits for has come, or the lead is free.

1. At most one thread reads; it holds ``_leading``. It holds ``lock`` only while it takes in what it read.
2. ``lock`` guards the protocol, the unsent bytes and the set of observed. Nobody blocks while holding it: sends are
   never blocking. No code of the user's runs under it, nor under ``_leading``.
3. While the connection is down (see ``resume``), the leader dials again where it would read, and sleeps where nothing
   would have come. So whoever waits, waits for the connection too, and no socket is replaced under a reader.
4. While bytes are unsent, whoever leads waits for both directions, so that a daemon that is blocked writing to us
   cannot block us. If a submit leaves some behind, or is far ahead of the daemon, or somebody relies on delivery
   without waiting here (``deliver_in_background``), a background thread waits in their place until that is over.
5. The leader does not sleep at once while answers come briskly: to be woken costs the daemon and this process more than
   to look for as long as the last answer took. It yields between two looks, so that nobody waits for this processor.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from os import sched_yield
from time import monotonic, sleep
from typing import Any, Final

from poolmgr.client.dial import Route, dial
from poolmgr.client.lead import Lead
from poolmgr.client.outbox import Outbox
from poolmgr.client.pending import Pending
from poolmgr.client.protocol import Protocol, Settled
from poolmgr.client.resume import ended
from poolmgr.errors import ConnectionLost, PoolError
from poolmgr.parcels.passing import ANCILLARY_BYTES, RECEIVE, Ancillary, received
from poolmgr.wire.framing import read_buffer

_UNSENT_LOOK_S: Final = 0.05  # how long a follower waits for the daemon to take more before it looks at the lead
_BRISK_S: Final = 0.0003  # an answer that took no longer has made the next worth watching for; about two calls' time
_OVERTIME_S: Final = 0.05  # for how long what has arrived is taken in, although the time is up
_LAST_WORD_S: Final = 1.0
_RECEIVE: Final = socket.MSG_DONTWAIT | RECEIVE
_SENTINEL: Final = b"\xc1" + os.urandom(15)  # no message begins with 0xc1

# Those of this process, for what a fork must do to them.
_all: weakref.WeakSet[SharedSocket] = weakref.WeakSet()


class SharedSocket:
    """One connection, made again when it breaks and durable tasks are on it. Any thread may call any method.

    Args:
        sock: connected.
        route: how to connect again; None: not at all.

    Attributes:
        protocol: its state; to be changed under ``lock`` only.
    """

    def __init__(self, sock: socket.socket, route: Route | None = None) -> None:
        self.patience_s = 0.0 if route is None else route.reconnect_s  # for which a broken connection is made again
        self.protocol = Protocol(self.patience_s)
        self.lock = threading.Lock()
        self._route = route
        self._lead = Lead()
        self._leading = self._lead.held
        self._followers = self._lead.followers
        self._observed: set[Pending[Any]] = set()
        self._background: threading.Thread | None = None
        self._buffer = read_buffer()
        self._brisk = False  # the last answer came within ``_BRISK_S``
        self._stirred = threading.Event()  # whoever sleeps while the connection is down is to look again
        self._use(sock)
        _all.add(self)

    def _use(self, sock: socket.socket) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._outbox = Outbox(sock)
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)

    # --------------------------------------------------------------------------------------------------- waiting

    def wait(self, settled: Callable[[], bool], timeout: float | None = None) -> bool:
        """Until ``settled()``, or for ``timeout`` seconds; which of the two. Reads the socket if nobody does.

        ``settled`` must be true of a connection that is ``protocol.lost``: nothing more comes, and nobody stays.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not settled():
            if not self._leading.acquire(blocking=False):
                if not self._follow(settled, deadline):
                    return settled()
                continue
            heard: Settled | None = []
            try:
                while heard is not None and not heard and not settled():
                    heard = self._read(deadline) if self.protocol.down is None else self._dial_again(deadline)
                    if not heard and self._is_over(deadline):
                        heard = None
            finally:
                self._leading.release()
                if self._followers:
                    self._lead.tell(is_free=True)
            for pending, _ in heard or ():
                pending.announce()
            if heard is None or self._is_over(deadline):
                return settled() or self._is_settled_yet(settled)
        return True

    def _is_over(self, deadline: float | None) -> bool:
        """Whether to wait no longer, even if there is more to read."""
        return self.protocol.lost is not None or (deadline is not None and monotonic() > deadline + _OVERTIME_S)

    def _is_settled_yet(self, settled: Callable[[], bool]) -> bool:
        """Another thread that has closed the connection may be just about to settle what was observed."""
        until = monotonic() + _LAST_WORD_S
        while self.protocol.lost is not None and not settled() and monotonic() < until:
            sleep(0.001)
        return settled()

    def look(self) -> None:
        """Take in what has arrived, without waiting."""
        self.wait(lambda: self.protocol.lost is not None, 0.0)

    def deliver_in_background(self, observed: Pending[Any]) -> None:
        """Read the connection until ``observed`` has its outcome, although nobody waits here."""
        with self.lock:
            if observed.outcome is not None:
                return
            self._observed.add(observed)
        self._start_background()

    def _flush(self) -> None:
        with self.lock:
            self._outbox.flush()

    def _follow(self, settled: Callable[[], bool], deadline: float | None) -> bool:
        """Sleep until something may have changed; False once ``deadline`` has passed."""
        remaining = _remaining(deadline)
        if remaining <= 0:
            return False
        if self._outbox.unsent:
            # The leader may sleep in a read that knows nothing of these bytes: see to them here.
            self._poll(select.POLLOUT, min(remaining, _UNSENT_LOOK_S))
            self._flush()
            return True
        self._lead.follow(settled, remaining)
        return True

    def _start_background(self) -> None:
        with self.lock:
            if self._background is None or not self._background.is_alive():
                self._background = threading.Thread(target=self._serve, name="poolmgr-reader", daemon=True)
                self._background.start()

    def _serve(self) -> None:
        while True:
            self.wait(self._is_idle)
            with self.lock:
                if self._is_idle():
                    self._background = None
                    return

    def _is_idle(self) -> bool:
        """Whether nobody relies on a reader without being one.

        Unacknowledged submits do: a daemon that cannot write to us may stop reading what we have sent.
        """
        if self.protocol.lost is not None:
            return True
        return not self._observed and not self._outbox.unsent and not self.protocol.window.unanswered

    # --------------------------------------------------------------------------------------------------- reading

    def _read(self, deadline: float | None) -> Settled | None:
        """Read once and take it in; None when nothing came before ``deadline``. ``_leading`` is held."""
        if self._outbox.unsent:
            events = self._poll(select.POLLIN | select.POLLOUT, _remaining(deadline))
            if events & select.POLLOUT:
                self._flush()
            if not events & ~select.POLLOUT:
                return [] if events or deadline is None else None
        elif not self._await_answer(deadline):
            return None
        self._buffer[: len(_SENTINEL)] = _SENTINEL
        try:
            ancillary: Ancillary = []
            flags = 0
            if self.protocol.files.asked is None:
                count = self._sock.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
            else:
                count, ancillary, flags, _ = self._sock.recvmsg_into([self._buffer], ANCILLARY_BYTES, _RECEIVE)
        except BlockingIOError:
            return []
        except OSError as error:
            return self._break_off(ConnectionLost(f"the connection to the daemon broke: {error.strerror or error}"))
        except BaseException as error:
            # A signal handler has raised (Ctrl-C). Usually while nothing had come; otherwise what came is gone.
            if self._buffer[: len(_SENTINEL)] != _SENTINEL:
                self._interrupted(error)
            raise
        if not count:
            return self._break_off(ended())
        try:
            with self.lock:
                if ancillary or flags & socket.MSG_CTRUNC:
                    self.protocol.files.came(received(ancillary), bool(flags & socket.MSG_CTRUNC))
                settled = self.protocol.receive(self._buffer[:count])
                if self.protocol.down is not None:
                    self._hang_up()
                elif self.protocol.files.due:
                    self._outbox.send(self.protocol.request(*self.protocol.files.ask()))
                elif self.protocol.rewatch.waiting:
                    self._outbox.send(self.protocol.watch_more())
        except BaseException as error:
            self._interrupted(error)
            raise
        if self.protocol.files.written and not self.protocol.unended:
            self.protocol.files.rest()
        return self._settle(settled)

    def _await_answer(self, deadline: float | None) -> bool:
        """Whether something has come before ``deadline``."""
        began = monotonic()
        if self._brisk:
            until = began + _BRISK_S if deadline is None else min(began + _BRISK_S, deadline)
            while monotonic() < until:
                if self._readable.poll(0):
                    return True
                sched_yield()
        came = bool(self._readable.poll(None if deadline is None else _remaining(deadline) * 1000))
        self._brisk = monotonic() - began < _BRISK_S
        return came

    def _poll(self, events: int, timeout_s: float) -> int:
        poll = select.poll()
        poll.register(self._fd, events)
        return sum(found for _, found in poll.poll(timeout_s * 1000))

    def _settle(self, settled: Settled) -> Settled:
        if settled:
            for pending, outcome in settled:
                pending.settle(outcome)
            with self.lock:
                self._observed.difference_update(pending for pending, _ in settled)
        if self._followers:
            self._lead.tell(is_free=False)
        return settled

    # ----------------------------------------------------------------------------------------------- dialling again

    def reconnect(self) -> None:
        """Have the connection made again now, whenever that is due. Raises: why it cannot be."""
        protocol, outage = self.protocol, self.protocol.outage
        if outage is not None:
            attempts = outage.attempts
            outage.due = 0.0
            self._stirred.set()
            self.wait(
                lambda: (
                    protocol.down is None
                    or protocol.lost is not None
                    or protocol.outage is not outage
                    or outage.attempts != attempts
                )
            )
        if protocol.down is not None:
            raise (outage and outage.error) or protocol.down

    def _dial_again(self, deadline: float | None) -> Settled | None:
        """Once, if that is due, else sleep until it is; None when ``deadline`` has passed. ``_leading`` is held."""
        protocol, route = self.protocol, self._route
        self._stirred.clear()
        if protocol.lost is not None:
            return []  # another thread has closed it; whoever waits will see
        assert route is not None
        assert protocol.outage is not None
        remaining, pause = _remaining(deadline), protocol.outage.due - monotonic()
        if pause > 0:
            if remaining <= 0:
                return None
            self._stirred.wait(min(pause, remaining))
            return []
        try:
            sock = dial(route.path, min(route.timeout_s, remaining))
        except PoolError as error:
            with self.lock:
                settled = protocol.unreachable(error)
            return self._settle(settled)
        self._resume(sock, route.name)
        return self._settle([])

    def _resume(self, sock: socket.socket, name: str) -> None:
        try:
            with self.lock:
                if self.protocol.lost is not None:  # another thread has closed it
                    sock.close()
                    return
                self._use(sock)
                self._outbox.send(self.protocol.resume(name))
        except BaseException as error:
            self._interrupted(error)
            raise

    # --------------------------------------------------------------------------------------------------- the end

    def close(self, reason: PoolError) -> None:
        """End the connection; what is owed fails. Safe to call twice."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes whoever reads
        for pending, _ in self._lose(reason, closed=True):
            pending.announce()

    def _lose(self, cause: PoolError, *, closed: bool = False) -> Settled:
        with self.lock:
            settled = self.protocol.lose(cause, closed=closed)
            self._hang_up()
        return self._settle(settled)

    def _break_off(self, cause: PoolError) -> Settled:
        with self.lock:
            settled = self.protocol.interrupt(cause)
            self._hang_up()
        return self._settle(settled)

    def _hang_up(self) -> None:
        self._outbox.unsent.clear()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # whoever reads, in another thread, would not hear of a close
        self._sock.close()
        self._stirred.set()

    def _interrupted(self, error: BaseException) -> None:
        """A signal handler has raised in the middle of a message: what the other side knows of us is unclear."""
        cause = ConnectionLost(f"the connection was given up: {type(error).__name__} interrupted it")
        for pending, _ in self._break_off(cause):
            pending.announce()

    def _disown(self) -> None:
        """This is the child of a fork: the connection is the parent's, and its other threads are not here."""
        self.lock = threading.Lock()
        self._lead = Lead()
        self._leading, self._followers = self._lead.held, self._lead.followers
        self._stirred = threading.Event()
        self._background = None
        self._sock.close()  # without shutdown, which would end it for the parent, too
        self._outbox.unsent.clear()  # it holds files, as what was not answered does (``lose``)
        cause = ConnectionLost("this connection belongs to the process that forked this one")
        for pending, outcome in self.protocol.lose(cause):
            pending.outcome = outcome  # nobody here waits, and locks may have been held in the parent


def _remaining(deadline: float | None) -> float:
    """Seconds until ``deadline``, in a size that every waiting call takes: whoever waits looks again."""
    return 3600.0 if deadline is None else min(max(deadline - monotonic(), 0.0), 3600.0)


def _disown_all() -> None:
    for each in tuple(_all):
        each._disown()


os.register_at_fork(after_in_child=_disown_all)

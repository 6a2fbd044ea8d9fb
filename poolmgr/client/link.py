"""The sync client's connection: a plain socket, without an event loop, and in the usual case without a thread.

Whoever waits and finds nobody reading becomes the **leader**: it reads the socket and delivers to everyone. The others
**follow**: each sleeps on a lock of its own until what it waits for has come, or the lead is free.

1. At most one thread reads; it holds ``_leading``. It holds ``lock`` only while it takes in what it read.
2. ``lock`` guards the protocol, the unsent bytes and the set of observed. Nobody blocks while holding it: sends are
   never blocking. No code of the user's runs under it, nor under ``_leading``.
3. A follower is registered before it looks at the lead for the last time, and a leader looks at the followers after
   it has given up the lead: so the lead is never free while somebody sleeps.
4. While bytes are unsent, whoever leads waits for both directions, so that a daemon that is blocked writing to us
   cannot block us. If a submit leaves some behind, or is far ahead of the daemon, or somebody relies on delivery
   without waiting here (``deliver_in_background``), a background thread waits in their place until that is over.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, Self, TypeVar

from poolmgr.client import commands
from poolmgr.client.dial import dial
from poolmgr.client.outbox import Outbox
from poolmgr.client.pending import Pending
from poolmgr.client.protocol import Protocol, Settled, Submit
from poolmgr.errors import ConnectionLost, PoolError, Unavailable

T = TypeVar("T")

_READ_BYTES: Final = 256 * 1024
_LOOK_EVERY: Final = 256  # submits; so often what the daemon has answered is taken in by a program that never waits
_ALONE: Final = 1000  # unacknowledged submits that are left to the program's next call to see to
_UNSENT_LOOK_S: Final = 0.05  # how long a follower waits for the daemon to take more before it looks at the lead
_SENTINEL: Final = b"\xc1" + os.urandom(15)  # no message begins with 0xc1

# Links of this process, for what a fork must do to them.
_links: weakref.WeakSet[Link] = weakref.WeakSet()


class _Follower:
    """A thread that sleeps until ``settled()``, or until it may lead."""

    __slots__ = ("settled", "wake")

    def __init__(self, settled: Callable[[], bool]) -> None:
        self.settled = settled
        self.wake = threading.Lock()
        self.wake.acquire()


class Link:
    """One connection. Every method may be called from any thread.

    Attributes:
        protocol: its state; to be changed under ``lock`` only.
    """

    forgets_abandoned = True  # the ends of abandoned calls are not waited for

    def __init__(self, sock: socket.socket) -> None:
        self.protocol = Protocol()
        self.lock = threading.Lock()
        self._sock = sock
        self._fd = sock.fileno()
        self._leading = threading.Lock()
        self._followers: list[_Follower] = []
        self._outbox = Outbox(sock)
        self._observed: set[Pending[Any]] = set()
        self._background: threading.Thread | None = None
        self._abandoned: list[Pending[Any]] = []
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        _links.add(self)

    @classmethod
    def open(cls, path: str | None, timeout_s: float, name: str) -> Self:
        """Connect and be welcomed. Errors: those of ``dial``, and VersionMismatch, ProtocolError, Unavailable."""
        link = cls(dial(path, timeout_s))
        protocol = link.protocol
        try:
            link._transmit(protocol.hello, name)
            link.wait(lambda: protocol.welcome is not None or protocol.lost is not None, timeout_s)
            if protocol.lost is not None:
                raise protocol.lost
            if protocol.welcome is None:
                raise Unavailable(f"the daemon did not answer within {timeout_s:g} s")
        except BaseException:
            link.close(ConnectionLost("the connection was not made"))
            raise
        return link

    # --------------------------------------------------------------------------------------------------- sending

    def submit(self, pending: Pending[Any], name: str, payload: bytes, options: bytes | None) -> None:
        """Hand a task over. Waits only while the window of unacknowledged submits is full."""
        protocol = self.protocol
        if not protocol.room:
            self.wait(lambda: protocol.room)
        self._transmit(protocol.submit, pending, name, payload, options)
        if self._outbox.unsent or self._outbox.hung_up or not protocol.submitted % _LOOK_EVERY:
            self._see_off()

    def submit_all(self, batch: Sequence[Submit]) -> None:
        """Hand many tasks over in one send, and wait until it has left. A task that cannot be sent has its outcome."""
        protocol = self.protocol
        if not protocol.room:
            self.wait(lambda: protocol.room)
        self._transmit(protocol.submit_all, batch)
        if self._outbox.unsent:
            self.wait(lambda: not self._outbox.unsent)

    def ask(self, question: commands.Question[T], timeout_s: float | None) -> T:
        """Put a question and wait for its answer.

        Raises:
            PoolError: the daemon's refusal, or the connection broke; Unavailable after ``timeout_s``.
        """
        answer: Pending[Any] = Pending()
        self._transmit(self.protocol.request, answer, question.command, question.arguments)
        if not self.wait(lambda: answer.outcome is not None, timeout_s):
            raise Unavailable(f"the daemon did not answer {question.command!r} within {timeout_s:g} s")
        return question.read(answer.value())

    def watch(self, key: bytes, timeout_s: float | None) -> Pending[Any]:
        """Whoever will have the end of the task ``key``. Errors: those of ``ask``."""
        watcher: Pending[Any] = Pending(durable=True)
        with self.lock:
            found = self.protocol.watch(key, watcher)
        if found is watcher:
            try:
                self.ask(commands.watch(key), timeout_s)
            except PoolError as error:
                with self.lock:
                    settled = self.protocol.refuse(watcher, error)
                self._settle(settled)
                raise
        return found

    def abandon(self, calls: Iterable[Pending[Any]]) -> None:
        """Nobody waits for these calls any longer: cancel those that have not ended. Never blocks.

        Finalizers come here, in any thread and while that very thread holds ``lock``; then whoever sends next does it.
        """
        self._abandoned.extend(each for each in calls if each.outcome is None and each.key)
        if self._abandoned and self.lock.acquire(blocking=False):
            try:
                self._cancel_abandoned()
            finally:
                self.lock.release()
            if self._outbox.unsent:
                self._start_background()

    def _transmit(self, encode: Callable[..., bytes], *arguments: Any) -> None:
        try:
            with self.lock:
                self._outbox.send(encode(*arguments))
        except PoolError:
            raise
        except BaseException as error:
            self._interrupted(error)
            raise
        if self._abandoned:
            self.abandon(())

    def _flush(self) -> None:
        with self.lock:
            self._outbox.flush()

    def _cancel_abandoned(self) -> None:
        abandoned, self._abandoned = self._abandoned, []
        protocol = self.protocol
        if protocol.lost is None:
            if self.forgets_abandoned:
                protocol.forget(each.key for each in abandoned)
            questions = [commands.cancel(each.key, False) for each in abandoned]
            self._outbox.send(
                b"".join([protocol.request(Pending(), each.command, each.arguments) for each in questions])
            )

    def _see_off(self) -> None:
        """After a submit: take in what has come, and leave nothing behind that nobody would see to."""
        self.look()
        self._flush()
        if self._outbox.unsent or self.protocol.submitted - self.protocol.acknowledged > _ALONE:
            self._start_background()

    # --------------------------------------------------------------------------------------------------- waiting

    def wait(self, settled: Callable[[], bool], timeout: float | None = None) -> bool:
        """Until ``settled()``, or for ``timeout`` seconds; which of the two. Reads the socket if nobody does.

        ``settled`` must be true of a connection that is lost.
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
                    heard = self._read(deadline)
            finally:
                self._leading.release()
                if self._followers:
                    self._wake_followers(lead_is_free=True)
            if heard is None:
                return settled()
            for pending, _ in heard:
                pending.announce()
        return True

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
        follower = _Follower(settled)
        self._followers.append(follower)
        try:
            if settled():
                return True
            if self._leading.acquire(blocking=False):
                self._leading.release()
                return True
            follower.wake.acquire(timeout=remaining)
        except BaseException:
            self._wake_followers(lead_is_free=True)
            raise
        finally:
            with suppress(ValueError):
                self._followers.remove(follower)
        if settled() and self._followers and not self._leading.locked():
            self._wake_followers(lead_is_free=True)  # it was woken to lead, and has no need to any more
        return True

    def _wake_followers(self, *, lead_is_free: bool) -> None:
        for follower in tuple(self._followers):
            settled = follower.settled()
            if settled or lead_is_free:
                lead_is_free = lead_is_free and settled
                with suppress(ValueError):  # it has woken by itself
                    self._followers.remove(follower)
                    follower.wake.release()

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
        protocol = self.protocol
        if protocol.lost is not None:
            return True
        return not self._observed and not self._outbox.unsent and protocol.acknowledged == protocol.submitted

    # --------------------------------------------------------------------------------------------------- reading

    def _read(self, deadline: float | None) -> Settled | None:
        """Read once and take it in; None when nothing came before ``deadline``. ``_leading`` is held."""
        flags: int = socket.MSG_DONTWAIT
        if self._outbox.unsent:
            events = self._poll(select.POLLIN | select.POLLOUT, _remaining(deadline))
            if events & select.POLLOUT:
                self._flush()
            if not events & ~select.POLLOUT:
                return [] if events or deadline is None else None
        elif deadline is None:
            flags = 0
        elif not self._readable.poll(_remaining(deadline) * 1000):
            return None
        self._buffer[: len(_SENTINEL)] = _SENTINEL
        try:
            count = self._sock.recv_into(self._buffer, 0, flags)
        except BlockingIOError:
            return []
        except OSError as error:
            return self._lose(ConnectionLost(f"the connection to the daemon broke: {error.strerror or error}"))
        except BaseException as error:
            # A signal handler has raised (Ctrl-C). Usually while nothing had come; otherwise what came is gone.
            if self._buffer[: len(_SENTINEL)] != _SENTINEL:
                self._interrupted(error)
            raise
        if not count:
            return self._lose(self.protocol.ended())
        try:
            with self.lock:
                settled = self.protocol.receive(self._view[:count])
                if self.protocol.lost is not None:
                    self._hang_up()
        except BaseException as error:
            self._interrupted(error)
            raise
        return self._settle(settled)

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
            self._wake_followers(lead_is_free=False)
        return settled

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

    def _hang_up(self) -> None:
        self._outbox.unsent.clear()
        self._sock.close()

    def _interrupted(self, error: BaseException) -> None:
        """A signal handler has raised in the middle of a message: what the other side knows of us is unclear."""
        cause = ConnectionLost(f"the connection was given up: {type(error).__name__} interrupted it")
        for pending, _ in self._lose(cause):
            pending.announce()

    def _disown(self) -> None:
        """This is the child of a fork: the connection is the parent's, and its other threads are not here."""
        self.lock = threading.Lock()
        self._leading = threading.Lock()
        self._followers.clear()
        self._background = None
        self._sock.close()  # without shutdown, which would end it for the parent, too
        cause = ConnectionLost("this connection belongs to the process that forked this one")
        for pending, outcome in self.protocol.lose(cause):
            pending.outcome = outcome  # nobody here waits, and locks may have been held in the parent


def _remaining(deadline: float | None) -> float:
    """Seconds until ``deadline``, in a size that every waiting call takes: whoever waits looks again."""
    return 3600.0 if deadline is None else min(max(deadline - monotonic(), 0.0), 3600.0)


def _disown_all() -> None:
    for link in tuple(_links):
        link._disown()


os.register_at_fork(after_in_child=_disown_all)

"""The sync client's connection: what it sends over its ``SharedSocket``, and how it waits for the answers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self, TypeVar

from poolmgr.client import commands
from poolmgr.client.dial import Route, dial
from poolmgr.client.outgoing import Outgoing
from poolmgr.client.pending import Pending
from poolmgr.client.shared_socket import SharedSocket
from poolmgr.client.together import Submit
from poolmgr.errors import ConnectionLost, PoolError, Unavailable
from poolmgr.payload import Payload

T = TypeVar("T")

_LOOK_EVERY: Final = 256  # submits; so often what the daemon has answered is taken in by a program that never waits
_ALONE: Final = 1000  # unanswered submits that are left to the program's next call to see to


class Link(SharedSocket):
    """One connection of a client, and those that take its place. Any thread may call any method."""

    forgets_abandoned = True  # the ends of abandoned calls are not waited for

    def __init__(self, sock: socket.socket, route: Route | None = None) -> None:
        super().__init__(sock, route)
        self._abandoned: list[Pending[Any]] = []
        self._left: list[commands.Question[None]] = []

    @classmethod
    def open(cls, route: Route) -> Self:
        """Connect and be welcomed. Errors: those of ``dial``, and VersionMismatch, ProtocolError, Unavailable."""
        link = cls(dial(route.path, route.timeout_s), route)
        protocol = link.protocol
        try:
            link._transmit(protocol.hello, route.name)
            link.wait(lambda: protocol.welcome is not None or protocol.lost is not None, route.timeout_s)
            if protocol.lost is not None:
                raise protocol.lost
            if protocol.welcome is None:
                raise Unavailable(f"the daemon did not answer within {route.timeout_s:g} s")
        except BaseException:
            link.close(ConnectionLost("the connection was not made"))
            raise
        return link

    # --------------------------------------------------------------------------------------------------- sending

    def submit(
        self, pending: Pending[Any], name: str, payload: Payload, options: bytes | None, waited: bool = False
    ) -> None:
        """Hand a task over. Waits only while the window of unanswered submits is full, or the connection is down.
        ``waited``: it had to wait for room in the queue before (``get_room``)."""
        window = self.protocol.window
        if not window.room:
            self.wait(lambda: window.room)
        self._transmit(self.protocol.submit, pending, name, payload, options, waited)
        if self._outbox.unsent or self._outbox.hung_up or not window.submitted % _LOOK_EVERY:
            self._see_off()

    def submit_all(self, batch: Sequence[Submit], waited: bool = False) -> None:
        """Hand many tasks over in one send, and wait until it has left. A task that cannot be sent has its outcome."""
        window = self.protocol.window
        if not window.room:
            self.wait(lambda: window.room)
        self._transmit(self.protocol.submit_all, batch, waited)
        if self._outbox.unsent:
            self.wait(lambda: not self._outbox.unsent)

    def ask(self, question: commands.Question[T], timeout_s: float | None) -> T:
        """Put a question and wait for its answer.

        Raises:
            PoolError: the daemon's refusal, or the connection broke; Unavailable after ``timeout_s``.
        """
        if self.protocol.down is not None:
            self.reconnect()
        answer: Pending[Any] = Pending()
        self._transmit(self.protocol.request, answer, question.command, question.arguments)
        if not self.wait(lambda: answer.outcome is not None, timeout_s):
            raise Unavailable(f"the daemon did not answer {question.command!r} within {timeout_s:g} s")
        return question.read(answer.value())

    def put(self, question: commands.Question[T]) -> Pending[Any]:
        """Put a question, whose answer is to come. Errors: that there is no connection now."""
        answer: Pending[Any] = Pending()
        self._transmit(self.protocol.request, answer, question.command, question.arguments)
        return answer

    def get_room(self, question: commands.Question[int]) -> int:
        """Wait until the daemon says how many tasks it has room for.

        Raises:
            QueueFull: there was no room in time.
            PoolError: as ``ask``. Nothing was submitted.
        """
        if self.protocol.down is not None:
            self.reconnect()
        answer = self.put(question)
        try:
            self.wait(lambda: answer.outcome is not None)
        except BaseException:
            self.leave(commands.leave_room(answer.number))
            raise
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
        if (self._abandoned or self._left) and self.lock.acquire(blocking=False):
            try:
                self._cancel_abandoned()
            finally:
                self.lock.release()
            if self._outbox.unsent:
                self._start_background()

    def leave(self, word: commands.Question[None]) -> None:
        """Say something as one goes: nobody waits for its answer, nor does it matter where there is none. Never
        blocks, as ``abandon``."""
        self._left.append(word)
        self.abandon(())

    def _transmit(self, encode: Callable[..., Outgoing], *arguments: Any) -> None:
        try:
            with self.lock:
                self._outbox.send(encode(*arguments))
        except PoolError:
            raise
        except BaseException as error:
            self._interrupted(error)
            raise
        if self._abandoned or self._left:
            self.abandon(())

    def _cancel_abandoned(self) -> None:
        protocol = self.protocol
        if self.forgets_abandoned:
            protocol.forget(each.key for each in self._abandoned)
        if protocol.down is not None and protocol.lost is None:
            self._left = []
            return  # they are cancelled when it is made again
        abandoned, self._abandoned = self._abandoned, []
        left, self._left = self._left, []
        if protocol.lost is None:
            cancels: list[commands.Question[Any]] = [commands.cancel(each.key, False) for each in abandoned]
            questions = [*cancels, *left]
            self._outbox.send(
                b"".join([protocol.request(Pending(), each.command, each.arguments) for each in questions])
            )

    def _see_off(self) -> None:
        """After a submit: take in what has come, and leave nothing behind that nobody would see to."""
        self.look()
        self._flush()
        if self._outbox.unsent or self.protocol.window.unanswered > _ALONE:
            self._start_background()

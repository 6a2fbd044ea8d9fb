"""The async client's connection: the shared protocol on a transport of the event loop.

Everything happens in the loop's thread, so there is no lock; only ``abandon`` may come from elsewhere. What is
submitted within one turn of the loop leaves in one write. While the connection is down (see ``resume``) a task of the
loop dials again, whether or not anybody waits.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar

from poolmgr.client import commands
from poolmgr.client.awaited import Awaited
from poolmgr.client.dial import Route, dial
from poolmgr.client.outgoing import Outgoing
from poolmgr.client.pending import Pending
from poolmgr.client.protocol import Protocol, Settled
from poolmgr.client.resume import ended
from poolmgr.client.together import Submit
from poolmgr.errors import ConnectionLost, PoolError, Unavailable
from poolmgr.parcels.passing import FileMessage
from poolmgr.parcels.stream import Stream
from poolmgr.payload import Payload
from poolmgr.wire.framing import read_buffer
from poolmgr.wire.parts import Part

T = TypeVar("T")


class AsyncLink:
    """One connection of one event loop, made again when it breaks and durable tasks are on it.

    Args:
        route: how to connect again; None: not at all.

    Attributes:
        protocol: its state.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, route: Route | None = None) -> None:
        self.patience_s = 0.0 if route is None else route.reconnect_s  # for which a broken connection is made again
        self.protocol = Protocol(self.patience_s)
        self._route = route
        self._loop = loop
        self._pid = os.getpid()
        self._transport: Stream | None = None
        self._buffer = read_buffer()
        self._unsent: list[Part] = []
        # Waiters for the first n submits to be acknowledged, least n first; the middle number makes each comparable.
        self._acknowledgements: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waited = 0
        self._arrival: asyncio.Future[None] | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()  # whoever sleeps while the connection is down is to look again
        # Those who wait until it was dialled once more, to be told why in vain.
        self._attempts: list[asyncio.Future[PoolError | None]] = []

    @classmethod
    async def open(cls, route: Route) -> AsyncLink:
        """Connect and be welcomed. Errors: those of ``dial``, and VersionMismatch, ProtocolError, Unavailable."""
        # It may wait for a daemon that is slow to accept.
        sock = await asyncio.get_running_loop().run_in_executor(None, dial, route.path, route.timeout_s)
        return await cls.adopt(sock, route.timeout_s, route.name, route)

    @classmethod
    async def adopt(
        cls, sock: socket.socket, timeout_s: float | None, name: str, route: Route | None = None
    ) -> AsyncLink:
        """Take over a connected socket, and be welcomed. Errors: VersionMismatch, ProtocolError, Unavailable, and what
        the daemon says that does not come up."""
        link = cls(asyncio.get_running_loop(), route)
        link._use(sock)
        try:
            async with asyncio.timeout(timeout_s):
                link._write(link.protocol.hello(name))
                while link.protocol.welcome is None and link.protocol.lost is None:
                    await link.arrival()
            if link.protocol.lost is not None:
                raise link.protocol.lost
        except TimeoutError:
            link.close(ConnectionLost("the connection was not made"))
            raise Unavailable(f"the daemon did not answer within {timeout_s:g} s") from None
        except BaseException:
            link.close(ConnectionLost("the connection was not made"))
            raise
        return link

    def _use(self, sock: socket.socket) -> None:
        Stream(self._loop, sock, self, self._buffer)

    @property
    def usable(self) -> bool:
        """Whether it is of this process and the running loop, and up, or will perhaps be again."""
        return self.protocol.lost is None and self._pid == os.getpid() and self._loop is asyncio.get_running_loop()

    # --------------------------------------------------------------------------------------------------- sending

    def submit(
        self, pending: Pending[Any], name: str, payload: Payload, options: bytes | None, waited: bool = False
    ) -> None:
        """Hand a task over, at the end of this turn of the loop. ``waited``: see ``Link.submit``."""
        self._write(self.protocol.submit(pending, name, payload, options, waited))

    def submit_all(self, batch: Sequence[Submit], waited: bool = False) -> None:
        """Hand many tasks over. A task that cannot be sent has its outcome."""
        self._write(self.protocol.submit_all(batch, waited))

    async def ask(self, question: commands.Question[T], timeout_s: float | None) -> T:
        """Put a question and wait for its answer.

        Raises:
            PoolError: the daemon's refusal, or the connection broke; Unavailable after ``timeout_s``.
        """
        if self.protocol.down is not None:
            await self.reconnect()
        answer = self.put(question)
        try:
            async with asyncio.timeout(timeout_s):
                await answer.settled()
        except TimeoutError:
            raise Unavailable(f"the daemon did not answer {question.command!r} within {timeout_s:g} s") from None
        return question.read(answer.value())

    def put(self, question: commands.Question[T]) -> Awaited[Any]:
        """Put a question, whose answer is to come."""
        answer: Awaited[Any] = Awaited()
        self._write(self.protocol.request(answer, question.command, question.arguments))
        return answer

    async def watch(self, key: bytes, timeout_s: float | None) -> Awaited[Any]:
        """Whoever will have the end of the task ``key``. Errors: those of ``ask``."""
        watcher: Awaited[Any] = Awaited(durable=True)
        found = self.protocol.watch(key, watcher)
        if found is watcher:
            try:
                await self.ask(commands.watch(key), timeout_s)
            except PoolError as error:
                self._settle(self.protocol.refuse(watcher, error))
                raise
        assert isinstance(found, Awaited)  # all that this client sends is
        return found

    def leave(self, word: commands.Question[None]) -> None:
        """Say something as one goes: nobody waits for its answer, nor does it matter where there is no connection. From
        any thread."""

        def say() -> None:
            if self.protocol.down is None:
                self.put(word)

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(say)

    def abandon(self, calls: Iterable[Pending[Any]]) -> None:
        """Nobody waits for these calls any longer: cancel those that have not ended. From any thread."""
        left = [each for each in calls if each.outcome is None and each.key]
        if left and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel, left)

    def _cancel(self, calls: Iterable[Pending[Any]]) -> None:
        self.protocol.forget(each.key for each in calls)
        if self.protocol.down is not None:
            return
        for each in calls:
            question = commands.cancel(each.key, False)
            self._write(self.protocol.request(Pending(), question.command, question.arguments))

    def _write(self, message: Outgoing) -> None:
        if isinstance(message, list):
            for each in message:
                self._write(each)
        elif isinstance(message, FileMessage):
            self._flush()
            if self._transport is not None and not self._transport.is_closing():
                self._transport.write_file(message)
        else:
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(message)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(unsent)

    # --------------------------------------------------------------------------------------------------- waiting

    async def acknowledged(self, count: int) -> None:
        """Wait until the daemon has accepted or refused the first ``count`` submits, or the connection is lost."""
        if self.protocol.window.acknowledged < count and self.protocol.lost is None:
            waiter = self._loop.create_future()
            self._waited += 1
            heapq.heappush(self._acknowledgements, (count, self._waited, waiter))
            await waiter

    async def arrival(self) -> None:
        """Wait until something has come. For one waiter at a time."""
        self._arrival = self._loop.create_future()
        await self._arrival

    # --------------------------------------------------------------------------------------------------- reading

    def connection_made(self, transport: Stream) -> None:
        self._transport = transport
        if self.protocol.down is not None and self.protocol.lost is None:
            assert self._route is not None
            self._write(self.protocol.resume(self._route.name))

    def files_received(self, fds: list[int], lost: bool) -> None:
        self.protocol.files.came(fds, lost)

    def data_received(self, data: memoryview) -> None:
        self._settle(self.protocol.receive(data))
        if self.protocol.files.due and self.protocol.down is None and self._transport is not None:
            self._transport.take_files()
            self._write(self.protocol.request(*self.protocol.files.ask()))
        if self.protocol.rewatch.waiting and self.protocol.down is None:
            self._write(self.protocol.watch_more())
        if self.protocol.files.written and not self.protocol.unended:
            self.protocol.files.rest()

    def pause_writing(self) -> None:
        """What is unsent is bounded by the window of submits."""

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None:
        cause = ConnectionLost(f"the connection to the daemon broke: {exc}") if exc else ended()
        self._transport = None
        self._unsent.clear()
        self._settle(self.protocol.interrupt(cause))
        if self.protocol.lost is None and (self._resuming is None or self._resuming.done()):
            self._resuming = self._loop.create_task(self._resume())

    def close(self, reason: PoolError) -> None:
        """End the connection; what is owed fails. Safe to call twice."""
        if not self._loop.is_closed():
            self._flush()
            if self._transport is not None:
                self._transport.close()  # what is written still leaves
            self._settle(self.protocol.lose(reason, closed=True))
            self._stirred.set()

    # ----------------------------------------------------------------------------------------------- dialling again

    async def reconnect(self) -> None:
        """Have the connection made again now, whenever that is due. Raises: why it cannot be."""
        protocol = self.protocol
        while protocol.down is not None and protocol.lost is None:
            attempt: asyncio.Future[PoolError | None] = self._loop.create_future()
            self._attempts.append(attempt)
            self._stirred.set()
            if (error := await attempt) is not None:
                raise error
        if protocol.lost is not None:
            raise protocol.lost

    async def _resume(self) -> None:
        """Until the connection is made again, or lost."""
        protocol = self.protocol
        try:
            while protocol.down is not None and protocol.lost is None:
                if await self._is_due():
                    await self._dial_again()
        finally:
            if protocol.down is not None:  # this task was cancelled
                self._settle(protocol.lose(ConnectionLost(f"{protocol.down}, and was not made again")))
            self._tell_attempted(protocol.lost)

    async def _is_due(self) -> bool:
        """Whether to dial now. Sleeps until that may be."""
        assert self.protocol.outage is not None
        self._stirred.clear()
        pause = self.protocol.outage.due - monotonic()
        if pause <= 0 or self._attempts:
            return True
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stirred.wait()
        return False

    async def _dial_again(self) -> None:
        route, protocol = self._route, self.protocol
        assert route is not None
        try:
            sock = await self._loop.run_in_executor(None, dial, route.path, route.timeout_s)
            if protocol.lost is None:
                self._use(sock)
            else:
                sock.close()
        except PoolError as error:
            self._settle(protocol.unreachable(error))
            self._tell_attempted(error)
        else:
            self._tell_attempted(None)

    def _tell_attempted(self, error: PoolError | None) -> None:
        waiters, self._attempts = self._attempts, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(error)

    def _settle(self, settled: Settled) -> None:
        for pending, outcome in settled:
            pending.settle(outcome)
        lost = self.protocol.lost is not None
        waiters = self._acknowledgements
        while waiters and (lost or waiters[0][0] <= self.protocol.window.acknowledged):
            _wake(heapq.heappop(waiters)[2])
        if self._arrival is not None:
            _wake(self._arrival)
            self._arrival = None
        if self.protocol.down is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.abort()


async def get_room(link: AsyncLink, question: commands.Question[int]) -> int:
    """Wait until the daemon says how many tasks it has room for. Errors: those of ``Link.get_room``."""
    if link.protocol.down is not None:
        await link.reconnect()
    answer = link.put(question)
    try:
        await answer.settled()
    except BaseException:
        link.leave(commands.leave_room(answer.number))
        raise
    return question.read(answer.value())


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

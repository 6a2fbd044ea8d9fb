"""What the async client's ``map`` and ``events`` return."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from poolmgr.client import commands
from poolmgr.client.aio_link import AsyncLink
from poolmgr.client.awaited import Awaited
from poolmgr.client.batches import Batches
from poolmgr.client.pending import Pending
from poolmgr.errors import ConnectionLost
from poolmgr.model import Event

R = TypeVar("R")


class AsyncMapResults(AsyncIterator[R]):
    """The results of ``map``, in the order of its inputs. Nothing is sent before the first is asked for.

    Ends with the first failure. ``aclose``, or letting go of it, cancels the calls that were not taken.
    """

    def __init__(self, live: Callable[[], Awaitable[AsyncLink]], batches: Batches[R], timeout: float | None) -> None:
        self._live = live
        self._link: AsyncLink | None = None
        self._batches = batches
        self._timeout = timeout
        self._deadline: float | None = None

    async def __anext__(self) -> R:
        batches, link = self._batches, self._link
        if link is None or (not batches.waiting and batches.left != 0):
            link = await self._connect()  # it may have been lost with nothing on it
        try:
            if batches.next_is_there:
                return batches.take()
            sent = batches.send(link)
            while not (batches.waiting and batches.waiting[0].outcome is not None):
                if not batches.waiting and batches.is_read:
                    raise StopAsyncIteration
                if sent:
                    await asyncio.sleep(0)  # the loop writes it, and takes in what has come
                else:
                    async with asyncio.timeout_at(self._deadline):
                        await self._come(link)
                sent = batches.send(link)
            return batches.take()
        except BaseException:
            await self.aclose()
            raise

    async def _come(self, link: AsyncLink) -> None:
        """The next result has come, or room for more."""
        batches = self._batches
        if batches.asked is None and batches.wants_room:
            await link.reconnect()  # it is to be asked for when there is a connection again
            return
        head = batches.waiting[0] if batches.waiting else None
        awaited = [each for each in (head, batches.asked) if each is not None]
        if len(awaited) == 1:
            await _settled(awaited[0])
            return
        tasks = [asyncio.ensure_future(_settled(each)) for each in awaited]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def aclose(self) -> None:
        """Cancel what was not taken. Nothing more comes. Safe to call twice."""
        self._abandon()

    def __len__(self) -> int:
        left = self._batches.left
        if left is None:
            raise TypeError("an input of this map has no length")
        return left

    def __bool__(self) -> bool:
        return True

    def __del__(self) -> None:
        if hasattr(self, "_deadline"):
            self._abandon()

    def _abandon(self) -> None:
        left, asked = self._batches.end(), self._batches.leave()
        if self._link is not None:
            self._link.abandon(left)
            if asked is not None:
                self._link.leave(commands.leave_room(asked.number))

    async def _connect(self) -> AsyncLink:
        if self._timeout is not None and self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout
        self._link = await self._live()
        return self._link


async def _settled(pending: Pending[Any]) -> None:
    assert isinstance(pending, Awaited)  # all that this client sends is
    await pending.settled()


class AsyncEventStream(AsyncIterator[Event]):
    """Events as they happen, on a connection of their own, from the first that is asked for (or ``async with``).

    Iteration ends after ``close``, and raises ``ConnectionLost`` when the daemon goes.
    """

    def __init__(self, another: Callable[[], Awaitable[AsyncLink]], names: tuple[str, ...], timeout_s: float) -> None:
        self._another = another
        self._names = frozenset(names)
        self._timeout_s = timeout_s
        self._link: AsyncLink | None = None
        self._closed = False

    async def __anext__(self) -> Event:
        if self._closed:
            raise StopAsyncIteration
        link = self._link or await self._begin()
        protocol = link.protocol
        while True:
            while protocol.events:
                event = protocol.events.popleft()
                if not self._names or event.name in self._names:
                    return event
            if self._closed:
                raise StopAsyncIteration
            if protocol.lost is not None:
                raise protocol.lost
            await link.arrival()

    def close(self) -> None:
        """End it. Safe to call twice."""
        self._closed = True
        if self._link is not None:
            self._link.close(ConnectionLost("the events were closed"))

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    async def _begin(self) -> AsyncLink:
        if self._link is None:
            self._link = await self._another()
            await self._link.ask(commands.EVENTS, self._timeout_s)
        return self._link

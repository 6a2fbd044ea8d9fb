"""What the async client's ``map`` and ``events`` return."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

from poolmgr.client import commands
from poolmgr.client.aio_link import AsyncLink
from poolmgr.client.awaited import Awaited
from poolmgr.client.batches import Batches
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
        protocol = link.protocol
        if protocol.down is None and (batch := batches.next_batch(protocol.files)):
            link.submit_all(batch)
        if not batches.waiting:
            raise StopAsyncIteration
        head = batches.waiting[0]
        try:
            while head.outcome is None and protocol.down is None and (batch := batches.next_batch(protocol.files)):
                link.submit_all(batch)
                await asyncio.sleep(0)  # the loop writes it, and takes in what has come
            if head.outcome is None:
                assert isinstance(head, Awaited)
                async with asyncio.timeout_at(self._deadline):
                    await head.settled()
            return batches.take()
        except BaseException:
            await self.aclose()
            raise

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
        left = self._batches.end()
        if self._link is not None:
            self._link.abandon(left)

    async def _connect(self) -> AsyncLink:
        if self._timeout is not None and self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._timeout
        self._link = await self._live()
        return self._link


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

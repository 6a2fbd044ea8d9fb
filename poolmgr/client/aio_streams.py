"""What the async client's ``stream`` and ``chunks`` return."""

# ruff: noqa: ASYNC109  -- the methods have the signatures of the sync client, time-outs included
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

from poolmgr.client.aio_link import AsyncLink
from poolmgr.client.awaited import Awaited
from poolmgr.client.reading import FIRST_PAUSE_S, LONGEST_PAUSE_S, Reading, given_up
from poolmgr.errors import ConnectionLost, NotFound, PoolError, Unavailable

R = TypeVar("R")

Begun = tuple[AsyncLink, Awaited[Any]]


class AsyncChunkStream(AsyncIterator[R]):
    """The chunks of a task's stream, for ``async for``; see ``ChunkStream``. It begins with the first that is asked for
    (or ``async with``)."""

    def __init__(
        self,
        begin: Callable[[], Awaitable[Begun]],
        live: Callable[[], Awaitable[AsyncLink]] | None,
        key: bytes,
        offset: int,
        *,
        is_call: bool,
        timeout_s: float | None = None,
    ) -> None:
        self._begin = begin
        self._live = live
        self._key = key
        self._offset = offset
        self._is_call = is_call
        self._timeout_s = timeout_s
        self._closed = False
        self._link: AsyncLink
        self._reading: Reading[R] | None = None

    @property
    def id(self) -> str:
        """The task's id, 32 hex digits; '' before it is submitted."""
        return (self._key if self._reading is None else self._reading.key).hex()

    @property
    def offset(self) -> int:
        """The number of the next chunk: with it ``AsyncClient.chunks`` goes on from here."""
        return self._offset if self._reading is None else self._reading.offset

    async def result(self, timeout: float | None = None) -> Any:
        """What the task has returned, once it has ended; see ``ChunkStream.result``."""
        end = (await self._begun()).end
        assert isinstance(end, Awaited)
        if self._closed and self._is_call and end.outcome is None:
            raise given_up(self.id)
        async with asyncio.timeout(timeout):
            await end.settled()
        return end.value()

    async def _begun(self) -> Reading[R]:
        if self._reading is None:
            self._link, end = await self._begin()
            self._reading = Reading(end, self._key or end.key, self._offset)
            self._link.protocol.readings.add(self._reading)
        return self._reading

    async def __anext__(self) -> R:
        reading = await self._begun()
        while self._closed or not reading.has_chunk:
            if self._closed or reading.was_told:
                raise StopAsyncIteration
            if reading.is_over:
                await self._tell_outcome(reading)
                raise StopAsyncIteration
            await self._pull(reading)
        return reading.take()

    async def _pull(self, reading: Reading[R]) -> None:
        try:
            if reading.asked is None:
                if self._link.protocol.down is not None:
                    await self._link.reconnect()
                reading.asked = self._link.put(reading.question())
            asked = reading.asked
            assert isinstance(asked, Awaited)
            await asked.settled()
            if reading.asked is asked:  # else somebody else who waits for it was faster
                reading.came()
        except NotFound as error:
            await self._look_elsewhere(reading, error)
        except Unavailable as error:
            if not reading.goes_on(error):
                raise _outcome(reading) or error from None
            await self._connect(reading, error)

    async def _look_elsewhere(self, reading: Reading[R], error: NotFound) -> None:
        """The daemon does not know the task by this id. What has become of its submit is on its way."""
        if reading.end.outcome is None:
            await self._link.acknowledged(reading.end.number)
        if not reading.is_elsewhere():
            if not reading.is_empty(error):
                raise _outcome(reading) or error from None
            reading.is_over = True

    async def _tell_outcome(self, reading: Reading[R]) -> None:
        assert isinstance(reading.end, Awaited)
        await reading.end.settled()
        reading.was_told = True
        self._link.protocol.readings.discard(reading)
        if (error := reading.end.error()) is not None:
            raise error

    async def _connect(self, reading: Reading[R], why: PoolError) -> None:
        """Have a connection again, for as long as that is tried."""
        began, pause = monotonic(), FIRST_PAUSE_S
        while True:
            protocol = self._link.protocol
            if protocol.down is None:
                return
            if protocol.lost is not None and (self._live is None or monotonic() - began > self._link.patience_s):
                raise _outcome(reading) or why
            try:
                if protocol.lost is None:
                    await self._link.reconnect()
                elif self._live is not None:
                    await self._on_another(reading, await self._live())
                return
            except Unavailable as error:
                why = error
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _on_another(self, reading: Reading[R], link: AsyncLink) -> None:
        self._link.protocol.readings.discard(reading)
        self._link = link
        link.protocol.readings.add(reading)
        if reading.end.outcome is None or isinstance(reading.end.outcome, ConnectionLost):
            reading.end = await link.watch(reading.key, self._timeout_s)

    async def aclose(self) -> None:
        """Read no more. Safe to call twice."""
        self._leave()

    def _leave(self) -> None:
        reading = self._reading
        if self._closed:
            return
        self._closed = True
        if reading is not None:
            self._link.protocol.readings.discard(reading)
        if reading is not None and not reading.is_over:
            if self._is_call:
                self._link.abandon((reading.end,))
            self._link.leave(reading.detachment())

    async def __aenter__(self) -> Self:
        await self._begun()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if hasattr(self, "_reading"):
            self._leave()


def _outcome(reading: Reading[Any]) -> BaseException | None:
    """The error that the task has ended with, if any."""
    return reading.end.error() if reading.end.outcome is not None else None

"""The future of a task that the async client submitted: the sync one's methods, with ``await``."""

# ruff: noqa: ASYNC109  -- the methods have the signatures of the sync client, time-outs included
from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from poolmgr.client import commands
from poolmgr.client.aio_link import AsyncLink
from poolmgr.client.aio_streams import AsyncChunkStream, Begun
from poolmgr.client.awaited import Awaited
from poolmgr.client.pending import error_of, is_cancelled
from poolmgr.errors import NotFound, PoolError
from poolmgr.wire.messages import REFUSED

R = TypeVar("R")


class AsyncTaskFuture(Awaited[R]):
    """A task that was handed over. ``await future`` gives its result; cancelling that wait leaves the task alone."""

    __slots__ = ("_link", "_progress")

    def __init__(self, link: AsyncLink, durable: bool) -> None:
        super().__init__(durable)
        self._link = link
        self._progress: tuple[float, str] | None = None

    @property
    def progress(self) -> tuple[float, str] | None:
        """What the handler last reported: the fraction done (0..1) and a message. None: nothing so far."""
        return self._progress

    def done(self) -> bool:
        return self.outcome is not None

    def cancelled(self) -> bool:
        return is_cancelled(self.outcome)

    async def accepted(self, timeout: float | None = None) -> None:
        """Return when the daemon has acknowledged the task: from then on a durable one is not lost.

        Raises:
            PoolError: it refused the task; or the connection was lost before it answered, and not made again.
            TimeoutError: it did not answer within ``timeout`` seconds.
        """
        if self.outcome is None:
            async with asyncio.timeout(timeout):
                await self._link.acknowledged(self.number)
        outcome = self.outcome
        if isinstance(outcome, BaseException):
            if self.number > self._link.protocol.window.acknowledged:
                raise outcome
        elif outcome is not None and outcome[0] == REFUSED:
            raise error_of(outcome, self.id)

    async def result(self, timeout: float | None = None) -> R:
        """The same as ``await``, for at most ``timeout`` seconds (TimeoutError; the task goes on)."""
        async with asyncio.timeout(timeout):
            await self.settled()
        return self.value()

    async def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error that ``await`` raises, or None. TaskCancelled is raised, not returned."""
        try:
            await self.result(timeout)
        except PoolError as error:
            if self.cancelled():
                raise
            return error
        return None

    def __aiter__(self) -> AsyncChunkStream[Any]:
        """The chunks that the task yields, from its first one; see ``AsyncClient.chunks``."""

        async def begin() -> Begun:
            return self._link, self

        return AsyncChunkStream(begin, None, self.first or self.key, 0, is_call=False)

    async def cancel(self) -> bool:
        """Cancel the task, in one round trip. True only if it never began, or is known to have ended cancelled."""
        if self.outcome is not None:
            return is_cancelled(self.outcome)
        try:
            never_began = await self._link.ask(commands.cancel(self.first or self.key, False), None)
        except NotFound:
            return is_cancelled(self.outcome)  # it has ended, and the daemon has already forgotten it
        if never_began:
            await self.settled()  # its end is on its way, behind the answer
        return never_began

    def progressed(self, fraction: float, message: str) -> None:
        self._progress = (fraction, message)

    def __repr__(self) -> str:
        return f"<AsyncTaskFuture {self.id} {'done' if self.done() else 'pending'}>"

"""What hands over work for the async client, and the connection that it does so by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from typing import Any, ParamSpec, TypeVar, overload

from poolmgr.client import commands
from poolmgr.client.aio_future import AsyncTaskFuture
from poolmgr.client.aio_link import AsyncLink, get_room
from poolmgr.client.aio_results import AsyncMapResults
from poolmgr.client.aio_streams import AsyncChunkStream, Begun
from poolmgr.client.awaited import Awaited
from poolmgr.client.batches import CHUNK, Batches
from poolmgr.client.calling import Options, handler_name
from poolmgr.client.dial import Route
from poolmgr.client.outgoing import packed
from poolmgr.errors import ConnectionLost, UsageError, WrongState
from poolmgr.schedule import ScheduleInfo, Timing
from poolmgr.wire.values import pack_call

P = ParamSpec("P")
R = TypeVar("R")


class AsyncRedial:
    """Gives the live link: one that is down is connected again, in the place of one that is lost, or of another process
    or event loop, there is another."""

    def __init__(self, route: Route) -> None:
        self.timeout_s = route.timeout_s
        self.link: AsyncLink | None = None
        self.closed = False
        self._route = route
        self._dialling: asyncio.Task[AsyncLink] | None = None

    async def live(self) -> AsyncLink:
        """Errors: those of ``AsyncLink.open``, and WrongState once it is closed."""
        if self.link is not None and self.link.usable:
            if self.link.protocol.down is not None:
                await self.link.reconnect()
            return self.link
        if self._dialling is None or self._dialling.done():
            self._dialling = asyncio.create_task(self.another())
        link = await asyncio.shield(self._dialling)  # whoever waits for it, too, must not see it cancelled
        if self.closed:
            link.close(ConnectionLost("this client was closed"))
        self.link = link
        return link

    def ready(self) -> AsyncLink:
        """The live link, at once.

        Raises:
            ConnectionLost: there is none.
        """
        if self.link is not None and self.link.usable and self.link.protocol.down is None:
            return self.link
        if self.link is not None and self.link.protocol.down is not None:
            raise ConnectionLost(
                f"{self.link.protocol.down}; `await client.connect()`, or any awaited call, connects again"
            )
        raise ConnectionLost("not connected: use `async with AsyncClient()`, or `await client.connect()`")

    async def another(self) -> AsyncLink:
        """A connection beside the live one; whoever takes it closes it."""
        if self.closed:
            raise WrongState("this client is closed")
        return await AsyncLink.open(self._route)


class AsyncCaller:
    """What hands over work, with certain options: a client, or a view of it that ``using`` made."""

    def __init__(self, redial: AsyncRedial, options: Options) -> None:
        self._redial = redial
        self._options = options

    def using(self, **options: Any) -> AsyncCaller:
        """The same client, whose work has these task options. BadOption: as ``Client.using``."""
        return AsyncCaller(self._redial, self._options.merged(options))

    @overload
    def submit(
        self, handler: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncTaskFuture[R]: ...
    @overload
    def submit(self, handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> AsyncTaskFuture[R]: ...
    @overload
    def submit(self, handler: str, /, *args: Any, **kwargs: Any) -> AsyncTaskFuture[Any]: ...
    def submit(self, handler: Any, /, *args: Any, **kwargs: Any) -> AsyncTaskFuture[Any]:
        """Hand a task over; see ``Client.submit``. Not a coroutine: it never waits.

        So a program that submits faster than the daemon accepts should ``await flush()`` now and then, or use
        ``submit_when_room``.

        Raises:
            ConnectionLost: there is no connection now; any awaited call makes one.
            UsageError: it is to wait for room (``using(block=True)``), which it cannot.
        """
        link, options = self._redial.ready(), self._options
        if options.block:
            raise UsageError("submit cannot wait, as block=True says: use `await client.submit_when_room(...)`")
        future: AsyncTaskFuture[Any] = AsyncTaskFuture(link, options.submits_durable)
        link.submit(future, handler_name(handler), packed(args, kwargs, link.protocol.files), options.for_submit)
        return future

    @overload
    async def submit_when_room(
        self, handler: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncTaskFuture[R]: ...
    @overload
    async def submit_when_room(
        self, handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncTaskFuture[R]: ...
    @overload
    async def submit_when_room(self, handler: str, /, *args: Any, **kwargs: Any) -> AsyncTaskFuture[Any]: ...
    async def submit_when_room(self, handler: Any, /, *args: Any, **kwargs: Any) -> AsyncTaskFuture[Any]:
        """``submit``, once the daemon's queue has room; what ``submit`` of a ``Client`` does with ``block=True``.

        Cancelled, it has submitted nothing.

        Raises:
            QueueFull: there was no room within ``using(block_timeout_s=)``.
        """
        link, options, name = await self._redial.live(), self._options, handler_name(handler)
        payload = packed(args, kwargs, link.protocol.files)
        await get_room(link, commands.room(name, 1, options.for_submit, options.block_timeout_s))
        future: AsyncTaskFuture[Any] = AsyncTaskFuture(link, options.submits_durable)
        link.submit(future, name, payload, options.for_submit, True)
        return future

    @overload
    async def schedule(
        self, id: str, timing: Timing, handler: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> ScheduleInfo: ...
    @overload
    async def schedule(self, id: str, timing: Timing, handler: str, /, *args: Any, **kwargs: Any) -> ScheduleInfo: ...
    async def schedule(self, id: str, timing: Timing, handler: Any, /, *args: Any, **kwargs: Any) -> ScheduleInfo:
        """Have a handler called with these arguments again and again; see ``Client.schedule``."""
        name, payload = handler_name(handler), pack_call(args, kwargs)
        question = commands.schedule(id, timing, name, payload, self._options.for_submit)
        return await (await self._redial.live()).ask(question, self._redial.timeout_s)

    @overload
    async def run(self, handler: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run(self, handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run(self, handler: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def run(self, handler: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a handler and wait for its result; see ``Client.run``.

        Cancelling the wait cancels the call, unless it has begun.
        """
        link, options, name = await self._redial.live(), self._options, handler_name(handler)
        call: Awaited[Any] = Awaited(options.calls_durable)
        payload = packed(args, kwargs, link.protocol.files)
        if options.block:
            await get_room(link, commands.room(name, 1, options.for_call, options.block_timeout_s))
        link.submit(call, name, payload, options.for_call, options.block)
        try:
            return await call
        except asyncio.CancelledError:
            link.abandon((call,))
            raise

    @overload
    def stream(
        self, handler: Callable[P, Generator[R, Any, Any]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncChunkStream[R]: ...
    @overload
    def stream(
        self, handler: Callable[P, AsyncGenerator[R, Any]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncChunkStream[R]: ...
    @overload
    def stream(self, handler: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> AsyncChunkStream[Any]: ...
    def stream(self, handler: Any, /, *args: Any, **kwargs: Any) -> AsyncChunkStream[Any]:
        """Call a handler that is a generator, and iterate over what it yields (``async for``); see ``Client.stream``.

        It is called when the first chunk is asked for.
        """
        options, redial = self._options, self._redial

        async def begin() -> Begun:
            link = await redial.live()
            end: Awaited[Any] = Awaited(options.calls_durable)
            name, payload = handler_name(handler), packed(args, kwargs, link.protocol.files)
            if options.block:
                await get_room(link, commands.room(name, 1, options.for_call, options.block_timeout_s))
            link.submit(end, name, payload, options.for_call, options.block)
            return link, end

        is_call = not options.calls_durable
        return AsyncChunkStream(begin, redial.live, b"", 0, is_call=is_call, timeout_s=redial.timeout_s)

    @overload
    def map(
        self,
        handler: Callable[..., Coroutine[Any, Any, R]],
        /,
        *inputs: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = CHUNK,
    ) -> AsyncMapResults[R]: ...
    @overload
    def map(
        self,
        handler: Callable[..., R],
        /,
        *inputs: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = CHUNK,
    ) -> AsyncMapResults[R]: ...
    @overload
    def map(
        self, handler: str, /, *inputs: Iterable[Any], timeout: float | None = None, chunksize: int = CHUNK
    ) -> AsyncMapResults[Any]: ...
    def map(
        self, handler: Any, /, *inputs: Iterable[Any], timeout: float | None = None, chunksize: int = CHUNK
    ) -> AsyncMapResults[Any]:
        """An async iterator over the results, in order; see ``Client.map``. ``timeout`` counts from the first."""
        options = self._options
        durable = options.calls_durable
        batches: Batches[Any] = Batches(inputs, handler_name(handler), options, chunksize, lambda: Awaited(durable))
        return AsyncMapResults(self._redial.live, batches, timeout)

    def chunks(self, task_id: str, offset: int = 0) -> AsyncChunkStream[Any]:
        """The stream of a task that anybody has submitted, from the chunk of this number on; see ``Client.chunks``."""
        key, redial = commands.key_of(task_id), self._redial

        async def begin() -> Begun:
            link = await redial.live()
            return link, await link.watch(key, redial.timeout_s)

        return AsyncChunkStream(begin, redial.live, key, offset, is_call=False, timeout_s=redial.timeout_s)

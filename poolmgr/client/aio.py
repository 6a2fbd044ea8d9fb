"""The async client: the sync one's methods, with ``await``. See ``protocol`` and ``aio_link`` for how it works."""

# ruff: noqa: ASYNC109  -- the methods have the signatures of the sync client, time-outs included
from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from poolmgr.client import commands
from poolmgr.client.aio_future import AsyncTaskFuture
from poolmgr.client.aio_link import AsyncLink, get_room
from poolmgr.client.aio_results import AsyncEventStream, AsyncMapResults
from poolmgr.client.aio_streams import AsyncChunkStream, Begun
from poolmgr.client.awaited import Awaited
from poolmgr.client.batches import CHUNK, Batches
from poolmgr.client.breakers import AsyncBreakers
from poolmgr.client.calling import Options, handler_name
from poolmgr.client.dial import Route
from poolmgr.client.outgoing import packed
from poolmgr.client.preempting import AsyncPreempting
from poolmgr.client.resume import RECONNECT_S, unacknowledged
from poolmgr.client.schedules import AsyncSchedules
from poolmgr.errors import ConnectionLost, UsageError, WrongState
from poolmgr.model import TaskInfo, WorkerInfo
from poolmgr.schedule import ScheduleInfo, Timing
from poolmgr.wire.values import pack_call

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


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


class AsyncClient(AsyncCaller, AsyncBreakers, AsyncSchedules, AsyncPreempting):
    """A connection to the daemon, for one event loop. ``async with`` connects, and flushes and closes at the end.

    Without ``async with`` the first awaited call connects. See ``Client`` for the arguments, the errors, and what
    becomes of work when the connection breaks; it is made again whether or not anybody waits.
    """

    def __init__(
        self,
        socket: str | None = None,
        *,
        timeout_s: float = 30.0,
        name: str = "",
        reconnect_s: float = RECONNECT_S,
    ) -> None:
        super().__init__(AsyncRedial(Route(socket, timeout_s, name, reconnect_s)), Options({}))

    async def connect(self) -> Self:
        """Connect now. Errors: those of ``Client``."""
        await self._redial.live()
        return self

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until the daemon has acknowledged or refused every task submitted so far; see ``Client.flush``."""
        link = self._redial.link
        if link is None:
            return
        protocol, count = link.protocol, link.protocol.window.submitted
        async with asyncio.timeout(timeout):
            await link.acknowledged(count)
        if (left := count - protocol.window.acknowledged) > 0:
            raise unacknowledged(left, protocol.lost)

    async def close(self) -> None:
        """End the connection: calls are cancelled, durable tasks that were acknowledged go on. Safe to call twice."""
        self._redial.closed = True
        if self._redial.link is not None:
            self._redial.link.close(ConnectionLost("this client was closed"))

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if error is None and not self._redial.closed:
                await self.flush()
        finally:
            await self.close()

    # -------------------------------------------------------------------------------------------------- tasks

    async def result(self, task_id: str, timeout: float | None = None) -> Any:
        """The result of a task, also of one that another process submitted; see ``Client.result``."""
        link = await self._redial.live()
        found = await link.watch(commands.key_of(task_id), self._redial.timeout_s)
        async with asyncio.timeout(timeout):
            await found.settled()
        return found.value()

    async def task(self, task_id: str) -> TaskInfo:
        """What is known of a task, with its failed attempts. NotFound: nothing."""
        return await self._ask(commands.task(task_id))

    async def tasks(
        self, *, state: str | None = None, name: str | None = None, limit: int = 100, before: str | None = None
    ) -> list[TaskInfo]:
        """Tasks, newest first; ``before`` an id, to see the next older ones."""
        return await self._ask(commands.tasks(state, name, limit, before))

    async def cancel(self, task_id: str, kill: bool = False) -> bool:
        """Cancel a task. True: it never began. One that runs is told (``current_task().cancelled``), and may go on;
        ``kill`` ends it, and True then means that too."""
        return await self._ask(commands.cancel(commands.key_of(task_id), kill))

    async def dead_letters(
        self, limit: int = 100, *, name: str | None = None, cause: str | None = None, older_than_s: float | None = None
    ) -> list[TaskInfo]:
        """The tasks that used up their failures, newest first: all, or those of a name, that ended by a cause (a code
        of errors.py, such as ``timeout``), or that ended longer ago than so many seconds."""
        return await self._ask(commands.dead_letters(limit, commands.Which(name, cause, older_than_s)))

    async def requeue(
        self, *task_ids: str, name: str | None = None, cause: str | None = None, older_than_s: float | None = None
    ) -> dict[str, str]:
        """Submit dead tasks again: those named by id, or else those of ``dead_letters`` that were not requeued yet; all
        or none. The new id by the old one."""
        return await self._ask(commands.requeue(task_ids, commands.Which(name, cause, older_than_s)))

    async def purge(
        self, *task_ids: str, name: str | None = None, cause: str | None = None, older_than_s: float | None = None
    ) -> int:
        """Forget final tasks with their history: those named by id, or else those of ``dead_letters``; how many."""
        return await self._ask(commands.purge(task_ids, commands.Which(name, cause, older_than_s)))

    async def clear(self) -> int:
        """Cancel everything that has not begun; how many."""
        return await self._ask(commands.CLEAR)

    async def pause(self, name: str) -> None:
        """Start no task of this name until ``resume``."""
        await self._ask(commands.pause(name))

    async def resume(self, name: str) -> None:
        """End a ``pause``."""
        await self._ask(commands.resume(name))

    # ------------------------------------------------------------------------------------------------ workers

    async def workers(self) -> list[WorkerInfo]:
        """Every slot, and the process in it."""
        return await self._ask(commands.WORKERS)

    async def worker(self, worker_id: str) -> WorkerInfo:
        """One slot, such as ``worker-0``. NotFound: there is none."""
        return await self._ask(commands.worker(worker_id))

    async def start_worker(self, group: str | None = None) -> str:
        """Add a worker, to a group or to the rest of the pool; its id."""
        return await self._ask(commands.start_worker(group))

    async def stop_worker(self, worker_id: str) -> None:
        """Drain a worker and remove its slot."""
        await self._ask(commands.stop_worker(worker_id))

    async def scale(self, size: int | str, group: str | None = None) -> int:
        """Make the pool, or one group of it, so large, or change it by ``"+3"`` or ``"-3"``; the new size."""
        return await self._ask(commands.scale(size, group))

    # --------------------------------------------------------------------------------------------- the daemon

    async def status(self) -> dict[str, Any]:
        """Everything that ``poolmgr status --json`` shows."""
        return await self._ask(commands.STATUS)

    async def health(self) -> dict[str, Any]:
        """The verdict (healthy, degraded, critical), the capacity and the alerts."""
        return await self._ask(commands.HEALTH)

    async def metrics(self) -> dict[str, Any]:
        """Counters and gauges by name."""
        return await self._ask(commands.METRICS)

    async def config(self) -> dict[str, Any]:
        """The daemon's settings."""
        return await self._ask(commands.CONFIG)

    async def collect_garbage(self) -> dict[str, Any]:
        """Have the daemon and its idle workers collect garbage."""
        return await self._ask(commands.COLLECT_GARBAGE)

    async def reload(self) -> dict[str, Any]:
        """Load the app's code anew, and roll the workers over to it.

        Returns when all have it but those that are long busy: no time limit, as imports and startup hooks take what
        they take. The answer is that of ``poolmgr reload --json`` (docs/reference/cli.md).

        Raises:
            ReloadFailed, ConfigError: the new version is refused, and the old one goes on; the message says why.
            ShuttingDown: the daemon is.
        """
        return await (await self._redial.live()).ask(commands.RELOAD, None)

    async def stop(self, now: bool = False) -> None:
        """Stop the daemon: running tasks finish, unless ``now``; queued durable tasks stay."""
        await self._ask(commands.stop(now))

    def events(self, *names: str) -> AsyncEventStream:
        """An async iterator over events, all or those named, such as ``"task-completed"``."""
        return AsyncEventStream(self._redial.another, names, self._redial.timeout_s)

    async def _ask(self, question: commands.Question[T]) -> T:
        return await (await self._redial.live()).ask(question, self._redial.timeout_s)

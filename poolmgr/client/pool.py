"""``Pool``: a private daemon for an asyncio program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from inspect import isawaitable
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from poolmgr.client import commands
from poolmgr.client.aio_caller import AsyncCaller, AsyncRedial
from poolmgr.client.aio_link import AsyncLink
from poolmgr.client.awaited import Awaited
from poolmgr.client.breakers import AsyncBreakers
from poolmgr.client.calling import Options
from poolmgr.client.dial import Route
from poolmgr.client.private import PrivateDaemon
from poolmgr.errors import BadOption, ConnectionLost, WrongState
from poolmgr.model import Event, WorkerInfo

T = TypeVar("T")

_ANSWER_S: Final = 30.0  # how long the answer to a request may take


class _Line(AsyncRedial):
    """The one connection to a private daemon: when it is lost, so is the daemon."""

    def __init__(self) -> None:
        super().__init__(Route(None, _ANSWER_S, "pool", 0.0))

    async def live(self) -> AsyncLink:
        return self.ready()

    def ready(self) -> AsyncLink:
        if self.closed:
            raise WrongState("this pool was shut down")
        if self.link is None:
            raise ConnectionLost("this pool is not started: use `async with Pool(...)`, or `await pool.start()`")
        if self.link.protocol.lost is not None:
            raise ConnectionLost(f"this pool has gone: {self.link.protocol.lost}")
        if not self.link.usable:
            raise WrongState("this pool belongs to another event loop, or to the process that forked this one")
        return self.link


class Pool(AsyncCaller, AsyncBreakers):
    """Worker processes of this program's own, with the handlers of its app; they go when it goes.

    ``submit``, ``run``, ``map`` and ``using`` are those of ``AsyncClient``. Nothing is durable: what waits or runs when
    the pool ends is cancelled.

        async with Pool(size=20, app="myapp.tasks") as pool:
            print(await pool.submit(thumbnail, "a.png"))

    Args:
        size: how many workers.
        app: the module with the handlers, or several. They are found as this program finds its modules.
        settings: others of docs/reference/settings.md, by their names, such as ``task_timeout_s=60``.
    """

    def __init__(self, size: int = 20, *, app: str | Sequence[str] = (), **settings: Any) -> None:
        self._line = _Line()
        super().__init__(self._line, Options({"durable": False}))
        self._settings = {**settings, "pool_size": size, "app": [app] if isinstance(app, str) else [*app]}
        self._daemon: PrivateDaemon | None = None
        self._listeners: dict[str, list[Callable[[Event], Any]]] = {}
        self._hearing: asyncio.Task[None] | None = None
        self._reactions: set[asyncio.Task[Any]] = set()

    # --------------------------------------------------------------------------------------------------- life

    async def start(self) -> Self:
        """Start it; returns when all workers are ready. ``async with`` does it, too.

        Raises:
            AppError: the app cannot be imported; the message has the whole traceback.
            ConfigError: a setting is unknown or wrong.
            StartFailed: it did not come up, for the reason in the message.
            WrongState: it was started before.
        """
        if self._daemon is not None:
            raise WrongState("this pool was started before")
        daemon = self._daemon = PrivateDaemon(self._settings)
        try:
            self._line.link = await AsyncLink.adopt(daemon.sock, None, "pool")
        except BaseException:
            self._line.closed = True
            await asyncio.shield(asyncio.to_thread(daemon.end))
            raise
        if self._listeners:
            self._hear()
        return self

    async def shutdown(self, graceful: bool = True) -> None:
        """Take no more work, and end it. Safe to call twice.

        Args:
            graceful: all that was submitted may end first; else it is cancelled, and what runs is killed.
        """
        link, daemon = self._line.link, self._daemon
        self._line.closed = True
        if link is None or daemon is None:
            return
        try:
            for task in tuple(link.protocol.unended) if graceful else ():
                assert isinstance(task, Awaited)  # all that this connection sends is
                await task.settled()
            await asyncio.sleep(0)  # those who wait for these go first
        finally:
            link.close(ConnectionLost("the pool was shut down"))
            await asyncio.shield(asyncio.to_thread(daemon.end))

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.shutdown(graceful=error is None)

    # --------------------------------------------------------------------------------------------------- work

    def using(self, **options: Any) -> AsyncCaller:
        """The same pool, whose work has these options.

        Raises:
            BadOption: as ``Client.using``; also for ``durable=True``, because a private pool keeps nothing on disk.
        """
        if options.get("durable"):
            raise BadOption("a private pool keeps nothing on disk: hand durable work to a daemon, with AsyncClient")
        return super().using(**options)

    async def cancel(self, task_id: str, kill: bool = False) -> bool:
        """Cancel a task. True: it never began. ``kill`` also ends a running one, and True then means that too."""
        return await self._ask(commands.cancel(commands.key_of(task_id), kill))

    # ------------------------------------------------------------------------------------------------ workers

    async def workers(self) -> list[WorkerInfo]:
        """Every slot, and the process in it."""
        return await self._ask(commands.WORKERS)

    async def worker(self, worker_id: str) -> WorkerInfo:
        """One slot, such as ``worker-0``. NotFound: there is none."""
        return await self._ask(commands.worker(worker_id))

    async def scale_up(self, count: int) -> int:
        """Add so many workers; the new size. BadOption: it would exceed ``max_workers`` (50, or ``size``)."""
        return await self._ask(commands.scale(f"+{_whole(count)}"))

    async def scale_down(self, count: int) -> int:
        """Drain and remove so many workers; the new size. BadOption: fewer than ``min_workers`` would be left."""
        return await self._ask(commands.scale(f"-{_whole(count)}"))

    async def metrics(self) -> dict[str, Any]:
        """Counters and gauges by name."""
        return await self._ask(commands.METRICS)

    async def health(self) -> dict[str, Any]:
        """The verdict (healthy, degraded, critical), the capacity and the alerts."""
        return await self._ask(commands.HEALTH)

    # ------------------------------------------------------------------------------------------------- events

    def on(self, event: str, reaction: Callable[[Event], Any]) -> None:
        """Have ``reaction(event)`` called in the event loop for each event of that name, such as ``"task-completed"``.

        It may be async. What it raises goes to the loop's exception handler. May be called before the start.
        """
        self._listeners.setdefault(event, []).append(reaction)
        if self._hearing is None and self._line.link is not None:
            self._hear()

    def _hear(self) -> None:
        link = self._line.ready()
        link.put(commands.EVENTS)  # at once: what is submitted from now on is heard of
        self._hearing = asyncio.create_task(self._listen(link))

    async def _listen(self, link: AsyncLink) -> None:
        events = link.protocol.events
        while events or link.protocol.lost is None:
            while events:
                event = events.popleft()
                for reaction in self._listeners.get(event.name, ()):
                    self._react(reaction, event)
            if link.protocol.lost is None:
                await link.arrival()

    def _react(self, reaction: Callable[[Event], Any], event: Event) -> None:
        try:
            result = reaction(event)
        except Exception as error:
            _report(error, event)
            return
        if isawaitable(result):
            task = asyncio.ensure_future(result)
            self._reactions.add(task)
            task.add_done_callback(lambda done: self._reacted(done, event))

    def _reacted(self, task: asyncio.Task[Any], event: Event) -> None:
        self._reactions.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _report(error, event)

    async def _ask(self, question: commands.Question[T]) -> T:
        return await self._line.ready().ask(question, _ANSWER_S)


def _report(error: BaseException, event: Event) -> None:
    message = f"a reaction to the pool's event {event.name} has failed"
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})


def _whole(count: int) -> int:
    if count < 1:
        raise BadOption(f"the pool is scaled by a whole number of workers, at least 1, got {count!r}")
    return count

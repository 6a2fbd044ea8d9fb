"""The async client: the sync one's methods, with ``await``. See ``protocol`` and ``aio_link`` for how it works."""

# ruff: noqa: ASYNC109  -- the methods have the signatures of the sync client, time-outs included
from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self, TypeVar

from poolmgr.client import commands
from poolmgr.client.aio_caller import AsyncCaller, AsyncRedial
from poolmgr.client.aio_results import AsyncEventStream
from poolmgr.client.breakers import AsyncBreakers
from poolmgr.client.calling import Options
from poolmgr.client.dial import Route
from poolmgr.client.preempting import AsyncPreempting
from poolmgr.client.resume import RECONNECT_S, unacknowledged
from poolmgr.client.schedules import AsyncSchedules
from poolmgr.errors import ConnectionLost
from poolmgr.model import TaskInfo, WorkerInfo

T = TypeVar("T")


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

"""The sync client. It holds no protocol and no waiting of its own: see ``protocol`` and ``link``."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, TypeVar

from poolmgr.client import commands
from poolmgr.client.breakers import Breakers
from poolmgr.client.caller import Caller
from poolmgr.client.calling import Options
from poolmgr.client.dial import Route
from poolmgr.client.preempting import Preempting
from poolmgr.client.redial import Redial
from poolmgr.client.results import EventStream
from poolmgr.client.resume import RECONNECT_S, unacknowledged
from poolmgr.client.schedules import Schedules
from poolmgr.model import TaskInfo, WorkerInfo

T = TypeVar("T")


class Client(Caller, Breakers, Schedules, Preempting):
    """A connection to the daemon, for any number of threads. As a context manager it flushes, then closes.

    A connection that breaks is made again, while somebody waits for a durable task, and by the next call (which fails
    with ``NotRunning`` if no daemon is there). Durable tasks then go on: those that were not acknowledged are sent
    again, and the daemon has each once; the others are watched again. Calls under way have failed with ``TaskLost``,
    requests with ``ConnectionLost``. After a fork the child makes its own connection; the tasks are its parent's.

    Args:
        socket: the daemon's socket; by default $POOLMGR_SOCKET, else where a daemon answers.
        timeout_s: how long connecting, and the answer to a request, may take.
        name: shown to whoever looks at the daemon's clients.
        reconnect_s: for how long a broken connection is made again. Then durable tasks fail, too, with
            ``ConnectionLost``, whose message says what is safe. 0: at once.

    Raises:
        NotRunning: no daemon is there.
        NotAllowed: the socket or the daemon belongs to neither this user nor root.
        VersionMismatch: the daemon speaks another version of the protocol.
    """

    def __init__(
        self,
        socket: str | None = None,
        *,
        timeout_s: float = 30.0,
        name: str = "",
        reconnect_s: float = RECONNECT_S,
    ) -> None:
        super().__init__(Redial(Route(socket, timeout_s, name, reconnect_s)), Options({}))
        self._redial.live()

    def flush(self, timeout: float | None = None) -> None:
        """Wait until the daemon has acknowledged or refused every task submitted so far.

        While the connection is down it waits for another. Calls that went down with it are not waited for.

        Raises:
            ConnectionLost: the connection is lost; each future tells whether its task is safe.
            TimeoutError: it took longer than ``timeout`` seconds.
        """
        link = self._redial.current()
        if link is None:
            return
        protocol, window = link.protocol, link.protocol.window
        count = window.submitted
        link.wait(lambda: window.acknowledged >= count or protocol.lost is not None, timeout)
        left = count - window.acknowledged
        if left <= 0:
            return
        if protocol.lost is not None:
            raise unacknowledged(left, protocol.lost)
        raise TimeoutError(f"{left} tasks were not acknowledged within {timeout} s")

    def close(self) -> None:
        """End the connection: calls are cancelled, durable tasks that were acknowledged go on. Safe to call twice."""
        self._redial.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if error is None and not self._redial.closed:
                self.flush()
        finally:
            self.close()

    # -------------------------------------------------------------------------------------------------- tasks

    def result(self, task_id: str, timeout: float | None = None) -> Any:
        """The result of a task, also of one that another process submitted; waits for its end.

        Raises:
            NotFound: there is no such task, or its result is no longer kept.
            TaskFailed: it ended otherwise.
            TimeoutError: it has not ended within ``timeout`` seconds.
        """
        link = self._redial.live()
        found = link.watch(commands.key_of(task_id), self._redial.timeout_s)
        if not link.wait(lambda: found.outcome is not None, timeout):
            raise TimeoutError(f"task {task_id} has not ended within {timeout} s")
        return found.value()

    def task(self, task_id: str) -> TaskInfo:
        """What is known of a task, with its failed attempts. NotFound: nothing."""
        return self._ask(commands.task(task_id))

    def tasks(
        self, *, state: str | None = None, name: str | None = None, limit: int = 100, before: str | None = None
    ) -> list[TaskInfo]:
        """Tasks, newest first; ``before`` an id, to see the next older ones."""
        return self._ask(commands.tasks(state, name, limit, before))

    def cancel(self, task_id: str, kill: bool = False) -> bool:
        """Cancel a task. True: it never began. One that runs is told (``current_task().cancelled``), and may go on;
        ``kill`` ends it, and True then means that too."""
        return self._ask(commands.cancel(commands.key_of(task_id), kill))

    def dead_letters(
        self, limit: int = 100, *, name: str | None = None, cause: str | None = None, older_than_s: float | None = None
    ) -> list[TaskInfo]:
        """The tasks that used up their failures, newest first: all, or those of a name, that ended by a cause (a code
        of errors.py, such as ``timeout``), or that ended longer ago than so many seconds."""
        return self._ask(commands.dead_letters(limit, commands.Which(name, cause, older_than_s)))

    def requeue(
        self, *task_ids: str, name: str | None = None, cause: str | None = None, older_than_s: float | None = None
    ) -> dict[str, str]:
        """Submit dead tasks again: those named by id, or else those of ``dead_letters`` that were not requeued yet; all
        or none. The new id by the old one."""
        return self._ask(commands.requeue(task_ids, commands.Which(name, cause, older_than_s)))

    def purge(
        self, *task_ids: str, name: str | None = None, cause: str | None = None, older_than_s: float | None = None
    ) -> int:
        """Forget final tasks with their history: those named by id, or else those of ``dead_letters``; how many."""
        return self._ask(commands.purge(task_ids, commands.Which(name, cause, older_than_s)))

    def clear(self) -> int:
        """Cancel everything that has not begun; how many."""
        return self._ask(commands.CLEAR)

    def pause(self, name: str) -> None:
        """Start no task of this name until ``resume``."""
        self._ask(commands.pause(name))

    def resume(self, name: str) -> None:
        """End a ``pause``."""
        self._ask(commands.resume(name))

    # ------------------------------------------------------------------------------------------------ workers

    def workers(self) -> list[WorkerInfo]:
        """Every slot, and the process in it."""
        return self._ask(commands.WORKERS)

    def worker(self, worker_id: str) -> WorkerInfo:
        """One slot, such as ``worker-0``. NotFound: there is none."""
        return self._ask(commands.worker(worker_id))

    def start_worker(self, group: str | None = None) -> str:
        """Add a worker, to a group or to the rest of the pool; its id."""
        return self._ask(commands.start_worker(group))

    def stop_worker(self, worker_id: str) -> None:
        """Drain a worker and remove its slot."""
        self._ask(commands.stop_worker(worker_id))

    def scale(self, size: int | str, group: str | None = None) -> int:
        """Make the pool, or one group of it, so large, or change it by ``"+3"`` or ``"-3"``; the new size."""
        return self._ask(commands.scale(size, group))

    # --------------------------------------------------------------------------------------------- the daemon

    def status(self) -> dict[str, Any]:
        """Everything that ``poolmgr status --json`` shows."""
        return self._ask(commands.STATUS)

    def health(self) -> dict[str, Any]:
        """The verdict (healthy, degraded, critical), the capacity and the alerts."""
        return self._ask(commands.HEALTH)

    def metrics(self) -> dict[str, Any]:
        """Counters and gauges by name."""
        return self._ask(commands.METRICS)

    def config(self) -> dict[str, Any]:
        """The daemon's settings."""
        return self._ask(commands.CONFIG)

    def collect_garbage(self) -> dict[str, Any]:
        """Have the daemon and its idle workers collect garbage."""
        return self._ask(commands.COLLECT_GARBAGE)

    def reload(self) -> dict[str, Any]:
        """Load the app's code anew, and roll the workers over to it.

        Returns when all have it but those that are long busy: no time limit, as imports and startup hooks take what
        they take. The answer is that of ``poolmgr reload --json`` (docs/reference/cli.md).

        Raises:
            ReloadFailed, ConfigError: the new version is refused, and the old one goes on; the message says why.
            ShuttingDown: the daemon is.
        """
        return self._redial.live().ask(commands.RELOAD, None)

    def stop(self, now: bool = False) -> None:
        """Stop the daemon: running tasks finish, unless ``now``; queued durable tasks stay."""
        self._ask(commands.stop(now))

    def events(self, *names: str) -> EventStream:
        """Events from now on, all or those named, such as ``"task-completed"``."""
        return EventStream(self._redial.another(), names, self._redial.timeout_s)

    def _ask(self, question: commands.Question[T]) -> T:
        return self._redial.live().ask(question, self._redial.timeout_s)

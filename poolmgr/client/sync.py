"""The sync client. It holds no protocol and no waiting of its own: see ``protocol`` and ``link``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from poolmgr.client import commands
from poolmgr.client.batches import CHUNK, Batches
from poolmgr.client.breakers import Breakers
from poolmgr.client.calling import Options, handler_name
from poolmgr.client.dial import Route
from poolmgr.client.outgoing import packed
from poolmgr.client.pending import Pending
from poolmgr.client.preempting import Preempting
from poolmgr.client.redial import Redial
from poolmgr.client.results import EventStream, MapResults
from poolmgr.client.resume import RECONNECT_S, unacknowledged
from poolmgr.client.schedules import Schedules
from poolmgr.model import TaskInfo, WorkerInfo
from poolmgr.schedule import ScheduleInfo, Timing
from poolmgr.wire.values import pack_call

if TYPE_CHECKING:
    from poolmgr.client.future import TaskFuture

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@cache
def _future_class() -> type[TaskFuture[Any]]:
    """Imported with the first submit: concurrent.futures takes 20 ms, and ``poolmgr status`` has no future."""
    from poolmgr.client.future import TaskFuture

    return TaskFuture


class Caller:
    """What hands over work, with certain options: a client, or a view of it that ``using`` made."""

    def __init__(self, redial: Redial, options: Options) -> None:
        self._redial = redial
        self._options = options

    def using(self, **options: Any) -> Caller:
        """The same client, whose work has these task options (model.TaskOptions) on top of those it had.

        Raises:
            BadOption: an unknown name, a wrong type or a value out of range.
        """
        return Caller(self._redial, self._options.merged(options))

    @overload
    def submit(
        self, handler: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskFuture[R]: ...
    @overload
    def submit(self, handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]: ...
    @overload
    def submit(self, handler: str, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]: ...
    def submit(self, handler: Any, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """Hand a task over: durable unless ``using(durable=False)``. Does not wait for the daemon.

        It does wait while 10,000 tasks, or 32 MB, are not acknowledged. A refusal comes from the future. With
        ``using(block=True)`` it waits while the queue is full, for ``block_timeout_s`` at the most, and ``QueueFull``
        comes from here.

        Args:
            handler: the function, or its name as a string.

        Raises:
            BadValue: an argument cannot be carried; the message has the path to it.
            PayloadTooLarge: the arguments exceed the frame limit.
            Unavailable: the daemon cannot be reached.
            QueueFull: there was no room within ``block_timeout_s``. Nothing was submitted.
        """
        link, options, name = self._redial.live(), self._options, handler_name(handler)
        future, packed_options = _future_class()(link, options.submits_durable), options.for_submit
        payload = packed(args, kwargs, link.protocol.files)
        if options.block:
            link.get_room(commands.room(name, 1, packed_options, options.block_timeout_s))
        link.submit(future, name, payload, packed_options, options.block)
        return future

    @overload
    def schedule(
        self, id: str, timing: Timing, handler: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> ScheduleInfo: ...
    @overload
    def schedule(self, id: str, timing: Timing, handler: str, /, *args: Any, **kwargs: Any) -> ScheduleInfo: ...
    def schedule(self, id: str, timing: Timing, handler: Any, /, *args: Any, **kwargs: Any) -> ScheduleInfo:
        """Have a handler called with these arguments again and again: a durable task at each tick of ``timing``.

        A schedule of that ``id`` that is there is changed; where it keeps its ticks, it misses none of them. So a
        program may say this at each of its starts. The tasks have the options of ``using``.

        Args:
            id: what to call it: letters, digits, ``_``, ``.`` and ``-``.

        Raises:
            BadOption: the id, the timing or an option is wrong.
            UnknownTask: the app has no such handler.
            BadValue, PayloadTooLarge: as ``submit``.
        """
        name, payload = handler_name(handler), pack_call(args, kwargs)
        question = commands.schedule(id, timing, name, payload, self._options.for_submit)
        return self._redial.live().ask(question, self._redial.timeout_s)

    @overload
    def run(self, handler: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def run(self, handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def run(self, handler: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def run(self, handler: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a handler and wait for its result: not durable unless ``using(durable=True)``.

        Raises:
            TaskFailed: it did not complete; the subclass says how. Also what ``submit`` raises.
        """
        link, options, name = self._redial.live(), self._options, handler_name(handler)
        call: Pending[Any] = Pending(options.calls_durable)
        payload = packed(args, kwargs, link.protocol.files)
        if options.block:
            link.get_room(commands.room(name, 1, options.for_call, options.block_timeout_s))
        try:
            link.submit(call, name, payload, options.for_call, options.block)
            link.wait(lambda: call.outcome is not None)
        except BaseException:
            link.abandon((call,))
            raise
        return call.value()

    @overload
    def map(
        self,
        handler: Callable[..., Coroutine[Any, Any, R]],
        /,
        *inputs: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = CHUNK,
    ) -> MapResults[R]: ...
    @overload
    def map(
        self,
        handler: Callable[..., R],
        /,
        *inputs: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = CHUNK,
    ) -> MapResults[R]: ...
    @overload
    def map(
        self, handler: str, /, *inputs: Iterable[Any], timeout: float | None = None, chunksize: int = CHUNK
    ) -> MapResults[Any]: ...
    def map(
        self, handler: Any, /, *inputs: Iterable[Any], timeout: float | None = None, chunksize: int = CHUNK
    ) -> MapResults[Any]:
        """Call a handler with each of ``zip(*inputs)``, and iterate over the results in that order. Each is a task.

        Inputs are read as results are taken, about 4,096 ahead, or as far as the daemon has room for them: where its
        queue is full, this waits (``using(block_timeout_s=)``: for so long without any room). Not durable unless
        ``using(durable=True)``.

        Args:
            timeout: seconds from now within which each result must come.
            chunksize: how many tasks go to the daemon in one send.

        Raises, as it is iterated over:
            TaskFailed, BadValue: at the place of the one that failed. The rest is cancelled.
            TimeoutError: a result did not come in time. The rest is cancelled.
            QueueFull: there was no room within ``block_timeout_s``. The rest is cancelled.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize is at least 1, got {chunksize!r}")
        options = self._options
        durable = options.calls_durable
        batches: Batches[Any] = Batches(inputs, handler_name(handler), options, chunksize, lambda: Pending(durable))
        return MapResults(self._redial.live, batches, timeout)


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

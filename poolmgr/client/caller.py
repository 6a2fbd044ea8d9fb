"""What hands over work for the sync client: ``submit``, ``run``, ``map``, ``stream``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from poolmgr.client import commands
from poolmgr.client.batches import CHUNK, Batches
from poolmgr.client.calling import Options, handler_name
from poolmgr.client.outgoing import packed
from poolmgr.client.pending import Pending
from poolmgr.client.redial import Redial
from poolmgr.client.results import MapResults
from poolmgr.schedule import ScheduleInfo, Timing
from poolmgr.wire.values import pack_call

if TYPE_CHECKING:
    from poolmgr.client.future import TaskFuture
    from poolmgr.client.streams import ChunkStream

P = ParamSpec("P")
R = TypeVar("R")


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
    def stream(
        self, handler: Callable[P, Generator[R, Any, Any]], /, *args: P.args, **kwargs: P.kwargs
    ) -> ChunkStream[R]: ...
    @overload
    def stream(
        self, handler: Callable[P, AsyncGenerator[R, Any]], /, *args: P.args, **kwargs: P.kwargs
    ) -> ChunkStream[R]: ...
    @overload
    def stream(self, handler: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> ChunkStream[Any]: ...
    def stream(self, handler: Any, /, *args: Any, **kwargs: Any) -> ChunkStream[Any]:
        """Call a handler that is a generator, and iterate over what it yields, as it does: see ``ChunkStream``.

        Not durable unless ``using(durable=True)``.

        Raises:
            BadValue, PayloadTooLarge, Unavailable: as ``submit``.
        """
        from poolmgr.client.streams import ChunkStream

        link, options, name = self._redial.live(), self._options, handler_name(handler)
        end: Pending[Any] = Pending(options.calls_durable)
        payload = packed(args, kwargs, link.protocol.files)
        if options.block:
            link.get_room(commands.room(name, 1, options.for_call, options.block_timeout_s))
        link.submit(end, name, payload, options.for_call, options.block)
        return ChunkStream(
            self._redial.live, link, end, end.key, 0, is_call=not end.durable, timeout_s=self._redial.timeout_s
        )

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

    def chunks(self, task_id: str, offset: int = 0) -> ChunkStream[Any]:
        """The stream of a task that anybody has submitted, from the chunk of this number on; it may have ended.

        Raises:
            NotFound: there is no such task, or it is no longer kept.

        As it is iterated over:
            ChunksDropped: the chunk ``offset`` is not kept any more.
            TaskFailed: at the end, where the task has not completed.
        """
        from poolmgr.client.streams import chunks_of

        return chunks_of(self._redial.live, task_id, offset, self._redial.timeout_s)

"""``Executor``: the standard library's interface, for any callable, on warm worker processes."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor as StandardExecutor
from itertools import islice
from time import monotonic
from typing import Any, Final, ParamSpec, TypeVar

from poolmgr.client import commands
from poolmgr.client.call_future import BrokenPool, Call, CallFuture
from poolmgr.client.call_line import line_of, private_line
from poolmgr.client.call_link import CallLink
from poolmgr.client.caller import Caller
from poolmgr.client.calling import Options
from poolmgr.client.outgoing import packed
from poolmgr.client.together import Submit
from poolmgr.errors import PoolError
from poolmgr.payload import Payload
from poolmgr.wire.pickled import CALL, dump, initializer_path

P = ParamSpec("P")
R = TypeVar("R")

_BATCH: Final = 128  # calls of a map in one send
_BATCH_BYTES: Final = 1024 * 1024
_BATCH_S: Final = 0.005  # inputs that come slowly go sooner
# Nothing of a call is kept, and none is made twice.
_ONCE: Final = {"durable": False, "restartable": False, "max_retries": 0}


class Executor(StandardExecutor):
    """A ``concurrent.futures.Executor``, to be used in the place of a ``ProcessPoolExecutor``.

    It takes what cloudpickle can pickle: lambdas, closures, functions and classes of ``__main__``. Where it differs
    from the standard library's: a process that dies fails the call that it made, with ``BrokenWorker``, and no other.

    Args:
        max_workers: how many processes; by default as many as the machine has processors. Only without ``client``.
        initializer: called with ``initargs`` once in each worker process, before its first call. If it fails, every
            call fails with ``BrokenPool``, and so does each further ``submit``.
        client: the client whose daemon makes the calls, also one with options (``client.using(priority=50)``). That
            daemon must be of this user. By default a daemon of the executor's own, which ends with it.

    Raises:
        ValueError: ``max_workers`` is below 1, or was given beside ``client``.
        TypeError: the initializer cannot be called.
        NotAllowed: the client's daemon is of another user.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        client: Caller | None = None,
    ) -> None:
        if max_workers is not None and client is not None:
            raise ValueError("max_workers is for a pool of the executor's own: that of a client has its size")
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._token = os.urandom(8)
        options = Options({}) if client is None else client._options
        self._caller = options.merged(_ONCE)
        self._options = self._caller.for_call
        if client is None:
            size = max_workers or os.cpu_count() or 1
            self._line = private_line({"pool_size": size, "worker_memory_limit_mb": 0, "task_timeout_s": 0})
        else:
            self._line = line_of(client._redial)
        self._initializer = "" if initializer is None else self._publish(dump((initializer, initargs)))
        self._is_shut = False
        weakref.finalize(self, self._line.finish_in_background).atexit = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> CallFuture[R]:
        """Have ``fn(*args, **kwargs)`` called in a worker. Does not wait, unless its client does (``block=True``): then
        while the daemon's queue is full.

        What cannot be pickled, or is too large, is told by the future.

        Raises:
            RuntimeError: the executor was shut down.
            BrokenPool: it cannot be used any more.
            QueueFull: there was no room within the client's ``block_timeout_s``.
        """
        link = self._live()
        future: CallFuture[R] = CallFuture(link)
        try:
            buffers = _buffers(link)
            payload = self._payload(link, _pickled_call(fn, args, kwargs, buffers), b"", buffers)
        except Exception as error:
            future.outcome = error
            return future
        self._get_room(link, 1)
        self._send(link, [(future, CALL, payload, self._options)])
        return future

    def map(
        self, fn: Callable[..., R], /, *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[R]:
        """As the built-in ``map``: all inputs are read at once, the calls are made concurrently, results come in order.

        With a client that waits for room (``block=True``) this returns when there was room for all of them.

        Args:
            timeout: seconds from now within which each result must come; else ``TimeoutError``.
            chunksize: how many calls make one task.

        Raises:
            ValueError: ``chunksize`` is below 1. Also what ``submit`` raises.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        deadline = None if timeout is None else monotonic() + timeout
        link = self._live()
        calls = self._send_all(link, fn, _parts(iterables, chunksize))
        return _results(link, calls, deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. Safe to call twice.

        Args:
            wait: return when every call has ended and what the executor holds is freed; else that happens later, at the
                latest when the program ends.
            cancel_futures: cancel the calls that have not begun.
        """
        self._is_shut = True
        if cancel_futures:
            self._line.cancel_waiting()
        if wait:
            self._line.finish()
        else:
            self._line.finish_in_background()

    # ------------------------------------------------------------------------------------------------- own needs

    def _live(self) -> CallLink:
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        link = self._line.link()
        if link.protocol.lost is not None:
            self._broken(link.protocol.lost)
        return link

    def _broken(self, cause: PoolError) -> None:
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        raise BrokenPool(f"the executor cannot be used any more: {cause}") from cause

    def _publish(self, initializer: bytes) -> str:
        """Where the workers find the initializer: large arguments are to be sent once to each, not with each call."""
        file = os.memfd_create("poolmgr-initializer", os.MFD_CLOEXEC)
        with os.fdopen(file, "wb", closefd=False) as whole:
            whole.write(initializer)
        self._line.files.append(file)
        return initializer_path(os.getpid(), file)

    def _payload(self, link: CallLink, pickled: bytes, function: bytes, buffers: list[memoryview] | None) -> Payload:
        arguments = (pickled, function, self._token, self._initializer)
        return packed(arguments if buffers is None else (*arguments, buffers), {}, link.protocol.files)

    def _get_room(self, link: CallLink, calls: int) -> int:
        """For how many of so many calls there is room: for all, unless the client is to wait for it."""
        if not self._caller.block:
            return calls
        return link.get_room(commands.room(CALL, calls, self._options, self._caller.block_timeout_s))

    def _send(self, link: CallLink, batch: list[Submit]) -> None:
        waited = self._caller.block
        try:
            if len(batch) == 1:
                link.submit(*batch[0], waited)
            else:
                link.submit_all(batch, waited)
        except PoolError as error:
            if link.protocol.lost is None:
                batch[0][0].outcome = error
            else:
                self._broken(link.protocol.lost)

    def _send_all(
        self, link: CallLink, fn: Callable[..., R], parts: Iterator[tuple[Sequence[Any], ...]]
    ) -> deque[Call[list[R]]]:
        calls: deque[Call[list[R]]] = deque()
        function, failure = b"", None
        try:
            function = dump(fn)
        except Exception as error:
            error.add_note("This was raised as the callable of the map was pickled.")
            failure = error
        batch: list[Submit] = []
        size, began = 0, monotonic()
        for part in parts:
            call: Call[list[R]] = Call(link)
            calls.append(call)
            try:
                if failure is not None:
                    raise failure
                buffers = _buffers(link)
                payload = self._payload(link, dump(part, buffers), function, buffers)
            except Exception as error:
                call.outcome = error
                continue
            batch.append((call, CALL, payload, self._options))
            size += len(payload)
            if len(batch) >= _BATCH or size > _BATCH_BYTES or monotonic() - began > _BATCH_S:
                self._send_when_room(link, batch)
                batch, size, began = [], 0, monotonic()
        self._send_when_room(link, batch)
        return calls

    def _send_when_room(self, link: CallLink, batch: list[Submit]) -> None:
        while batch:
            places = self._get_room(link, len(batch))
            self._send(link, batch[:places])
            batch = batch[places:]


def _parts(iterables: tuple[Iterable[Any], ...], size: int) -> Iterator[tuple[Sequence[Any], ...]]:
    """What each part of a map has of each iterable; of longer ones no more is read than ``zip`` does."""
    if len(iterables) == 1:
        inputs = iter(iterables[0])
        while column := list(islice(inputs, size)):
            yield (column,)
    else:
        calls = zip(*iterables, strict=False)
        while part := list(islice(calls, size)):
            yield tuple(zip(*part, strict=True))


def _buffers(link: CallLink) -> list[memoryview] | None:
    """For what is pickled out of band; None: this daemon's workers are too old for that."""
    return [] if link.protocol.files.granted else None


def _pickled_call(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], buffers: list[memoryview] | None
) -> bytes:
    try:
        return dump((fn, args, kwargs), buffers)
    except Exception as error:
        named = [("the callable", fn), *((f"args[{at}]", each) for at, each in enumerate(args))]
        named += [(f"kwargs[{name!r}]", each) for name, each in kwargs.items()]
        culprit = next((what for what, each in named if not _can_be_pickled(each)), "the call")
        error.add_note(f"This was raised as the call was pickled: {culprit} cannot be.")
        raise


def _can_be_pickled(value: Any) -> bool:
    try:
        dump(value)
    except Exception:
        return False
    return True


def _results(link: CallLink, calls: deque[Call[list[R]]], deadline: float | None) -> Iterator[R]:
    """Of a map. Left before its end, it cancels what has not begun."""
    try:
        while calls:
            call = calls[0]
            if call.outcome is None:
                left = None if deadline is None else deadline - monotonic()
                if not link.wait(lambda call=call: call.outcome is not None, left):  # type: ignore[misc]
                    raise TimeoutError("the next result of the map did not come in time")
            calls.popleft()
            yield from call.value()
    finally:
        link.abandon(calls)

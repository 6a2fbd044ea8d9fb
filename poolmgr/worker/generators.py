"""Handlers that are generators: run chunk by chunk, each written before the next is asked for.

Between two chunks it is decided whether to go on. What is to be preempted or cancelled is closed there, so that its
``finally`` runs. ``SoftTimeout`` is thrown in where the generator stands still; where it runs, it strikes as in any
handler.

An interrupt must not lose a chunk that a generator has yielded: it must not strike between the generator and the code
that takes the chunk. That is ``_advance``, and the worker's signal handler looks whether it has interrupted just this.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, Final, Protocol

from poolmgr.worker.chunks import Chunks, Released
from poolmgr.worker.context import CurrentTask, SoftTimeout
from poolmgr.worker.run import Failed, traceback_of
from poolmgr.worker.voice import Shield

if TYPE_CHECKING:
    from asyncio import Future

_get_limit, _set_limit = sys.getrecursionlimit, sys.setrecursionlimit  # a task may replace them in their module


class Hearing(Protocol):
    """The worker, as far as it hears the manager."""

    shield: Shield
    running: int  # 0: no interrupt is for the handler any more

    def hear(self) -> None:
        """Take in what the manager has said."""
        ...

    def watch(self) -> int:
        """From here on it wakes up who waits, and nobody else takes it in. The descriptor by which it comes."""
        ...

    def await_word(self) -> None:
        """Wait, as it is watched, until there is something."""
        ...

    def watch_no_more(self) -> None:
        """... and take it in."""
        ...

    def end_copy(self) -> None:
        """End here, if the handler has forked, and this is the child."""
        ...


def run(generator: Generator[Any, Any, Any], chunks: Chunks, task: CurrentTask, worker: Hearing) -> Any:
    """What the generator returns. Raises what it raises, and ``Released`` or ``Failed``."""
    shield = worker.shield
    shield.up = True
    limit = _get_limit()
    try:
        while True:
            item = _advance(generator, shield)
            worker.end_copy()
            theirs = _get_limit()
            if theirs != limit:  # ours may need more than they have left
                _set_limit(limit)
            chunks.add(item)
            del item  # it may be large
            _write(chunks, task, worker)
            if theirs != limit:
                _set_limit(theirs)
    except StopIteration as end:
        worker.end_copy()
        _write(chunks, task, worker, last=True)
        return end.value
    except BaseException:
        chunks.closing = True
        try:
            generator.close()  # unless it has ended by itself
        except BaseException as error:
            _complain(error)
        raise
    finally:
        worker.running = 0
        shield.up = False


def _advance(generator: Generator[Any, Any, Any], shield: Shield) -> Any:
    """The next chunk. An interrupt that has waited is thrown in."""
    # Between this line and the generator's own code the interpreter runs no signal handler. One that it runs behind the
    # call finds this frame, and has the interrupt wait.
    try:
        shield.up = False
        if not shield.waits:
            return next(generator)
        shield.waits = False
        return generator.throw(SoftTimeout())
    finally:
        shield.up = True


ADVANCE: Final = _advance.__code__


def _write(chunks: Chunks, task: CurrentTask, worker: Hearing, last: bool = False) -> None:
    """Write what is held back, and wait for the credit that it takes. Where an interrupt comes meanwhile, some is still
    held. ``last``: the generator has ended."""
    worker.hear()
    if task.to_be_closed and not last:
        raise _cancelled()
    while not chunks.write():
        worker.watch()
        try:
            # Looked at only now: what comes from here on ends the wait.
            _give_up(task, cancelled=True)
            if worker.shield.waits and not last:
                return
            if not chunks.may_write():
                worker.await_word()
        finally:
            worker.watch_no_more()
    if task.preempted and not last:
        raise Released


async def drive(generator: AsyncGenerator[Any, Any], chunks: Chunks, task: CurrentTask, worker: Hearing) -> None:
    """``run`` for an async one, which returns nothing."""
    from asyncio import CancelledError, sleep

    thrown: CancelledError | None = None
    told = False  # it has been cancelled before, and goes on
    try:
        while True:
            item = await (anext(generator) if thrown is None else generator.athrow(thrown))
            thrown = None
            worker.end_copy()
            chunks.add(item)
            del item
            try:
                await _write_async(chunks, task, worker, told)
                await sleep(0)  # whoever else has to do something in this loop; and a cancellation comes here
            except CancelledError as error:
                thrown, told = error, True
    except StopAsyncIteration:
        worker.end_copy()
        await _write_async(chunks, task, worker, told, last=True)
    except BaseException:
        chunks.closing = True
        try:
            await generator.aclose()
        except BaseException as error:
            _complain(error)
        raise


async def _write_async(chunks: Chunks, task: CurrentTask, worker: Hearing, told: bool, last: bool = False) -> None:
    from asyncio import get_running_loop

    worker.hear()
    loop = get_running_loop()
    while not chunks.write():
        said = loop.create_future()
        watched = worker.watch()
        loop.add_reader(watched, _settle, said)
        try:
            _give_up(task, cancelled=told)
            if not chunks.may_write():
                await said
        finally:
            loop.remove_reader(watched)
            worker.watch_no_more()
    if task.preempted and not last:
        raise Released


def _settle(said: Future[None]) -> None:
    if not said.done():
        said.set_result(None)


def _give_up(task: CurrentTask, cancelled: bool) -> None:
    """There is no credit. Whether to wait for it: not where the task is to end."""
    if cancelled and task.is_cancelled:
        raise _cancelled()
    if task.preempted:
        raise Released


def _cancelled() -> Failed:
    message = "it was cancelled, and closed at a chunk"
    return Failed(
        "task_failed",
        ["GeneratorExit", "BaseException"],
        {"type": "GeneratorExit", "message": message, "traceback": ""},
    )


def _complain(error: BaseException) -> None:
    """What a generator raises as it is closed changes nothing of its end. It goes to the log."""
    try:
        print(f"the handler has failed as it was closed:\n{traceback_of(error)}", file=sys.stderr)  # noqa: T201
    except BaseException:  # it has closed its output
        pass

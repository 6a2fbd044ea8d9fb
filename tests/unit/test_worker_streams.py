"""What a worker knows of streams, without a process."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgpack
import pytest

import poolmgr
from poolmgr import Chunk, Preempted, current_task, task
from poolmgr.config import Settings
from poolmgr.manager.handlers import all_handlers, declared_streams
from poolmgr.manager.stream_words import chunk_of
from poolmgr.wire.messages import CHECKPOINT_LIMIT, CHUNK, CHUNK_LIMIT
from poolmgr.wire.values import pack
from poolmgr.worker import generators
from poolmgr.worker.chunks import Chunks
from poolmgr.worker.context import CurrentTask
from poolmgr.worker.ear import Ear
from poolmgr.worker.registry import Handler, registry
from poolmgr.worker.run import gives_way
from poolmgr.worker.voice import Voice


def plain() -> int:
    return 1


async def coroutine() -> int:
    return 1


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


def handler_of(function: Callable[..., Any]) -> Handler:
    found: Handler = task(priority=7)(function).__poolmgr_task__  # type: ignore[attr-defined]
    return found


def test_a_handler_tells_whether_it_is_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "handlers", {})
    told = {each.__name__: handler_of(each) for each in (plain, coroutine, generator, async_generator)}
    assert {name for name, handler in told.items() if handler.is_stream} == {"generator", "async_generator"}
    assert {name for name, handler in told.items() if handler.is_async} == {"coroutine", "async_generator"}
    app = {name: handler.declared for name, handler in told.items()}
    assert app["plain"] == {"priority": 7}
    assert app["generator"] == {"priority": 7, "stream": True}
    assert declared_streams(app) == {"generator", "async_generator"}
    options = all_handlers(Settings(), app)
    assert {each.priority for each in options.values()} == {7}


def test_outside_of_a_worker_checkpoints_are_ignored() -> None:
    mine = current_task()
    mine.checkpoint({"anything": object()})
    assert (mine.restored, mine.preempted, mine.cancelled) == (None, False, False)
    with pytest.raises(ValueError, match="None is no checkpoint"):
        mine.checkpoint(None)


def test_the_names_are_exported() -> None:
    assert (poolmgr.Chunk, poolmgr.Preempted) == (Chunk, Preempted)
    assert not issubclass(Preempted, Exception)
    assert repr(Chunk(1, checkpoint="x")) == "Chunk(1, checkpoint='x')"


def test_an_interrupt_behind_the_generator_does_not_lose_its_chunk() -> None:
    """The signal strikes when ``next`` has the value, and our code does not have it yet."""
    heeded = []

    def interrupted() -> bool:
        heeded.append("soft_timeout")
        return True

    ear = Ear(deque(), Voice(), lambda reasons: True)
    ear.read = interrupted  # type: ignore[method-assign]
    before = signal.signal(signal.SIGUSR1, ear.on_signal)
    try:
        # A call in C, without a frame of its own: what it interrupts is the frame that has called.
        items: Any = map(os.kill, [os.getpid()], [signal.SIGUSR1])
        assert generators._advance(items, ear.shield) is None
        assert heeded == ["soft_timeout"]
        assert ear.shield.waits, "it was not raised"
        ear.shield.waits = ear.shield.up = False
        with pytest.raises(poolmgr.SoftTimeout):
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_interrupt_that_waits_is_thrown_in() -> None:
    def handler() -> Iterator[str]:
        try:
            yield "first"
        except poolmgr.SoftTimeout:
            yield "second"

    ear = Ear(deque(), Voice(), lambda reasons: True)
    running: Any = handler()
    assert generators._advance(running, ear.shield) == "first"
    assert ear.shield.up
    ear.shield.waits = True
    assert generators._advance(running, ear.shield) == "second"
    assert (ear.shield.up, ear.shield.waits) == (True, False)


def test_what_is_held_back_keeps_its_order() -> None:
    """Chunks and checkpoints, with and without credit."""
    reader, writer = os.pipe()
    voice = Voice()
    voice.open(writer)
    credits: dict[int, tuple[int, int]] = {}
    chunks = Chunks([40, 7, b"", 1, "name", b"", None, None, [1, 3, None], 3], credits, voice)
    said = msgpack.Unpacker()

    def written() -> list[Any]:
        os.set_blocking(reader, False)
        try:
            said.feed(os.read(reader, 4096))
        except BlockingIOError:
            pass
        return [tuple(message[2:]) for message in said]

    try:
        chunks.add("one")  # kept already
        chunks.add(Chunk("two", checkpoint="behind two"))  # ... but not what is behind it
        chunks.keep(pack("alone, behind what is held"))
        chunks.add("three")
        assert not chunks.write()
        assert written() == [(3, None, pack("behind two")), (3, None, pack("alone, behind what is held"))]
        chunks.keep(pack("behind three"))
        chunks.add(Chunk("four", checkpoint="behind four"))
        credits[8] = (9, 100)
        assert not chunks.write()
        assert written() == []
        credits[7] = (4, 100)
        assert not chunks.write()
        assert written() == [(3, pack("three"), None), (4, None, pack("behind three"))]
        credits[7] = (5, 100)
        assert chunks.write()
        chunks.keep(pack("at the end"))
        assert written() == [(4, pack("four"), pack("behind four")), (5, None, pack("at the end"))]
    finally:
        os.close(reader)
        os.close(writer)


def test_a_handler_that_looks_is_not_closed() -> None:
    mine = CurrentTask()
    mine.is_cancelled = True
    assert mine.to_be_closed
    assert mine.cancelled
    assert not mine.to_be_closed


def test_what_gives_way() -> None:
    assert gives_way(Preempted())
    assert gives_way(BaseExceptionGroup("tasks", [Preempted(), BaseExceptionGroup("more", [Preempted()])]))
    assert not gives_way(BaseExceptionGroup("tasks", [Preempted(), ValueError()]))
    assert not gives_way(GeneratorExit())


@pytest.mark.parametrize(
    "message",
    [
        [CHUNK, 1, 0, None, None],
        [CHUNK, 1, -1, b"x", None],
        [CHUNK, 1, 0.0, b"x", None],
        [CHUNK, "1", 0, b"x", None],
        [CHUNK, 1, 0, "x", None],
        [CHUNK, 1, 0, b"x", "x"],
        [CHUNK, 1, 0, b"x"],
        [CHUNK, 1, 0, bytes(CHUNK_LIMIT + 1), None],
        [CHUNK, 1, 0, None, bytes(CHECKPOINT_LIMIT + 1)],
    ],
)
def test_what_a_worker_cannot_have_meant_is_refused(message: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        chunk_of(message)


def test_what_a_worker_says_of_a_stream() -> None:
    assert chunk_of([CHUNK, 1, 0, b"x", None]) == (1, 0, b"x", None)
    assert chunk_of([CHUNK, 1, 3, None, b"x"]) == (1, 3, None, b"x")

"""Streams in both clients: what is asked of the daemon, what a loop gets, how it ends."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import uvloop

from poolmgr.client.aio import AsyncClient
from poolmgr.client.sync import Client
from poolmgr.errors import (
    BadValue,
    ChunksDropped,
    ConnectionLost,
    NotFound,
    TaskCancelled,
    TaskFailed,
    TaskLost,
    UnknownTask,
)
from poolmgr.wire.messages import REQUEST, RESPONSE
from poolmgr.wire.values import pack
from tests.unit.fake_daemon import GRACE_S, FakeDaemon

CHUNKS = ["a", [1, 2], b"b", {"c": (3, 4)}, "e"]
Body = Callable[[AsyncClient], Awaitable[Any]]
Play = Callable[[Body], Any]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(str(tmp_path / "s")) as running:
        yield running


@pytest.fixture
def pool(daemon: FakeDaemon) -> Iterator[Client]:
    with closing(Client(daemon.path)) as client:
        yield client


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def play(daemon: FakeDaemon, request: pytest.FixtureRequest) -> Play:
    async def scene(body: Body) -> Any:
        async with asyncio.timeout(2 * GRACE_S), AsyncClient(daemon.path) as pool:
            return await body(pool)

    return lambda body: request.param(scene(body))


def asked(daemon: FakeDaemon, command: str) -> dict[str, Any]:
    """The arguments of the next request for this command."""
    while (message := daemon.hear(REQUEST))[2] != command:
        pass
    arguments: dict[str, Any] = message[3]
    return arguments


def answer(daemon: FakeDaemon, chunks: list[Any]) -> None:
    """Answer the next question for chunks with these."""
    while (message := daemon.hear(REQUEST))[2] != "chunks":
        pass
    told = {"chunks": [pack(each) for each in chunks], "next": message[3]["offset"] + len(chunks), "ended": False}
    daemon.peer().send((RESPONSE, message[1], told))


# ------------------------------------------------------------------------------------------ sync


def test_a_stream_is_iterated_over_and_its_result_is_there(daemon: FakeDaemon, pool: Client) -> None:
    stream = pool.stream("stream", CHUNKS, "the result")
    assert list(stream) == CHUNKS
    assert (stream.offset, stream.result()) == (5, "the result")
    assert next(stream, "no more") == "no more"
    offsets = [asked(daemon, "chunks") for _ in range(3)]
    assert [each["offset"] for each in offsets] == [0, 2, 4], "what was taken is asked for no more"
    assert len({each["reader"] for each in offsets}) == 1


def test_a_stream_that_fails_raises_at_its_end_and_only_once(pool: Client) -> None:
    stream = pool.stream("stream", [1, 2, 3], "fails")
    assert [next(stream), next(stream), next(stream)] == [1, 2, 3]
    with pytest.raises(TaskFailed, match="fails"):
        next(stream)
    assert list(stream) == []


def test_an_empty_stream_ends(pool: Client) -> None:
    assert list(pool.stream("stream", [], 1)) == []


def test_a_call_that_ended_before_it_was_asked_for_has_no_chunks(daemon: FakeDaemon, pool: Client) -> None:
    assert list(pool.stream("echo", 1)) == []


def test_a_durable_task_that_the_daemon_forgets_is_not_taken_for_empty(pool: Client) -> None:
    with pytest.raises(NotFound):
        list(pool.using(durable=True).stream("echo", 1))


def test_a_refused_submit_is_told_as_such(pool: Client) -> None:
    with pytest.raises(UnknownTask):
        next(pool.stream("refuse", 1))


def test_a_call_that_is_closed_early_is_cancelled_and_a_durable_task_is_not(daemon: FakeDaemon, pool: Client) -> None:
    with pool.stream("stream", CHUNKS) as stream:
        assert next(stream) == "a"
    assert asked(daemon, "cancel")["id"].hex() == stream.id
    assert asked(daemon, "chunks")["detach"] is True
    assert list(stream) == [], "nothing comes after the end"
    with pytest.raises(TaskCancelled):
        stream.result()
    durable = pool.using(durable=True).stream("stream", CHUNKS)
    next(durable)
    durable.close()
    durable.close()
    while "detach" not in (arguments := daemon.hear(REQUEST)[3]):
        assert "kill" not in arguments, "a durable task was cancelled"


def test_letting_go_of_a_stream_ends_it(daemon: FakeDaemon, pool: Client) -> None:
    for chunk in pool.stream("stream", CHUNKS):
        assert chunk == "a"
        break
    gc.collect()
    asked(daemon, "cancel")


def test_a_future_is_iterated_over_any_number_of_times(daemon: FakeDaemon, pool: Client) -> None:
    future = pool.submit("stream", CHUNKS, "r")
    assert [*future] == CHUNKS == list(iter(future))
    assert future.result() == "r"


def test_chunks_reads_what_others_have_submitted_from_any_offset(daemon: FakeDaemon, pool: Client) -> None:
    future = pool.submit("stream", CHUNKS, "r")
    future.result()
    with closing(Client(daemon.path)) as other:
        assert list(other.chunks(future.id, offset=3)) == CHUNKS[3:]
    assert daemon.watched.get(timeout=GRACE_S) == future.key


def test_chunks_of_what_is_not_known_or_not_kept(daemon: FakeDaemon, pool: Client) -> None:
    future = pool.submit("stream", CHUNKS, "r")
    future.result()
    daemon.dropped = 2
    with pytest.raises(ChunksDropped, match="too late"):
        next(pool.chunks(future.id))
    assert next(pool.chunks(future.id, offset=2)) == b"b"
    daemon.remembers = False
    with pytest.raises(NotFound):
        pool.chunks("0" * 32)
    with pytest.raises(NotFound, match="32 hex digits"):
        pool.chunks("nonsense")


def test_a_chunk_that_cannot_be_read_is_passed_over(daemon: FakeDaemon, pool: Client) -> None:
    future = pool.submit("stream", [1, 2, 3], "r")
    future.result()
    stream = pool.chunks(future.id)
    assert next(stream) == 1
    daemon.answers["chunks"] = {"chunks": [b"\xc1", b"\x02"], "next": 4, "ended": True}
    stream = pool.chunks(future.id)
    with pytest.raises(BadValue):
        next(stream)
    assert (stream.offset, next(stream)) == (1, 2)


def test_a_task_that_its_key_found_to_be_an_earlier_one_is_read_as_that(pool: Client) -> None:
    first = pool.submit("stream", CHUNKS, "r")
    first.result()
    assert list(pool.stream("same", first.key)) == CHUNKS


def test_the_stream_of_a_durable_task_goes_on_where_its_connection_broke(daemon: FakeDaemon, pool: Client) -> None:
    stream = pool.using(durable=True).stream("stream", ["a", "b", None, "c", "d"])
    assert [next(stream), next(stream)] == ["a", "b"]
    assert [next(stream), next(stream)] == ["c", "d"]
    assert [daemon.peer(), daemon.peer()], "it has connected twice"


def test_it_goes_on_after_its_task_has_ended_too(daemon: FakeDaemon, pool: Client) -> None:
    future = pool.submit("stream", ["a", "b", None, "c", None, "d"], "r")
    future.result()
    assert list(pool.chunks(future.id)) == ["a", "b", "c", "d"]


def test_a_future_is_read_on_another_connection_though_its_task_has_ended(pool: Client) -> None:
    future = pool.submit("stream", ["a", "b", None, "c", None, "d"], "r")
    assert list(future) == ["a", "b", "c", "d"]
    assert future.result() == "r"


def test_the_stream_of_a_call_is_lost_with_its_connection(pool: Client) -> None:
    stream = pool.stream("stream", ["a", "b", None, "c"])
    assert [next(stream), next(stream)] == ["a", "b"]
    with pytest.raises(TaskLost):
        next(stream)


def test_no_daemon_comes_back(tmp_path: Path) -> None:
    with ExitStack() as stack:
        daemon = stack.enter_context(FakeDaemon(str(tmp_path / "t")))
        pool = stack.enter_context(closing(Client(daemon.path, reconnect_s=0.3)))
        stream = pool.using(durable=True).stream("stream", ["a", "b", "c"])
        next(stream), next(stream)
        daemon.stop()
        with pytest.raises(ConnectionLost, match="is safe"):
            next(stream)


def test_a_wait_that_a_signal_ends_is_gone_on_with(daemon: FakeDaemon, pool: Client) -> None:
    def strike(*_: Any) -> None:
        raise InterruptedError("Ctrl-C")

    stream: Any = pool.stream("stream", CHUNKS, 1)
    daemon.stands_at = 0
    before = signal.signal(signal.SIGALRM, strike)
    try:
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(InterruptedError):
                next(stream)
    finally:
        signal.signal(signal.SIGALRM, before)
    answer(daemon, ["of the first question"])
    assert [*stream] == ["of the first question", *CHUNKS[1:]]
    assert [asked(daemon, "chunks")["offset"] for _ in range(2)] == [1, 3], "each is asked for once"


# ------------------------------------------------------------------------------------------ async


def test_an_async_wait_that_is_cancelled_is_gone_on_with(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        stream: Any = pool.stream("stream", CHUNKS, 1)
        daemon.stands_at = 0
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.05)
        await asyncio.to_thread(answer, daemon, ["of the first question"])
        assert [chunk async for chunk in stream] == ["of the first question", *CHUNKS[1:]]
        assert [asked(daemon, "chunks")["offset"] for _ in range(2)] == [1, 3], "each is asked for once"

    play(body)


def test_two_async_waits_for_one_stream_are_one_question(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        stream: Any = pool.stream("stream", CHUNKS, 1)
        daemon.stands_at = 0
        waits = [asyncio.ensure_future(anext(stream)) for _ in range(2)]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(answer, daemon, ["a", "b"])
        assert await asyncio.gather(*waits) == ["a", "b"]

    play(body)


def test_what_was_asked_on_a_connection_that_broke_is_asked_again(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        stream: Any = pool.using(durable=True).stream("stream", CHUNKS, 1)
        daemon.stands_at = 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.05)
        daemon.stands_at = None
        daemon.peer().sock.shutdown(socket.SHUT_RDWR)
        assert [chunk async for chunk in stream] == CHUNKS

    play(body)


def test_async_streams(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        stream: Any = pool.stream("stream", CHUNKS, "the result")
        assert stream.id == ""
        assert [chunk async for chunk in stream] == CHUNKS
        assert (stream.offset, await stream.result()) == (5, "the result")
        future = pool.submit("stream", CHUNKS, "r")
        assert [chunk async for chunk in future] == CHUNKS
        assert [chunk async for chunk in pool.chunks(future.id, offset=4)] == CHUNKS[4:]
        assert [chunk async for chunk in pool.stream("same", future.key)] == CHUNKS
        assert [chunk async for chunk in pool.stream("echo", 1)] == []

    play(body)


def test_async_streams_that_fail(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        stream: Any = pool.stream("stream", [1, 2, 3], "fails")
        assert [await anext(stream) for _ in range(3)] == [1, 2, 3]
        with pytest.raises(TaskFailed, match="fails"):
            await anext(stream)
        assert [chunk async for chunk in stream] == []
        with pytest.raises(UnknownTask):
            await anext(pool.stream("refuse", 1))
        with pytest.raises(NotFound, match="32 hex digits"):
            pool.chunks("nonsense")

    play(body)


def test_async_streams_that_are_closed(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        async with pool.stream("stream", CHUNKS) as stream:
            assert await anext(stream) == "a"
        assert [chunk async for chunk in stream] == []
        with pytest.raises(TaskCancelled):
            await stream.result()
        assert (await asyncio.to_thread(asked, daemon, "cancel"))["id"].hex() == stream.id

    play(body)


def test_async_streams_go_on_where_their_connection_broke(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        stream: Any = pool.using(durable=True).stream("stream", ["a", "b", None, "c", "d"])
        assert [await anext(stream) for _ in range(4)] == ["a", "b", "c", "d"]
        future = pool.submit("stream", ["a", "b", None, "c", None, "d"], "r")
        await future
        assert [chunk async for chunk in pool.chunks(future.id)] == ["a", "b", "c", "d"]
        lost: Any = pool.stream("stream", ["a", "b", None, "c"])
        await anext(lost), await anext(lost)
        with pytest.raises(TaskLost):
            await anext(lost)

    play(body)

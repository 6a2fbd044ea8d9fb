"""The async client: what it does differently from the sync one, and every request."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop

from poolmgr.client.aio import AsyncClient
from poolmgr.errors import (
    BadValue,
    ConnectionLost,
    NotFound,
    NotRunning,
    ShuttingDown,
    TaskCancelled,
    TaskFailed,
    TaskLost,
    Unavailable,
    UnknownTask,
    VersionMismatch,
    WrongState,
)
from poolmgr.model import Event
from poolmgr.wire.messages import ACCEPTED, COMPLETED, ERROR, PROTOCOL_VERSION, REQUEST, SUBMIT
from poolmgr.wire.values import pack
from tests.unit.client_questions import ID, KEY, QUESTIONS, Asked
from tests.unit.fake_daemon import GRACE_S, FakeDaemon, Peer

Body = Callable[[AsyncClient], Awaitable[Any]]
Play = Callable[[Body], Any]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(str(tmp_path / "s")) as running:
        yield running


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def play(daemon: FakeDaemon, request: pytest.FixtureRequest) -> Play:
    """Runs a coroutine function with a connected client, and ends both."""

    async def scene(body: Body) -> Any:
        async with asyncio.timeout(2 * GRACE_S), AsyncClient(daemon.path) as pool:
            return await body(pool)

    return lambda body: request.param(scene(body))


async def heard(daemon: FakeDaemon, kind: int) -> list[Any]:
    return await asyncio.to_thread(daemon.hear, kind)


async def peer_of(daemon: FakeDaemon) -> Peer:
    return await asyncio.to_thread(daemon.peer)


def test_runs_submits_and_maps(play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        assert await pool.run("echo", {"a": (1, 2)}) == {"a": (1, 2)}
        futures = [pool.submit("echo", n) for n in range(500)]
        assert await asyncio.gather(*futures) == list(range(500))
        assert [result async for result in pool.map("echo", range(2000))] == list(range(2000))
        assert sorted(await asyncio.gather(*(pool.run("echo", n) for n in range(200)))) == list(range(200))

    play(body)


def test_a_future_may_be_awaited_again_and_by_many(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        peer = await peer_of(daemon)
        future = pool.submit("hold", [1])
        waiting = [asyncio.ensure_future(future) for _ in range(3)]
        await heard(daemon, SUBMIT)
        told = [future.done()]
        peer.release()
        assert await asyncio.gather(*waiting) == [[1]] * 3
        assert await future is await future.result()
        assert [*told, future.done()] == [False, True]
        assert await future.exception() is None

    play(body)


def test_a_wait_that_ends_early_leaves_the_task_alone(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        peer = await peer_of(daemon)
        future = pool.submit("hold", 1)
        with pytest.raises(TimeoutError):
            await future.result(timeout=0.001)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future, 0.001)
        await heard(daemon, SUBMIT)
        peer.release()
        assert await future == 1

    play(body)


def test_failures_and_refusals_are_raised(play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        with pytest.raises(TaskFailed, match="boo"):
            await pool.run("fail", "boo")
        refused = pool.submit("refuse")
        with pytest.raises(UnknownTask):
            await refused.accepted()
        assert isinstance(await refused.exception(), UnknownTask)
        with pytest.raises(BadValue, match=r"args\[0\]"):
            pool.submit("echo", object())

    play(body)


def test_accepted_waits_for_the_daemon(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        daemon.acknowledges = False
        peer = await peer_of(daemon)
        first, second = pool.submit("hold", 1), pool.submit("hold", 2)
        with pytest.raises(TimeoutError):
            await first.accepted(timeout=0.001)
        await heard(daemon, SUBMIT)
        await heard(daemon, SUBMIT)
        peer.send((ACCEPTED, 1))
        await first.accepted()
        with pytest.raises(TimeoutError):
            await second.accepted(timeout=0.001)
        with pytest.raises(TimeoutError):
            await pool.flush(timeout=0.001)
        peer.send((ACCEPTED, 2))
        await pool.flush()

    play(body)


def test_cancel_is_true_only_if_the_task_never_began(play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        waiting, begun, ends = pool.submit("hold", 1), pool.submit("swallow"), pool.submit("hold", "begun")
        assert await waiting.cancel()
        assert waiting.cancelled()
        for attempt in (waiting.result, waiting.exception):
            with pytest.raises(TaskCancelled):
                await attempt()
        assert not await begun.cancel()
        assert not await ends.cancel(), "its end comes with the answer, and does not take its place"
        assert ends.cancelled()

    play(body)


def test_progress_is_the_latest_report(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        peer = await peer_of(daemon)
        future = pool.submit("progress", 1)
        seen = [future.progress]
        await heard(daemon, SUBMIT)
        await future.accepted()
        assert [*seen, future.progress] == [None, (0.5, "half")]
        peer.release()
        await future

    play(body)


def test_cancelling_a_call_cancels_its_task(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        call = asyncio.create_task(pool.run("hold", 1))
        key = (await heard(daemon, SUBMIT))[1]
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await heard(daemon, REQUEST))[2:] == ["cancel", {"id": key, "kill": False}]

    play(body)


def test_letting_go_of_a_map_cancels_what_was_not_taken(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        results = pool.map("hold", range(3))
        assert len(results) == 3
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(results), 0.001)
        keys = {(await heard(daemon, SUBMIT))[1] for _ in range(3)}
        del results
        gc.collect()
        assert {(await heard(daemon, REQUEST))[3]["id"] for _ in range(3)} == keys

    play(body)


def test_a_map_ends_with_the_first_failure_or_when_time_is_up(play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        results = pool.map("fail", ["boo", "later"])
        with pytest.raises(TaskFailed, match="boo"):
            await anext(results)
        assert [result async for result in results] == []
        with pytest.raises(TimeoutError):
            await anext(pool.map("hold", [1], timeout=0.001))

    play(body)


def test_options_are_sent(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        await pool.using(priority=0).run("echo", 1)
        assert (await heard(daemon, SUBMIT))[4] == pack({"durable": False, "priority": 0})

    play(body)


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda asked: asked.method)
def test_a_request_is_asked_and_its_answer_read(daemon: FakeDaemon, asked: Asked) -> None:
    async def body() -> None:
        daemon.answers[asked.command] = asked.answer
        async with AsyncClient(daemon.path) as pool:
            assert await getattr(pool, asked.method)(*asked.args, **asked.kwargs) == asked.returned
        assert daemon.hear(REQUEST)[2:] == [asked.command, asked.arguments]

    asyncio.run(body())


def test_the_result_of_a_task_of_another_process_is_waited_for(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        daemon.ends[KEY] = (COMPLETED, KEY, pack("done"))
        assert await pool.result(ID) == "done"
        with pytest.raises(TimeoutError):
            await pool.result("ff" * 16, timeout=0.001)
        with pytest.raises(NotFound):
            await pool.worker("worker-99")

    play(body)


def test_events_come_until_they_are_closed(play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        async with pool.events("task-completed") as events:
            assert await anext(events) == Event("task-completed", 1.5, {"n": 1})
            waiting = asyncio.ensure_future(anext(events, None))
            await asyncio.sleep(0)
            events.close()
            assert await waiting is None

    play(body)


def test_events_end_with_an_error_when_the_daemon_goes(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        events = pool.events()
        await anext(events)
        await peer_of(daemon)
        (await peer_of(daemon)).send((ERROR, "shutting_down", "I stop"))
        with pytest.raises(ShuttingDown):
            async for _ in events:
                pass

    play(body)


def test_when_the_daemon_goes_everybody_is_told_and_the_next_call_connects(daemon: FakeDaemon, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        kept = pool.submit("hold", 1)
        with pytest.raises(TaskLost):
            await pool.run("garbage")
        with pytest.raises(ConnectionLost, match=kept.id):
            await kept
        with pytest.raises(ConnectionLost):
            pool.submit("echo", 1)
        assert await pool.run("echo", 1) == 1
        assert await pool.submit("echo", 2) == 2

    play(body)


def test_submit_needs_a_connection(daemon: FakeDaemon) -> None:
    async def body() -> None:
        pool = AsyncClient(daemon.path)
        with pytest.raises(ConnectionLost, match="async with"):
            pool.submit("echo", 1)
        assert await (await pool.connect()).submit("echo", 1) == 1
        await pool.close()
        await pool.close()
        with pytest.raises(WrongState, match="closed"):
            await pool.run("echo", 1)

    asyncio.run(body())


def test_many_who_connect_at_once_share_one_connection(daemon: FakeDaemon) -> None:
    async def body() -> None:
        pool = AsyncClient(daemon.path)
        assert await asyncio.gather(*(pool.run("echo", n) for n in range(10))) == list(range(10))
        await pool.close()

    asyncio.run(body())
    daemon.peer()
    assert daemon.peers.empty()


def test_what_is_submitted_before_close_still_leaves(daemon: FakeDaemon, play: Play) -> None:
    play(partial(_submit_and_close, daemon))
    assert [daemon.hear(SUBMIT)[2] for _ in range(3)] == ["swallow"] * 3


async def _submit_and_close(daemon: FakeDaemon, pool: AsyncClient) -> None:
    futures = [pool.submit("swallow") for _ in range(3)]
    await pool.close()
    assert all(future.done() for future in futures)


def test_no_daemon_another_version_and_silence_are_clear_errors(tmp_path: Path) -> None:
    async def body(path: str) -> None:
        await AsyncClient(path, timeout_s=0.5).connect()

    path = str(tmp_path / "other")
    with pytest.raises(NotRunning):
        asyncio.run(body(path))
    with FakeDaemon(path, version=PROTOCOL_VERSION + 1), pytest.raises(VersionMismatch):
        asyncio.run(body(path))
    with FakeDaemon(path) as daemon:
        daemon.reads.clear()
        with pytest.raises(Unavailable, match="did not answer"):
            asyncio.run(body(path))

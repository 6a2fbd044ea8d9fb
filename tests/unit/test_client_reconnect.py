"""The clients when the daemon goes, and comes back, or does not: who dials, who waits, and what arrives."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import uvloop

from poolmgr.client.aio import AsyncClient
from poolmgr.client.future import TaskFuture
from poolmgr.client.sync import Client
from poolmgr.errors import ConnectionLost, NotFound, NotRunning, OutcomeUnknown, TaskCancelled, TaskLost, WrongState
from poolmgr.wire.messages import ACCEPTED, COMPLETED, REFUSED, REQUEST, SUBMIT
from poolmgr.wire.values import pack
from tests.unit.fake_daemon import GRACE_S, FakeDaemon


class Daemons:
    """One daemon after another on the same path."""

    def __init__(self, path: str, stack: ExitStack) -> None:
        self.path = path
        self._stack = stack
        self.now = stack.enter_context(FakeDaemon(path))

    def start(self, **arguments: Any) -> FakeDaemon:
        """End the one there is, and start the next."""
        self.now.stop()
        self.now = self._stack.enter_context(FakeDaemon(self.path, **arguments))
        return self.now


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    with ExitStack() as stack:
        yield Daemons(str(tmp_path / "s"), stack)


@pytest.fixture
def pool(daemons: Daemons) -> Iterator[Client]:
    client = Client(daemons.path)
    yield client
    client.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def heard_ids(daemon: FakeDaemon, count: int) -> list[bytes]:
    return [daemon.hear(SUBMIT)[1] for _ in range(count)]


def submit_held(daemons: Daemons, pool: Client, *values: object) -> list[TaskFuture[Any]]:
    """Tasks that the daemon has read, and neither ends nor, if it was told not to, acknowledges."""
    futures = [pool.submit("hold", value) for value in values]
    assert heard_ids(daemons.now, len(values)) == [future.key for future in futures]
    return futures


# -------------------------------------------------------------------------------------------- every order of loss


def test_lost_before_it_was_sent(daemons: Daemons, pool: Client) -> None:
    daemons.now.stop()
    future = pool.submit("echo", 5)  # into a connection that nobody has found broken yet
    daemons.start()
    assert future.result(timeout=GRACE_S) == 5
    assert daemons.now.hear(SUBMIT)[1] == future.key


def test_lost_before_it_was_acknowledged(daemons: Daemons, pool: Client) -> None:
    daemons.now.acknowledges = False
    peer = daemons.now.peer()
    futures = [pool.submit("hold", n) for n in range(5)]
    before = [daemons.now.hear(SUBMIT) for _ in futures]
    peer.send((ACCEPTED, 2))
    futures[1].accepted(timeout=GRACE_S)
    after = daemons.start()
    with pytest.raises(TimeoutError):
        futures[4].result(timeout=0.3)
    assert [after.hear(SUBMIT) for _ in range(3)] == before[2:]
    assert [after.watched.get(timeout=GRACE_S) for _ in range(2)] == [futures[0].key, futures[1].key]
    pool.flush(timeout=GRACE_S)
    peer = after.peer()
    peer.send(*[(COMPLETED, future.key, pack(n)) for n, future in enumerate(futures)])
    assert [future.result(timeout=GRACE_S) for future in futures] == list(range(5))


def test_lost_after_it_was_acknowledged(daemons: Daemons, pool: Client) -> None:
    (future,) = submit_held(daemons, pool, 1)
    future.accepted(timeout=GRACE_S)
    after = daemons.start(ends={future.key: (COMPLETED, future.key, pack("the end"))})
    assert future.result(timeout=GRACE_S) == "the end"
    assert after.hear(REQUEST)[2:] == ["watch", {"id": future.key}]


def test_lost_after_it_has_ended(daemons: Daemons, pool: Client) -> None:
    daemons.now.acknowledges = False
    done, undone = pool.submit("echo", 1), pool.submit("hold", 2)
    assert done.result(timeout=GRACE_S) == 1
    after = daemons.start()
    pool.flush(timeout=GRACE_S)
    assert after.hear(SUBMIT)[1] == undone.key
    assert after.watched.empty()
    assert done.result() == 1
    done.accepted(timeout=0)


def test_lost_twice_in_a_row(daemons: Daemons, pool: Client, threads: ThreadPoolExecutor) -> None:
    daemons.now.acknowledges = False
    futures = submit_held(daemons, pool, 1, 2)
    waiting = [threads.submit(future.result, GRACE_S) for future in futures]
    for acknowledges in (False, True):
        daemons.now.stop()
        daemons.start(acknowledges=acknowledges)
        assert heard_ids(daemons.now, 2) == [future.key for future in futures]
    daemons.now.peer().release()
    assert [each.result(GRACE_S) for each in waiting] == [1, 2]


def test_the_daemon_never_comes_back(daemons: Daemons) -> None:
    pool = Client(daemons.path, reconnect_s=0.12)
    (accepted,) = submit_held(daemons, pool, 1)
    accepted.accepted(timeout=GRACE_S)
    daemons.now.acknowledges = False
    (unknown,) = submit_held(daemons, pool, 2)
    daemons.now.stop()
    with pytest.raises(ConnectionLost, match="is safe: ask for it"):
        accepted.result(timeout=GRACE_S)
    for attempt in (unknown.accepted, unknown.result):
        with pytest.raises(ConnectionLost, match=r"no daemon answers.*was not acknowledged"):
            attempt(timeout=GRACE_S)
    accepted.accepted()
    with pytest.raises(ConnectionLost, match="1 tasks were not acknowledged"):
        pool.flush()
    with pytest.raises(NotRunning):
        pool.submit("echo", 1)
    daemons.start()
    assert pool.submit("echo", 1).result(timeout=GRACE_S) == 1
    pool.close()


def test_the_callers_own_patience_may_end_before(daemons: Daemons, pool: Client) -> None:
    daemons.now.acknowledges = False
    (future,) = submit_held(daemons, pool, 1)
    daemons.now.stop()
    for attempt in (future.result, future.exception, future.accepted, pool.flush):
        with pytest.raises(TimeoutError):
            attempt(timeout=0.01)
    daemons.start()
    future.accepted(timeout=GRACE_S)
    assert not future.done()


# ---------------------------------------------------------------------------------------------------- who waits


def test_many_threads_wait_and_each_gets_its_own(daemons: Daemons, pool: Client, threads: ThreadPoolExecutor) -> None:
    daemons.now.acknowledges = False
    futures = submit_held(daemons, pool, *range(7))
    waiting = [threads.submit(future.result, GRACE_S) for future in futures]
    waiting.append(threads.submit(pool.flush, GRACE_S))
    daemons.now.stop()
    after = daemons.start()
    assert heard_ids(after, 7) == [future.key for future in futures]
    after.peer().release()
    assert [each.result(GRACE_S) for each in waiting] == [*range(7), None]


def test_callbacks_and_as_completed_need_nobody_who_waits(daemons: Daemons, pool: Client) -> None:
    called: Queue[Any] = Queue()
    futures = submit_held(daemons, pool, 1, 2)
    pool.flush(timeout=GRACE_S)
    futures[0].add_done_callback(called.put)
    daemons.start(ends={future.key: (COMPLETED, future.key, pack(8)) for future in futures})
    assert called.get(timeout=GRACE_S) is futures[0]
    assert {future.result() for future in as_completed(futures, timeout=GRACE_S)} == {8}


def test_a_program_that_only_asks_whether_it_is_done_is_told(daemons: Daemons, pool: Client) -> None:
    (future,) = submit_held(daemons, pool, 1)
    future.accepted(timeout=GRACE_S)
    daemons.now.stop()
    assert not future.done()
    daemons.start(ends={future.key: (COMPLETED, future.key, pack(8))})
    while not future.done():
        pass
    assert future.result(timeout=0) == 8


def test_the_next_call_connects_at_once_and_resumes(
    daemons: Daemons, pool: Client, threads: ThreadPoolExecutor
) -> None:
    daemons.now.acknowledges = False
    (future,) = submit_held(daemons, pool, 1)
    waiting = threads.submit(future.result, GRACE_S)
    daemons.now.stop()
    while future._link.protocol.down is None:
        pass
    for attempt in (lambda: pool.run("echo", 1), lambda: pool.submit("echo", 1), pool.status, future.cancel):
        with pytest.raises(NotRunning):
            attempt()
    daemons.start()
    assert pool.run("echo", 1) == 1
    daemons.now.peer().release()
    assert waiting.result(GRACE_S) == 1


def test_cancel_reaches_the_next_daemon(daemons: Daemons, pool: Client) -> None:
    daemons.now.acknowledges = False
    (future,) = submit_held(daemons, pool, 1)
    daemons.start()
    assert not future.done()
    assert future.cancel()
    with pytest.raises(TaskCancelled):
        future.result(timeout=GRACE_S)


def test_progress_goes_on(daemons: Daemons, pool: Client) -> None:
    daemons.now.acknowledges = False
    future = pool.submit("progress", 1)
    while future.progress is None:
        pass
    daemons.start()
    pool.flush(timeout=GRACE_S)
    daemons.now.peer().send((24, future.key, 0.75, "more"))
    while future.progress != (0.75, "more"):
        pass


def test_calls_are_lost_beside_durable_tasks_that_are_not(
    daemons: Daemons, pool: Client, threads: ThreadPoolExecutor
) -> None:
    (durable,) = submit_held(daemons, pool, 1)
    call = pool.using(durable=False).submit("hold", 2)
    running, request = threads.submit(pool.run, "hold", 3), threads.submit(pool.using(durable=True).run, "hold", 4)
    heard_ids(daemons.now, 3)
    pool.flush(timeout=GRACE_S)
    after = daemons.start(ends={durable.key: (COMPLETED, durable.key, pack("kept"))})
    assert durable.result(timeout=GRACE_S) == "kept"
    for attempt in (call.result, running.result):
        with pytest.raises(TaskLost):
            attempt(timeout=GRACE_S)
    keys = {after.watched.get(timeout=GRACE_S) for _ in range(2)}
    (key,) = keys - {durable.key}
    after.peer().send((COMPLETED, key, pack("of a durable run")))
    assert request.result(GRACE_S) == "of a durable run"


def test_a_durable_map_goes_on(daemons: Daemons, pool: Client) -> None:
    results = pool.using(durable=True).map("echo", range(3000), chunksize=10)
    got = [next(results) for _ in range(50)]
    daemons.start()
    assert [*got, *results] == list(range(3000))


@pytest.mark.parametrize("timeout", [None, 0.05])
def test_the_block_left_while_the_daemon_is_away_waits_for_the_acknowledgement(
    daemons: Daemons, timeout: float | None
) -> None:
    daemons.now.acknowledges = False
    pool = Client(daemons.path, reconnect_s=0.1)
    expected = ConnectionLost if timeout is None else TimeoutError
    with pytest.raises(expected, match="1 tasks were not acknowledged"), pool:  # noqa: PT012  -- it is the block's end
        submit_held(daemons, pool, 1)
        daemons.now.stop()
        if timeout is not None:
            pool.flush(timeout)
    with pytest.raises(WrongState):
        pool.status()


def test_close_ends_the_waiting_for_a_daemon_that_is_away(
    daemons: Daemons, pool: Client, threads: ThreadPoolExecutor
) -> None:
    futures = submit_held(daemons, pool, 1, 2, 3)
    daemons.now.stop()
    waiting = [threads.submit(future.exception) for future in futures]
    with pytest.raises(TimeoutError):
        futures[0].result(timeout=0.01)
    pool.close()
    assert all(isinstance(each.result(GRACE_S), ConnectionLost) for each in waiting)


# ------------------------------------------------------------------------------------------- what the daemon says


def test_a_task_that_the_next_daemon_does_not_know_is_a_clear_error(daemons: Daemons, pool: Client) -> None:
    (future,) = submit_held(daemons, pool, 1)
    future.accepted(timeout=GRACE_S)
    daemons.start(remembers=False)
    with pytest.raises(NotFound, match="result_ttl_s"):
        future.result(timeout=GRACE_S)
    future.accepted()


def test_a_resend_that_is_too_old_is_unknown(daemons: Daemons, pool: Client) -> None:
    daemons.now.acknowledges = False
    (future,) = submit_held(daemons, pool, 1)
    after = daemons.start(acknowledges=False)
    assert not future.done()
    after.hear(SUBMIT)
    after.peer().send((REFUSED, future.key, "outcome_unknown", "older than all that is kept"), (ACCEPTED, 1))
    for attempt in (future.accepted, future.result):
        with pytest.raises(OutcomeUnknown):
            attempt(timeout=GRACE_S)


def test_a_forked_child_does_not_resume_what_is_its_parents(daemons: Daemons, pool: Client) -> None:
    daemons.now.acknowledges = False
    (future,) = submit_held(daemons, pool, 1)
    daemons.now.stop()
    with pytest.raises(TimeoutError):
        future.result(timeout=0.01)
    daemons.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks while there are threads
        child = os.fork()
    if not child:
        try:
            right = pool.run("echo", 5) == 5 and isinstance(future.exception(), ConnectionLost)
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (key,) = heard_ids(daemons.now, 1)
    assert key != future.key
    future.accepted(timeout=GRACE_S)
    assert heard_ids(daemons.now, 1) == [future.key]


# ---------------------------------------------------------------------------------------------------- the async one

Play = Callable[[Callable[[AsyncClient], Awaitable[None]]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def play(daemons: Daemons, request: pytest.FixtureRequest) -> Play:
    """Runs a coroutine function with a connected client, and ends both."""

    async def scene(body: Callable[[AsyncClient], Awaitable[None]]) -> None:
        async with asyncio.timeout(2 * GRACE_S), AsyncClient(daemons.path) as pool:
            await body(pool)

    return lambda body: request.param(scene(body))


def test_async_futures_are_resumed(daemons: Daemons, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        accepted = pool.submit("hold", 1)
        await accepted.accepted()
        daemons.now.acknowledges = False
        others = [pool.submit("hold", n) for n in range(2, 5)]
        call = pool.using(durable=False).submit("hold", 5)
        await asyncio.to_thread(heard_ids, daemons.now, 5)
        waiting = [asyncio.ensure_future(future) for future in (accepted, *others)]
        ends = {accepted.key: (COMPLETED, accepted.key, pack(1))}
        after = await asyncio.to_thread(lambda: daemons.start(ends=ends))
        with pytest.raises(TaskLost):
            await call
        await pool.flush(timeout=GRACE_S)
        assert heard_ids(after, 3) == [future.key for future in others]
        (await asyncio.to_thread(after.peer)).release()
        assert await asyncio.gather(*waiting) == [1, 2, 3, 4]

    play(body)


def test_async_futures_are_resumed_twice_in_a_row(daemons: Daemons, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        daemons.now.acknowledges = False
        futures = [pool.submit("hold", n) for n in range(3)]
        for acknowledges in (False, True):
            await asyncio.to_thread(heard_ids, daemons.now, 3)
            await asyncio.to_thread(partial(daemons.start, acknowledges=acknowledges))
        for future in futures:
            await future.accepted(timeout=GRACE_S)
        assert heard_ids(daemons.now, 3) == [future.key for future in futures]
        (await asyncio.to_thread(daemons.now.peer)).release()
        assert await asyncio.gather(*futures) == [0, 1, 2]

    play(body)


def test_async_calls_connect_at_once_or_say_that_no_daemon_is_there(daemons: Daemons, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        future = pool.submit("hold", 1)
        await future.accepted()
        await asyncio.to_thread(daemons.now.stop)
        with pytest.raises(TimeoutError):
            await future.result(timeout=0.02)
        with pytest.raises(ConnectionLost, match="connect"):
            pool.submit("echo", 1)
        for attempt in (lambda: pool.run("echo", 1), pool.status, future.cancel):
            with pytest.raises(NotRunning):
                await attempt()
        await asyncio.to_thread(lambda: daemons.start(ends={future.key: (COMPLETED, future.key, pack(9))}))
        assert await asyncio.gather(*(pool.run("echo", n) for n in range(5))) == list(range(5))
        assert await future == 9

    play(body)


def test_async_futures_fail_when_patience_ends(daemons: Daemons) -> None:
    async def body() -> None:
        pool = await AsyncClient(daemons.path, reconnect_s=0.12).connect()
        accepted = pool.submit("hold", 1)
        await accepted.accepted()
        daemons.now.acknowledges = False
        unknown = pool.submit("hold", 2)
        await asyncio.to_thread(heard_ids, daemons.now, 2)
        await asyncio.to_thread(daemons.now.stop)
        with pytest.raises(ConnectionLost, match="1 tasks were not acknowledged"):
            await pool.flush(timeout=GRACE_S)
        with pytest.raises(ConnectionLost, match="is safe"):
            await accepted
        await accepted.accepted()
        for attempt in (unknown.accepted, unknown.result):
            with pytest.raises(ConnectionLost, match="was not acknowledged"):
                await attempt()
        with pytest.raises(NotRunning):
            await pool.run("echo", 1)
        await pool.close()

    asyncio.run(body())


def test_closing_an_async_client_ends_the_waiting(daemons: Daemons, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        future = pool.submit("hold", 1)
        await future.accepted()
        await asyncio.to_thread(daemons.now.stop)
        with pytest.raises(TimeoutError):
            await future.result(timeout=0.02)
        attempt = asyncio.ensure_future(pool.status())
        await asyncio.sleep(0)
        await pool.close()
        assert isinstance(await future.exception(), ConnectionLost)
        with pytest.raises((ConnectionLost, NotRunning)):
            await attempt

    play(body)


def test_a_durable_async_map_goes_on(daemons: Daemons, play: Play) -> None:
    async def body(pool: AsyncClient) -> None:
        results = pool.using(durable=True).map("echo", range(3000), chunksize=10)
        got = [await anext(results) for _ in range(50)]
        await asyncio.to_thread(daemons.start)
        assert [*got, *[result async for result in results]] == list(range(3000))

    play(body)

"""The sync client's threads: who reads, who follows, who is told, and what a broken connection does to them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from poolmgr.client.future import TaskFuture
from poolmgr.client.sync import Client
from poolmgr.errors import BadValue, ConnectionLost, PoolError, TaskCancelled, TaskFailed, TaskLost, UnknownTask
from poolmgr.wire.messages import ACCEPTED, SUBMIT
from tests.unit.fake_daemon import GRACE_S, FakeDaemon, Peer


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(str(tmp_path / "s")) as running:
        yield running


@pytest.fixture
def pool(daemon: FakeDaemon) -> Iterator[Client]:
    client = Client(daemon.path)
    yield client
    client.close()


@pytest.fixture
def peer(daemon: FakeDaemon, pool: Client) -> Peer:
    return daemon.peer()


def hold(daemon: FakeDaemon, pool: Client, value: object) -> TaskFuture[Any]:
    """A task that the daemon has, and does not end by itself."""
    future = pool.submit("hold", value)
    while daemon.hear(SUBMIT)[1] != future.key:
        pass
    return future


def in_thread(function: Any, *args: Any) -> Queue[Any]:
    """What the function returns or raises, once it does."""
    outcome: Queue[Any] = Queue()

    def target() -> None:
        try:
            outcome.put(function(*args))
        except BaseException as error:
            outcome.put(error)

    threading.Thread(target=target, daemon=True).start()
    return outcome


# ------------------------------------------------------------------------------------------------- one thread


def test_results_come_to_those_who_ask(pool: Client) -> None:
    futures = [pool.submit("echo", n) for n in range(500)]
    assert [future.result() for future in reversed(futures)] == list(reversed(range(500)))


def test_result_gives_up_in_time_and_the_task_goes_on(daemon: FakeDaemon, pool: Client, peer: Peer) -> None:
    future = hold(daemon, pool, 5)
    for attempt in (future.result, future.exception):
        with pytest.raises(TimeoutError, match=future.id):
            attempt(timeout=0.001)
    peer.release()
    assert future.result(timeout=GRACE_S) == 5


def test_a_program_that_only_asks_whether_it_is_done_is_told(daemon: FakeDaemon, pool: Client, peer: Peer) -> None:
    future = hold(daemon, pool, 5)
    assert not future.done()
    assert not future.cancelled()
    peer.release()
    while not future.done():
        pass
    assert future.result(timeout=0) == 5


def test_progress_is_the_latest_report(pool: Client) -> None:
    future = pool.submit("progress", 1)
    while future.progress is None:
        assert not future.done()
    assert future.progress == (0.5, "half")
    assert future.running()
    assert repr(future) == f"<TaskFuture {future.id} running>"


def test_accepted_returns_when_the_daemon_has_acknowledged(daemon: FakeDaemon, pool: Client, peer: Peer) -> None:
    daemon.acknowledges = False
    future = hold(daemon, pool, 1)
    with pytest.raises(TimeoutError):
        future.accepted(timeout=0.001)
    peer.send((ACCEPTED, 1))
    future.accepted(timeout=GRACE_S)
    assert not future.done()


def test_a_refusal_raises_from_accepted_and_from_result(pool: Client) -> None:
    future = pool.submit("refuse")
    for attempt in (future.accepted, future.result):
        with pytest.raises(UnknownTask, match="no such handler"):
            attempt(timeout=GRACE_S)
    assert isinstance(future.exception(), UnknownTask)


def test_a_failure_is_one_error_however_often_it_is_asked_for(pool: Client) -> None:
    future = pool.submit("fail", "boo")
    with pytest.raises(TaskFailed, match="boo") as caught:
        future.result()
    assert future.exception() is caught.value
    assert caught.value.task_id == future.id
    assert not future.cancelled()


@pytest.mark.parametrize(("name", "kind"), [("damaged", BadValue), ("short", PoolError)])
def test_a_result_that_cannot_be_read_is_the_error_of_its_task(pool: Client, name: str, kind: type[PoolError]) -> None:
    future = pool.submit(name)
    with pytest.raises(kind):
        future.result(timeout=GRACE_S)
    assert pool.run("echo", 1) == 1


def test_cancel_is_true_only_if_the_task_never_began(daemon: FakeDaemon, pool: Client) -> None:
    waiting, begun, done = hold(daemon, pool, 1), pool.submit("swallow"), pool.submit("echo", 3)
    assert done.result() == 3
    assert [waiting.cancel(), begun.cancel(), done.cancel()] == [True, False, False]
    assert [waiting.cancelled(), begun.cancelled(), done.cancelled()] == [True, False, False]
    assert waiting.cancel()
    for attempt in (waiting.result, waiting.exception):
        with pytest.raises(TaskCancelled):
            attempt()


# ----------------------------------------------------------------------------------------------- many threads


def test_threads_each_get_their_own(pool: Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        sums = list(threads.map(lambda k: [pool.run("echo", (k, n)) for n in range(100)], range(8)))
    assert sums == [[(k, n) for n in range(100)] for k in range(8)]


def test_a_thread_that_reads_delivers_to_the_others(daemon: FakeDaemon, pool: Client, peer: Peer) -> None:
    first = hold(daemon, pool, 1)
    leader = in_thread(first.result)
    others = [in_thread(pool.run, "echo", n) for n in range(5)]
    assert [each.get(timeout=GRACE_S) for each in others] == [0, 1, 2, 3, 4]
    peer.release()
    assert leader.get(timeout=GRACE_S) == 1


def test_a_thread_that_has_its_result_hands_the_reading_over(daemon: FakeDaemon, pool: Client, peer: Peer) -> None:
    futures = [hold(daemon, pool, n) for n in range(6)]
    waiting = [in_thread(future.result) for future in futures]
    for n, (future, outcome) in enumerate(zip(futures, waiting, strict=True)):
        args = peer.held.pop(future.key)
        peer.held, held = {future.key: args}, peer.held
        peer.release()
        assert outcome.get(timeout=GRACE_S) == n
        peer.held = held


def test_many_may_wait_for_one(daemon: FakeDaemon, pool: Client, peer: Peer) -> None:
    future = hold(daemon, pool, [7])
    waiting = [in_thread(future.result) for _ in range(6)]
    peer.release()
    assert [each.get(timeout=GRACE_S) for each in waiting] == [[7]] * 6


def test_a_follower_gives_up_in_time(daemon: FakeDaemon, pool: Client, peer: Peer) -> None:
    first, second = hold(daemon, pool, 1), hold(daemon, pool, 2)
    leader = in_thread(first.result)
    with pytest.raises(TimeoutError):
        second.result(timeout=0.01)
    peer.release()
    assert leader.get(timeout=GRACE_S) == 1
    assert second.result(timeout=GRACE_S) == 2


# ------------------------------------------------------------------------------------- the standard library's code


def test_as_completed_sees_each_once(pool: Client) -> None:
    futures = [pool.submit("echo", n) for n in range(300)]
    assert sorted(future.result() for future in as_completed(futures, timeout=GRACE_S)) == list(range(300))


def test_wait_returns_with_the_first(daemon: FakeDaemon, pool: Client, peer: Peer) -> None:
    held, quick = hold(daemon, pool, 1), pool.submit("echo", 2)
    done, pending = wait([held, quick], timeout=GRACE_S, return_when=FIRST_COMPLETED)
    assert (done, pending) == ({quick}, {held})
    peer.release()
    assert wait([held, quick], timeout=GRACE_S).not_done == set()


def test_wait_returns_with_the_first_failure(daemon: FakeDaemon, pool: Client) -> None:
    held, bad = hold(daemon, pool, 1), pool.submit("fail", "boo")
    assert wait([held, bad], timeout=GRACE_S, return_when=FIRST_EXCEPTION).done == {bad}


def test_asyncio_can_wait_for_it(pool: Client) -> None:
    async def body() -> Any:
        return await asyncio.wrap_future(pool.submit("echo", 5))

    assert asyncio.run(body()) == 5


def test_callbacks_run_although_nobody_waits(daemon: FakeDaemon, pool: Client, peer: Peer) -> None:
    called: Queue[Any] = Queue()
    future = hold(daemon, pool, 1)
    future.add_done_callback(called.put)
    peer.release()
    assert called.get(timeout=GRACE_S) is future
    future.add_done_callback(called.put)
    assert called.get(block=False) is future


def test_a_callback_may_wait_for_another_task(daemon: FakeDaemon, pool: Client, peer: Peer) -> None:
    called: Queue[Any] = Queue()
    first, second = hold(daemon, pool, 1), hold(daemon, pool, 2)
    first.add_done_callback(lambda future: called.put((second.result(), pool.run("echo", 3))))
    second.add_done_callback(lambda future: called.put((first.result(), pool.run("echo", 4))))
    waiting = in_thread(first.result)
    peer.release()
    assert sorted([called.get(timeout=GRACE_S), called.get(timeout=GRACE_S)]) == [(1, 4), (2, 3)]
    assert waiting.get(timeout=GRACE_S) == 1


def test_the_background_reader_and_waiting_threads_get_along(daemon: FakeDaemon, pool: Client, peer: Peer) -> None:
    called: Queue[Any] = Queue()
    observed = hold(daemon, pool, 1)
    observed.add_done_callback(called.put)
    assert [pool.run("echo", n) for n in range(50)] == list(range(50))
    peer.release()
    assert called.get(timeout=GRACE_S) is observed
    assert [pool.run("echo", n) for n in range(50)] == list(range(50))


# -------------------------------------------------------------------------------------- windows and full buffers


def test_submit_waits_while_the_window_is_full(tmp_path: Path) -> None:
    with FakeDaemon(str(tmp_path / "s"), info={"window": 10}) as daemon, Client(daemon.path) as pool:
        daemon.acknowledges = False
        peer = daemon.peer()
        submitted = in_thread(lambda: [pool.submit("echo", n) for n in range(11)])
        for _ in range(10):
            daemon.hear(SUBMIT)
        assert submitted.empty()
        assert daemon.heard.empty()
        peer.send((ACCEPTED, 4))
        assert [future.result() for future in submitted.get(timeout=GRACE_S)] == list(range(11))
        peer.send((ACCEPTED, 11))


def test_a_daemon_that_is_slow_to_read_gets_everything_although_nobody_waits(daemon: FakeDaemon, pool: Client) -> None:
    daemon.reads.clear()
    for n in range(3000):
        pool.submit("echo", bytes(1000) if n % 2 else n)
    daemon.reads.set()
    for _ in range(3000):
        daemon.hear(SUBMIT)


def test_both_sides_may_have_more_to_send_than_fits(pool: Client) -> None:
    blob = bytes(20_000)
    futures = [pool.submit("echo", blob) for _ in range(500)]
    assert all(future.result() == blob for future in futures)
    pool.flush(timeout=GRACE_S)


def test_threads_may_submit_more_than_fits_while_another_reads(daemon: FakeDaemon, pool: Client, peer: Peer) -> None:
    reader = in_thread(hold(daemon, pool, 1).result)
    blob = bytes(3_000_000)
    with ThreadPoolExecutor(4) as threads:
        assert all(each == blob for each in threads.map(lambda _: pool.run("echo", blob), range(12)))
    peer.release()
    assert reader.get(timeout=GRACE_S) == 1


# ------------------------------------------------------------------------------------------------------- the end


def test_when_the_daemon_goes_everybody_is_told(daemon: FakeDaemon) -> None:
    pool = Client(daemon.path, reconnect_s=0)
    durable, called = hold(daemon, pool, 1), Queue[Any]()
    observed = hold(daemon, pool, 2)
    observed.add_done_callback(called.put)
    waiting = [in_thread(durable.result), in_thread(pool.run, "hold", 3), in_thread(pool.status)]
    daemon.hear(SUBMIT)
    daemon.stop()
    kept, call, request = (each.get(timeout=GRACE_S) for each in waiting)
    assert isinstance(kept, ConnectionLost)
    assert durable.id in str(kept)
    assert isinstance(call, TaskLost)
    assert isinstance(request, PoolError)
    assert called.get(timeout=GRACE_S) is observed
    assert isinstance(observed.exception(), ConnectionLost)


def test_a_task_that_was_acknowledged_is_said_to_be_safe(daemon: FakeDaemon) -> None:
    pool = Client(daemon.path, reconnect_s=0)
    future = pool.submit("die")
    with pytest.raises(ConnectionLost, match="is safe"):
        future.result(timeout=GRACE_S)
    future.accepted()


def test_garbage_ends_the_connection_and_the_next_call_makes_another(pool: Client) -> None:
    with pytest.raises(TaskLost):
        pool.run("garbage")
    assert pool.run("echo", 1) == 1


def test_close_ends_the_waiting_of_every_thread(daemon: FakeDaemon, pool: Client) -> None:
    waiting = [in_thread(hold(daemon, pool, n).result) for n in range(3)]
    pool.close()
    for each in waiting:
        assert isinstance(each.get(timeout=GRACE_S), ConnectionLost)


class Alarm(Exception):
    """What the signal handler raises."""


def test_a_signal_handler_may_interrupt_the_wait_and_nothing_is_lost(
    daemon: FakeDaemon, pool: Client, peer: Peer
) -> None:
    def ring(number: int, frame: object) -> None:
        raise Alarm

    future = hold(daemon, pool, 5)
    before = signal.signal(signal.SIGUSR1, ring)
    try:
        with pytest.raises(Alarm):  # noqa: PT012  -- the signal may come before the wait begins
            in_thread(signal.pthread_kill, threading.get_ident(), signal.SIGUSR1)
            future.result(timeout=GRACE_S)
    finally:
        signal.signal(signal.SIGUSR1, before)
    peer.release()
    assert future.result(timeout=GRACE_S) == 5

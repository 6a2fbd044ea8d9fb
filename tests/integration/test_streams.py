"""Streams from handlers to readers, through a real daemon and real workers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from poolmgr import AsyncClient, Client
from poolmgr.errors import ChunksDropped, NotFound, PoolError, TaskCancelled, TaskFailed, TaskTimeout
from scripts.proofs.pool import Pool, until

Start = Callable[..., Pool]
MB = 1 << 20


@pytest.fixture
def pool(start_pool: Start) -> Pool:
    return start_pool(app="streaming", breaker_failures=0)


def texts(count: int) -> list[str]:
    return [f"text {number}" * (1 + number % 5) for number in range(count)]


def worker_of(client: Client, task_id: str) -> int:
    """The pid of the process that runs a task."""

    def found() -> int:
        return next((each.pid or 0 for each in client.workers() if each.current_task == task_id), 0)

    return until(found, "it runs")


# ------------------------------------------------------------------------------------------ what a reader sees


@pytest.mark.parametrize("name", ["texts", "texts_async"])
@pytest.mark.parametrize("durable", [False, True])
def test_a_reader_sees_what_is_yielded_in_its_order(pool: Pool, name: str, durable: bool) -> None:
    with pool.client() as client:
        stream = client.using(durable=durable).stream(name, 57)
        assert list(stream) == texts(57)
        assert stream.result() == (57 if name == "texts" else None)
        assert client.metrics()["streams"]["held_bytes"] == 0


def test_async_readers(pool: Pool) -> None:
    async def main() -> None:
        async with AsyncClient(str(pool.socket)) as client:
            assert [chunk async for chunk in client.stream("texts", 30)] == texts(30)
            future = client.submit("texts", 30)
            assert [chunk async for chunk in future] == texts(30)
            assert [chunk async for chunk in client.chunks(future.id, offset=25)] == texts(30)[25:]

    asyncio.run(main())


@pytest.mark.parametrize("durable", [False, True])
def test_an_async_reader_may_give_up_waiting_and_come_back(pool: Pool, tmp_path: Path, durable: bool) -> None:
    os.mkfifo(gate := str(tmp_path / "gate"))

    async def main() -> None:
        async with AsyncClient(str(pool.socket)) as client:
            stream: Any = client.using(durable=durable).stream("texts", 3, 0, gate, 2)
            assert [await anext(stream) for _ in range(2)] == texts(2)
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(stream), 0.005)
            await asyncio.to_thread(lambda: open(gate, "w").close())
            assert [chunk async for chunk in stream] == texts(3)[2:]

    asyncio.run(main())


def test_many_read_one_stream_each_from_where_it_likes(pool: Pool) -> None:
    with pool.client() as client, ThreadPoolExecutor(8) as threads:
        future = client.submit("texts", 200, 10)
        reading = [threads.submit(list, client.chunks(future.id, offset=n)) for n in range(8)]
        assert [each.result(30) for each in reading] == [texts(200)[n:] for n in range(8)]
        assert client.task(future.id).chunks == 200
        assert client.task(future.id).resumes_at == 200


def test_chunks_of_every_size_arrive_whole(pool: Pool) -> None:
    sizes = [0, 1, 31 << 10, 33 << 10, (64 << 10) + 1, MB, 20 * MB, 5]
    expected = [bytes([number]) * size for number, size in enumerate(sizes)]
    with pool.client() as client:
        assert list(client.stream("of_size", *sizes)) == expected
        assert list(client.using(durable=True).stream("of_size", *sizes)) == expected


def test_a_stream_that_fails_raises_behind_its_last_chunk(pool: Pool) -> None:
    with pool.client() as client:
        stream = client.using(max_retries=0).stream("fails_at", 13)
        assert [next(stream) for _ in range(13)] == list(range(13))
        with pytest.raises(TaskFailed, match="at 13"):
            next(stream)


def test_what_was_streamed_is_kept_with_the_result_and_goes_with_it(pool: Pool) -> None:
    with pool.client() as client:
        future = client.submit("of_size", MB, 100)
        future.result(timeout=10)
        assert len(list((pool.state / "spool").iterdir())) == 1
        assert [len(chunk) for chunk in client.chunks(future.id)] == [MB, 100]
        assert client.purge(future.id) == 1
        with pytest.raises(NotFound):
            client.chunks(future.id)


# ------------------------------------------------------------------------------------------ who waits for whom


def test_a_reader_that_stands_still_holds_the_producer_and_one_that_goes_does_not(pool: Pool) -> None:
    with pool.client() as client, pool.client() as other, ThreadPoolExecutor() as threads:
        client.pause("texts")  # what it yields before anybody reads is held by nobody
        future = client.submit("texts", 1000)
        slow = other.chunks(future.id)
        first = threads.submit(next, slow)
        until(lambda: client.metrics()["streams"]["readers"] == 1, "it is read")
        client.resume("texts")
        assert first.result(20) == "text 0"
        until(lambda: client.task(future.id).waiting_for_reader, "it waits")
        assert client.task(future.id).chunks <= 10
        assert client.metrics()["streams"]["waiting_for_reader"] == 1
        slow.close()
        assert future.result(timeout=20) == 1000
        assert list(other.chunks(future.id, offset=slow.offset)) == texts(1000)[1:]


def test_so_does_one_whose_connection_ends(pool: Pool) -> None:
    with pool.client() as client:
        future = client.submit("texts", 1000)
        with pool.client() as other:
            next(slow := other.chunks(future.id))
            until(lambda: client.task(future.id).waiting_for_reader, "it waits")
        assert slow.offset == 1
        assert future.result(timeout=20) == 1000


def test_a_call_waits_for_its_reader_however_long_that_takes(pool: Pool) -> None:
    with pool.client() as client:
        stream = client.using(timeout_s=0.3, soft_timeout_s=0.2).stream("texts", 100)
        assert next(stream) == "text 0"
        until(lambda: client.metrics()["streams"]["waiting_for_reader"] == 1, "it waits")
        threading.Event().wait(0.6)  # longer than it may run
        assert list(stream) == texts(100)[1:]


def test_a_stream_that_runs_too_long_by_itself_is_ended(pool: Pool, tmp_path: Path) -> None:
    os.mkfifo(gate := str(tmp_path / "gate"))
    with pool.client() as client:
        stream = client.using(timeout_s=0.3, max_retries=0).stream("texts", 10, 0, gate, 5)
        assert [next(stream) for _ in range(5)] == texts(5)
        with pytest.raises(TaskTimeout):
            next(stream)


def test_closing_the_stream_of_a_call_ends_the_call(pool: Pool, tmp_path: Path) -> None:
    with pool.client() as client:
        stream = client.stream("cleans_up", str(tmp_path / "ended"))
        for _ in range(25):
            next(stream)
        stream.close()
        until((tmp_path / "ended").exists, "it was closed")
        assert "GeneratorExit" in until((tmp_path / "ended").read_text)
        with pytest.raises(TaskCancelled):
            stream.result()
        until(lambda: client.metrics()["streams"]["live"] == 0, "nothing of it is left")


def test_nobody_reads_a_call_whose_client_has_gone(pool: Pool, tmp_path: Path) -> None:
    with pool.client() as client:
        next(client.stream("cleans_up", str(tmp_path / "ended")))
    until((tmp_path / "ended").exists, "it was closed")


def test_a_durable_stream_that_nobody_reads_stops_at_its_limit(start_pool: Start) -> None:
    pool = start_pool(app="streaming", stream_limit_mb=3)
    with pool.client() as client:
        future = client.submit("of_size", *[MB] * 60)
        until(lambda: client.task(future.id).waiting_for_reader, "it waits")
        assert 3 <= client.task(future.id).chunks <= 20
        stream = client.chunks(future.id)
        assert [len(chunk) for chunk in stream] == [MB] * 60
        assert len(list((pool.state / "spool").iterdir())) < 30, "what was read has made room"
        with pytest.raises(ChunksDropped):
            next(client.chunks(future.id))
        assert client.task(future.id).chunks == 60


# ------------------------------------------------------------------------------------------ what is cut off goes on


@pytest.mark.parametrize("name", ["texts", "texts_async", "texts_and_checkpoints"])
@pytest.mark.parametrize("every", [0, 7])
def test_a_stream_whose_worker_is_killed_goes_on(pool: Pool, tmp_path: Path, name: str, every: int) -> None:
    os.mkfifo(gate := str(tmp_path / "gate"))
    arguments = (100, every, gate, 50) if name != "texts_and_checkpoints" else (100, gate, 50)
    with pool.client() as client:
        future = client.using(retry_backoff_s=0.0).submit(name, *arguments)
        stream = iter(future)
        before = [next(stream) for _ in range(50)]
        until(lambda: future.progress is not None, "it stands at its gate")
        os.kill(worker_of(client, future.id), signal.SIGKILL)
        until(lambda: client.task(future.id).attempt == 2, "it runs again, and nobody else comes to the gate")
        with ThreadPoolExecutor(1) as opener:
            opened = opener.submit(lambda: open(gate, "w").close())
            rest = list(stream)
            opened.result(10)
        expected = [f"text {number}" * (1 + number % 5) for number in range(100)]
        assert before + rest == expected
        assert client.task(future.id).failures == 1


@pytest.mark.parametrize("end", [Pool.kill, Pool.stop], ids=["killed", "stopped"])
@pytest.mark.parametrize("every", [0, 7])
def test_a_reader_goes_on_under_the_next_daemon(
    start_pool: Start, tmp_path: Path, end: Callable[[Pool], int], every: int
) -> None:
    os.mkfifo(gate := str(tmp_path / "gate"))
    pool = start_pool(app="streaming", graceful_shutdown_timeout_s=0.1)
    with pool.client() as client:
        stream: Any = client.using(durable=True).stream("texts", 100, every, gate, 50)
        before = [next(stream) for _ in range(50)]
        end(pool)
        until(lambda: not pool.processes(), "nothing of it is left")
        pool.start()
        with ThreadPoolExecutor(1) as opener:
            opened = opener.submit(lambda: open(gate, "w").close())
            assert before + list(stream) == texts(100)
            opened.result(10)
        assert stream.result(10) == 100


def test_readers_go_on_though_they_ask_when_the_store_is_closed_already(start_pool: Start) -> None:
    pool = start_pool(app="streaming")
    stopped, reading = threading.Event(), threading.Semaphore(0)

    def begun(client: Client, task_id: str) -> Any:
        """A new stream, which takes a daemon that is there."""
        while True:
            try:
                return client.chunks(task_id)
            except PoolError:
                time.sleep(0.01)

    def read(task_id: str) -> None:
        with pool.client() as client:
            while not stopped.is_set():
                stream = begun(client, task_id)
                first = next(stream)
                reading.release()
                assert [first, *stream] == texts(5000)

    with pool.client() as client:
        future = client.submit("texts", 5000)
        future.result(timeout=20)
    with ThreadPoolExecutor(4) as readers:
        results = [readers.submit(read, future.id) for _ in range(4)]
        for _ in range(8):
            assert reading.acquire(timeout=20)
        pool.stop()
        stopped.set()
        pool.start()
        for each in results:
            each.result(20)

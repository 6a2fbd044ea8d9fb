"""A queue that is full, and clients that wait for room instead of being refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from poolmgr import AsyncClient, Client, Executor
from poolmgr.errors import BadOption, ConnectionLost, PoolError, QueueFull, UnknownTask, UsageError
from scripts.proofs.pool import Pool, until
from tests.integration.conftest import Gate


class Full:
    """A daemon whose only worker is busy until the gate opens, and in whose queue ``depth`` tasks wait."""

    def __init__(self, pool: Pool, gate: Gate, depth: int) -> None:
        self.pool = pool
        self.gate = gate
        self.client = pool.client()
        self.client.submit("hold", gate.path).accepted(timeout=10)
        gate.begun()
        self.waiting = [self.client.submit("echo", number) for number in range(depth)]
        self.client.flush(timeout=10)

    def somebody_waits(self, count: int = 1) -> None:
        """Return when so many requests wait for room."""
        until(lambda: self.client.metrics()["queue"]["waiting_for_room"] == count, f"{count} wait for room")


@pytest.fixture
def full(start_pool: Callable[..., Pool], gate: Gate) -> Iterator[Full]:
    made = Full(start_pool(workers=1, max_queue_depth=3), gate, 3)
    yield made
    made.client.close()


def test_a_submit_waits_for_room(full: Full) -> None:
    with full.pool.client() as client, ThreadPoolExecutor() as threads:
        submitting = threads.submit(client.using(block=True).submit, "echo", "late")
        full.somebody_waits()
        assert client.status()["tasks"]["queued"] == 3  # what else this client asks for is answered
        assert not submitting.done()
        full.gate.open()
        future = submitting.result(timeout=10)
        assert future.result(timeout=10) == "late"


def test_a_call_waits_for_room(full: Full) -> None:
    with full.pool.client() as client, ThreadPoolExecutor() as threads:
        calling = threads.submit(client.using(block=True).run, "echo", "late")
        full.somebody_waits()
        full.gate.open()
        assert calling.result(timeout=10) == "late"


def test_nothing_is_submitted_where_there_is_no_room_in_time(full: Full) -> None:
    with full.pool.client() as client:
        with pytest.raises(QueueFull, match="no room in time: 3 tasks wait, and 3 may"):
            client.using(block=True, block_timeout_s=0.05).submit("echo", "never")
        assert client.metrics()["queue"]["waiting_for_room"] == 0
        assert client.metrics()["tasks"]["queued"] == 3


def test_what_cannot_be_submitted_does_not_wait(full: Full) -> None:
    blocking = full.client.using(block=True)
    with pytest.raises(UnknownTask):
        blocking.submit("nothing")
    with pytest.raises(PoolError, match="object"):
        blocking.submit("echo", object())
    with pytest.raises(BadOption):
        full.client.using(block=1)
    with pytest.raises(BadOption):
        full.client.using(block_timeout_s=-1)


def test_those_who_wait_get_room_in_their_order(start_pool: Callable[..., Pool], gate: Gate) -> None:
    """One place at a time comes free: of more, each is used as soon as its client comes to it."""
    pool = start_pool(workers=1, max_queue_depth=1)
    full = Full(pool, gate, 0)
    full.client.submit("hold", gate.path, "queued").accepted(timeout=10)
    with ThreadPoolExecutor(5) as threads, ExitStack() as clients:
        for number in range(5):
            client = clients.enter_context(pool.client())
            threads.submit(client.using(block=True).run, "hold", gate.path, str(number))
            full.somebody_waits(number + 1)
        labels = []
        for left in (4, 3, 2, 1, 0, 0):
            gate.open()
            labels.append(gate.begun().label)
            full.somebody_waits(left)
            until(lambda: full.client.metrics()["queue"]["depth"] == (len(labels) < 6), "who was next is in the queue")
        gate.open()
    full.client.close()
    assert labels == ["queued", "0", "1", "2", "3", "4"]


def test_closing_a_client_ends_its_wait(full: Full) -> None:
    client = full.pool.client()
    with ThreadPoolExecutor() as threads:
        submitting = threads.submit(client.using(block=True).submit, "echo", "never")
        full.somebody_waits()
        client.close()
        with pytest.raises(ConnectionLost):
            submitting.result(timeout=10)
    full.somebody_waits(0)
    assert full.client.metrics()["tasks"]["queued"] == 3


def test_a_daemon_that_stops_says_so_to_whoever_waits(full: Full) -> None:
    with full.pool.client() as client, ThreadPoolExecutor() as threads:
        submitting = threads.submit(client.using(block=True).submit, "echo", "never")
        full.somebody_waits()
        full.client.stop()
        with pytest.raises(PoolError, match="shutting down"):
            submitting.result(timeout=10)
        full.gate.open()


def test_a_map_keeps_to_the_room_that_there_is(start_pool: Callable[..., Pool]) -> None:
    """More calls than may wait; also while others want room."""
    pool = start_pool(workers=2, max_queue_depth=10)
    with pool.client() as client, pool.client() as other, ThreadPoolExecutor() as threads:
        mapping = threads.submit(lambda: list(other.map("echo", range(3000))))
        assert list(client.map("echo", range(3000))) == list(range(3000))
        assert mapping.result(timeout=60) == list(range(3000))
        counts = client.metrics()["tasks"]
        assert (counts["completed"], counts["queued"]) == (6000, 0)


def test_a_map_of_a_name_that_may_not_be_so_many(client: Client) -> None:
    assert list(client.using(max_queued=3).map("add", range(500))) == list(range(500))


def test_a_map_may_wait_for_a_time(full: Full) -> None:
    with pytest.raises(QueueFull, match="no room in time"):
        list(full.client.using(block_timeout_s=0.05).map("echo", range(10)))
    assert full.client.metrics()["tasks"]["queued"] == 3


def test_a_map_that_is_left_keeps_no_room(full: Full) -> None:
    with full.pool.client() as client:
        results = client.using(block=True).map("echo", range(10))
        full.somebody_waits()
        results.close()
        full.somebody_waits(0)
        full.gate.open()
        assert client.using(block=True).run("echo", 1) == 1


def test_an_executor_waits_with_its_client(start_pool: Callable[..., Pool]) -> None:
    pool = start_pool(workers=2, max_queue_depth=5)
    with pool.client() as client, Executor(client=client.using(block=True)) as executor:
        futures = [executor.submit(pow, number, 2) for number in range(100)]
        assert [future.result(timeout=10) for future in futures] == [number**2 for number in range(100)]
        assert list(executor.map(str, range(300))) == [str(number) for number in range(300)]


def test_an_async_submit_waits_for_room(full: Full) -> None:
    async def main() -> None:
        async with AsyncClient(str(full.pool.socket)) as client:
            submitting = asyncio.ensure_future(client.submit_when_room("echo", "late"))
            calling = asyncio.ensure_future(client.using(block=True).run("echo", "later"))
            await asyncio.to_thread(full.somebody_waits, 2)
            assert (await client.status())["tasks"]["queued"] == 3
            full.gate.open()
            assert await (await submitting) == "late"
            assert await calling == "later"

    asyncio.run(main())


def test_an_async_wait_that_is_cancelled_submits_nothing(full: Full) -> None:
    async def main() -> None:
        async with AsyncClient(str(full.pool.socket)) as client:
            submitting = asyncio.ensure_future(client.submit_when_room("echo", "never"))
            await asyncio.to_thread(full.somebody_waits)
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting
            await asyncio.to_thread(full.somebody_waits, 0)
            with pytest.raises(QueueFull):
                await client.using(block_timeout_s=0.05).submit_when_room("echo", "never")
            with pytest.raises(UsageError, match="submit_when_room"):
                client.using(block=True).submit("echo", "never")
            assert (await client.metrics())["tasks"]["queued"] == 3

    asyncio.run(main())


def test_an_async_map_keeps_to_the_room_that_there_is(start_pool: Callable[..., Pool]) -> None:
    async def total(client: AsyncClient, **options: Any) -> int:
        return sum([value async for value in client.using(**options).map("echo", range(1000))])

    async def main() -> None:
        async with AsyncClient(str(pool.socket)) as client:
            totals = await asyncio.gather(total(client), total(client, block=True), total(client, max_queued=3))
            assert list(totals) == [sum(range(1000))] * 3

    pool = start_pool(workers=2, max_queue_depth=10)
    asyncio.run(main())


def test_large_arguments_wait_for_room(full: Full) -> None:
    with full.pool.client() as client, ThreadPoolExecutor() as threads:
        value = bytes(300_000)
        submitting = threads.submit(client.using(block=True).submit, "size_of", value)
        full.somebody_waits()
        full.gate.open()
        assert submitting.result(timeout=10).result(timeout=10) == len(value)


def test_no_more_of_a_name_wait_than_may(client: Client) -> None:
    limited = client.using(max_queued=1, requires={"nobody"})
    waits = limited.submit("add", 1)
    waits.accepted(timeout=10)
    with pytest.raises(QueueFull, match="1 tasks 'add' wait, and 1 may"):
        limited.submit("add", 2).result(timeout=10)
    assert client.run("add", 3) == 3
    waits.cancel()


def test_a_daemon_that_dies_leaves_nobody_waiting(full: Full) -> None:
    with full.pool.client(reconnect_s=0.0) as client, ThreadPoolExecutor() as threads:
        submitting = threads.submit(client.using(block=True).submit, "echo", "never")
        full.somebody_waits()
        full.pool.kill()
        with pytest.raises(ConnectionLost):
            submitting.result(timeout=10)
        full.pool.start()
        full.gate.open()
        assert client.using(block=True).run("echo", "again") == "again"


def test_a_durable_map_goes_on_when_the_daemon_was_killed(start_pool: Callable[..., Pool]) -> None:
    """Calls that were refused, that were promised a place, that waited in the queue: each has its result, once."""
    pool = start_pool(workers=2, max_queue_depth=10)
    with pool.client() as client:
        results = client.using(durable=True, block=True).map("echo", range(400))
        found = [next(results) for _ in range(100)]
        pool.kill()
        pool.start()
        assert found + list(results) == list(range(400))


def test_each_submit_that_had_to_wait_is_one_task(start_pool: Callable[..., Pool]) -> None:
    pool = start_pool(workers=2, max_queue_depth=4)

    def submit_many(first: int) -> list[tuple[str, int]]:
        with pool.client() as client:
            futures = [client.using(block=True).submit("echo", number) for number in range(first, first + 100)]
            return [(future.id, future.result(timeout=30)) for future in futures]

    with ThreadPoolExecutor() as threads:
        found = [each for some in threads.map(submit_many, range(0, 400, 100)) for each in some]
    assert sorted(value for _, value in found) == list(range(400))
    with pool.client() as client:
        known = client.tasks(name="echo", limit=1000)
        assert {info.id for info in known} == {id for id, _ in found}
        assert len(known) == 400
        assert client.metrics()["tasks"]["submitted"] == 400

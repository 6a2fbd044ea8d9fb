"""Durable futures across the end of a daemon and the start of the next on the same state directory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any

import pytest

from poolmgr import AsyncClient
from poolmgr.errors import ConnectionLost, TaskInterrupted, TaskLost
from scripts.proofs.pool import Pool, until
from tests.integration.conftest import Gate

Start = Callable[..., Pool]
COUNT = 200
SUMS = [number + 1 for number in range(COUNT)]


@pytest.mark.parametrize("end", [Pool.kill, Pool.stop], ids=["killed", "stopped"])
def test_every_future_completes_when_the_daemon_is_back(
    start_pool: Start, gate: Gate, end: Callable[[Pool], int]
) -> None:
    """Some had ended, some were acknowledged, some perhaps not even read; two threads and a callback wait."""
    pool = start_pool(workers=2, graceful_shutdown_timeout_s=0.1)
    with pool.client() as client, ThreadPoolExecutor(2) as threads:
        held = client.submit("hold", gate.path, "again")
        gate.begun()
        futures = [client.submit("add", number, 1) for number in range(COUNT)]
        waiting = [threads.submit(futures[n].result, 30) for n in (COUNT // 2, COUNT - 1)]
        called: Queue[Any] = Queue()
        for future in futures[:10]:
            future.add_done_callback(called.put)
        end(pool)
        until(lambda: not pool.processes(), "nothing of it is left")
        pool.start()
        gate.open(2)
        assert held.result(timeout=20) == "again"
        assert [future.result(timeout=20) for future in futures] == SUMS
        assert [each.result(20) for each in waiting] == [SUMS[COUNT // 2], SUMS[-1]]
        assert {called.get(timeout=20).result() for _ in range(10)} == set(SUMS[:10])
        client.flush(timeout=10)
        assert client.submit("add", 1, 2).result(timeout=10) == 3


def test_async_futures_complete_when_the_daemon_is_back(start_pool: Start) -> None:
    pool = start_pool(workers=2)

    async def main() -> None:
        async with AsyncClient(str(pool.socket)) as client:
            futures = [client.submit("add", number, 1) for number in range(COUNT)]
            await futures[0].accepted(timeout=10)
            waiting = asyncio.gather(*futures)
            await asyncio.to_thread(pool.kill)
            await asyncio.to_thread(pool.start)
            async with asyncio.timeout(20):
                assert await waiting == SUMS

    asyncio.run(main())


def test_what_cannot_be_resumed_says_why(start_pool: Start, gate: Gate) -> None:
    """A call is lost; a task that may not be run again has ended; and without a daemon patience ends."""
    pool = start_pool(workers=2)
    with pool.client(reconnect_s=20) as client, pool.client(reconnect_s=0.2) as hasty:
        call = client.using(durable=False).submit("hold", gate.path, "lost")
        once = client.using(restartable=False).submit("hold", gate.path, "never again")
        gate.begun(), gate.begun()
        delayed = hasty.using(delay_s=60).submit("add", 1, 2)
        delayed.accepted(timeout=10)
        pool.kill()
        with pytest.raises(TaskLost):
            call.result(timeout=10)
        with pytest.raises(ConnectionLost, match="is safe"):
            delayed.result(timeout=10)
        pool.start()
        with pytest.raises(TaskInterrupted):
            once.result(timeout=10)
        assert hasty.cancel(delayed.id)


def test_cancel_reaches_the_next_daemon(start_pool: Start, gate: Gate) -> None:
    pool = start_pool(workers=1)
    with pool.client() as client:
        held = client.submit("hold", gate.path, "again")
        gate.begun()
        waiting = client.submit("add", 1, 2)
        client.flush(timeout=10)
        pool.kill()
        until(lambda: not pool.processes(), "nothing of it is left")
        pool.start()
        assert gate.begun().attempt == 2
        assert not waiting.done()  # it looks, and finds that the connection has broken
        assert waiting.cancel()
        assert not held.cancel()
        gate.open()
        assert held.result(timeout=10) == "again"

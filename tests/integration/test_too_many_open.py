"""A client that may open no more files: its large results come all the same."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from poolmgr import AsyncClient, Client
from poolmgr.client.files import Files
from scripts.proofs.pool import Pool

MB = 1 << 20


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Not one is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as taken:
        taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        with suppress(OSError):
            while True:
                taken.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        yield


@pytest.fixture
def plenty(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forgets that there were too few."""
    return lambda: monkeypatch.setattr(Files, "_scarce_until", 0.0)


def test_a_client_at_its_limit_gets_its_durable_results_inline(
    shared_pool: Pool, client: Client, plenty: Callable[[], None]
) -> None:
    plenty()
    for _ in range(2):
        client.run("zeros", MB)
    assert client._redial.live().protocol.files.granted
    futures = [client.submit("zeros", MB + number) for number in range(5)]
    slow = client.submit("nap", 0.5)
    with no_more_descriptors():
        assert [len(each.result(timeout=20)) for each in futures] == [MB + number for number in range(5)]
    slow.result(timeout=20)
    assert len(client.run("zeros", MB)) == MB


def test_an_async_client_does_the_same(shared_pool: Pool, plenty: Callable[[], None]) -> None:
    async def results() -> None:
        plenty()
        async with AsyncClient(str(shared_pool.socket)) as client:
            for _ in range(2):
                await client.run("zeros", MB)
            link = client._redial.link
            assert link is not None
            assert link.protocol.files.granted
            await asyncio.get_running_loop().run_in_executor(None, len, "")  # its thread is there
            futures = [client.submit("zeros", MB + number) for number in range(5)]
            with no_more_descriptors():
                for number, each in enumerate(futures):
                    assert len(await each.result(timeout=20)) == MB + number
            assert len(await client.run("zeros", MB)) == MB

    asyncio.run(results())

"""Circuit breakers in a real daemon: they open, hold, probe and close, are shown, reset, and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from poolmgr import AsyncClient, Client
from poolmgr.breaker import BreakerInfo, BreakerState
from poolmgr.errors import TaskFailed, UnknownTask
from scripts.proofs.pool import Pool, until

Make = Callable[..., Pool]
NEVER_S = 1_000  # until the next try


@pytest.fixture
def down(tmp_path: Path) -> Path:
    """While this file is there, the service is down."""
    file = tmp_path / "down"
    file.touch()
    return file


def open_it(client: Client, down: Path, name: str = "ask") -> BreakerInfo:
    """Let a handler fail until its breaker is open."""
    for _ in range(3):
        with pytest.raises(TaskFailed, match="the service is down"):
            client.using(max_retries=0).run(name, str(down))
    [info] = client.breakers()
    return info


def test_a_service_that_comes_back_is_found_by_a_probe(start_pool: Make, down: Path) -> None:
    pool = start_pool(app="service", breaker_open_s=0.2)
    with pool.client() as client, client.events("breaker-opened", "breaker-closed") as events:
        open_it(client, down)
        futures = [client.submit("ask", str(down), number) for number in range(5)]
        opened = next(events)
        assert (opened.name, opened.fields["name"], opened.fields["failures"]) == ("breaker-opened", "ask", 3)
        assert opened.fields["error"] == "ConnectionError: the service is down"
        assert opened.fields["retry_at"] > opened.at
        again = next(events)  # the probe has failed, too
        assert (again.name, again.fields["failures"]) == ("breaker-opened", 4)
        down.unlink()
        while (event := next(events)).name == "breaker-opened":  # those that were under way
            pass
        assert (event.fields["name"], event.fields["reason"]) == ("ask", "probe")
        probes = event.fields["failures"] - 3
        assert [future.result(timeout=10) for future in futures[probes:]] == [*range(probes, 5)]
        assert client.breakers() == []
        assert client.health()["status"] == "healthy"


def test_an_open_name_waits_and_hides_no_other(start_pool: Make, down: Path) -> None:
    pool = start_pool(app="service", breaker_open_s=NEVER_S)
    with pool.client() as client:
        info = open_it(client, down)
        assert (info.name, info.state, info.failures, info.probing) == ("ask", BreakerState.OPEN, 3, False)
        assert info.opened_at is not None
        assert info.probe_at == pytest.approx(info.opened_at + NEVER_S)
        down.unlink()
        future = client.using(priority=0).submit("ask", str(down), 7)
        future.accepted(timeout=10)
        assert [client.run("beside") for _ in range(20)] == ["another service"] * 20
        assert client.task(future.id).state == "queued"
        [shown] = client.status()["breakers"]
        assert (shown["name"], shown["state"]) == ("ask", "open")
        health = client.health()
        assert health["status"] == "degraded"
        assert "ask failed 3 times in a row" in health["alerts"][0]

        client.reset_breaker("ask")
        assert future.result(timeout=10) == 7
        assert client.breakers() == []
        client.reset_breaker("ask")  # that does no harm
        with pytest.raises(UnknownTask):
            client.reset_breaker("no_such_task")


def test_retries_wait_for_the_breaker(start_pool: Make, down: Path) -> None:
    pool = start_pool(app="service", breaker_open_s=NEVER_S, retry_backoff_s=0)
    with pool.client() as client:
        future = client.submit("insist", str(down), 3)
        until(lambda: [info.state for info in client.breakers()] == ["open"], "three attempts have failed")
        task = client.task(future.id)
        assert (task.state, task.failures) == ("queued", 3)
        down.unlink()
        client.reset_breaker("insist")
        assert future.result(timeout=10) == 3


def test_a_dying_worker_opens_it_and_what_waits_is_kept(start_pool: Make) -> None:
    pool = start_pool(app="handlers", breaker_open_s=NEVER_S, retry_backoff_s=0, poison_after=10)
    with pool.client() as client:
        future = client.submit("die")
        until(lambda: [info.state for info in client.breakers()] == ["open"], "three workers have died")
        until(lambda: client.task(future.id).state == "queued", "its back-off is over, and it waits on")
        client.cancel(future.id)
        until(lambda: client.task(future.id).state == "cancelled", "it is cancelled")


def test_a_new_daemon_begins_with_all_of_them_closed(start_pool: Make, down: Path) -> None:
    pool = start_pool(app="service", breaker_open_s=NEVER_S)
    with pool.client() as client:
        open_it(client, down)
        down.unlink()
        future = client.submit("ask", str(down), 9)
        future.accepted(timeout=10)
        pool.end()
        pool.start()
        assert future.result(timeout=20) == 9
        assert client.breakers() == []


def test_new_code_has_another_chance(start_pool: Make, down: Path) -> None:
    pool = start_pool(app="service", breaker_open_s=NEVER_S)
    with pool.client() as client:
        open_it(client, down)
        down.unlink()
        future = client.submit("ask", str(down), 9)
        client.reload()
        assert future.result(timeout=20) == 9


def test_none_opens_where_they_are_switched_off(start_pool: Make, down: Path) -> None:
    pool = start_pool(app="service", breaker_failures=0)
    with pool.client() as client:
        for _ in range(10):
            with pytest.raises(TaskFailed):
                client.run("ask", str(down))
        assert client.breakers() == []


def test_an_async_client_asks_the_same(start_pool: Make, down: Path) -> None:
    pool = start_pool(app="service", breaker_open_s=NEVER_S)
    with pool.client() as client:
        info = open_it(client, down)

    async def ask() -> list[BreakerInfo]:
        async with AsyncClient(str(pool.socket)) as client:
            found = await client.breakers()
            await client.reset_breaker("ask")
            return found

    assert asyncio.run(ask()) == [info]
    with pool.client() as client:
        assert client.breakers() == []

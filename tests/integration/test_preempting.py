"""Preempting with real workers: what does not let go is killed for it, pays nothing, and runs again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from poolmgr import AsyncClient, Client
from poolmgr.errors import NotFound, WrongState
from poolmgr.model import TaskState
from scripts.proofs.pool import Pool
from tests.integration.conftest import Gate


def test_a_running_task_that_keeps_nothing_is_killed_after_the_grace_and_runs_again(
    start_pool: Callable[..., Pool], gate: Gate
) -> None:
    pool = start_pool(preempt_grace_s=0.1)
    with pool.client() as client:
        future = client.submit("hold", gate.path, "went on")
        gate.begun()
        assert client.preempt(future.id)
        assert gate.begun().attempt == 2
        gate.open()
        assert future.result(timeout=10) == "went on"
        task = client.task(future.id)
        assert (task.state, task.attempt, task.failures) == (TaskState.COMPLETED, 2, 0)
        assert client.metrics()["tasks"]["preempted"] == 1
        assert not client.preempt(future.id), "it has ended"


def test_what_waits_is_not_asked_and_what_is_unknown_is_not_found(client: Client) -> None:
    client.pause("whoami")
    future = client.submit("whoami")
    future.accepted(timeout=10)
    assert not client.preempt(future.id)
    client.resume("whoami")
    future.result(timeout=10)
    with pytest.raises(NotFound):
        client.preempt("00" * 16)


def test_what_may_not_be_run_again_is_let_be(client: Client, gate: Gate) -> None:
    future = client.using(restartable=False).submit("hold", gate.path, "went on")
    gate.begun()
    with pytest.raises(WrongState, match="may not be run again"):
        client.preempt(future.id)
    gate.open()
    assert future.result(timeout=10) == "went on"


def test_the_async_client_asks_as_well(client: Client, shared_pool: Pool) -> None:
    future = client.submit("whoami")
    future.result(timeout=10)

    async def ask() -> bool:
        async with AsyncClient(str(shared_pool.socket)) as other:
            return await other.preempt(future.id)

    assert not asyncio.run(ask())

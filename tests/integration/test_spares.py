"""The process that waits to be the next worker: it is, it can be missing, and it goes with its template."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from poolmgr import Client
from scripts.proofs.pool import Pool, until
from tests.integration.test_workers import is_gone, kill, pipes_and_sockets

Start = Callable[..., Pool]


def spare(pool: Pool) -> int:
    """The one that there is, once there is one."""
    until(pool.spares, "there is a spare")
    return pool.spares()[0]


def replaced(client: Client) -> int:
    """Kill the worker of a pool of one, and wait for its successor: that one's pid."""
    victim = kill(client, "worker-0")
    until(lambda: client.worker("worker-0").pid not in (victim, None), "a new process")
    until(lambda: client.worker("worker-0").state == "ready", "it is ready")
    pid = client.worker("worker-0").pid
    assert pid is not None
    return pid


def test_the_next_worker_is_the_spare_and_another_is_made(start_pool: Start) -> None:
    pool = start_pool(workers=1)
    with pool.client() as client:
        client.run("add", 1, 2)
        for _ in range(3):
            waiting = spare(pool)
            assert replaced(client) == waiting
            assert client.run("add", 1, 2) == 3
            assert len(pipes_and_sockets(waiting)) == 5
            assert Path(f"/proc/{waiting}/comm").read_text() == "worker-0\n"
            assert os.getpgid(waiting) == waiting


def test_a_spare_that_is_gone_is_done_without(start_pool: Start) -> None:
    pool = start_pool(workers=1)
    with pool.client() as client:
        client.run("add", 1, 2)
        victim = spare(pool)
        os.kill(victim, signal.SIGKILL)
        assert replaced(client) != victim
        assert client.run("add", 1, 2) == 3
        until(lambda: is_gone(victim), "it has been reaped")
        assert replaced(client)


def test_a_spare_that_was_stopped_is_done_without(start_pool: Start) -> None:
    pool = start_pool(workers=1)
    with pool.client() as client:
        client.run("add", 1, 2)
        victim = spare(pool)
        os.kill(victim, signal.SIGSTOP)
        assert replaced(client) != victim
        until(lambda: is_gone(victim), "it has ended")


def test_several_at_once_are_the_spare_and_forks(start_pool: Start) -> None:
    pool = start_pool(workers=1, max_workers=8)
    with pool.client() as client:
        waiting = spare(pool)
        client.scale(6)
        until(lambda: [worker.state for worker in client.workers()] == ["ready"] * 6, "all are ready")
        pids = [worker.pid for worker in client.workers()]
        assert waiting in pids
        held = {pid: pipes_and_sockets(pid) for pid in pids if pid is not None}
        assert {len(found) for found in held.values()} == {5}
        assert len(set().union(*held.values())) == 5 * 6


def test_the_spare_of_a_template_that_has_died_is_no_worker_any_more(start_pool: Start) -> None:
    pool = start_pool(workers=1)
    with pool.client() as client:
        client.run("add", 1, 2)
        waiting, template = spare(pool), pool.template()
        os.kill(template, signal.SIGKILL)
        until(lambda: is_gone(waiting), "it has ended, too")
        until(lambda: client.metrics()["health"]["status"] == "healthy")
        assert replaced(client) != waiting


@pytest.mark.parametrize("end", [Pool.kill, Pool.stop], ids=["killed", "stopped"])
def test_a_spare_ends_with_the_daemon(start_pool: Start, end: Callable[[Pool], object]) -> None:
    pool = start_pool(workers=1)
    waiting = spare(pool)
    end(pool)
    until(lambda: not Path(f"/proc/{waiting}/exe").exists(), "it has ended")


def test_workers_that_are_not_forked_have_no_spare(start_pool: Start) -> None:
    pool = start_pool(workers=1, start_method="spawn")
    with pool.client() as client:
        client.run("add", 1, 2)
        assert replaced(client)
        assert client.run("add", 1, 2) == 3
        assert pool.spares() == []

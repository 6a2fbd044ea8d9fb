"""Time-outs: a soft one is raised in the handler, a hard one costs the process; both are the task's failure."""

from __future__ import annotations

import select
import signal
from collections.abc import Callable

import pytest

from poolmgr import Client, TaskFailed
from poolmgr.errors import TaskTimeout
from scripts.proofs.pool import Pool, until
from tests.integration.conftest import Gate

Start = Callable[..., Pool]


def test_a_soft_timeout_is_raised_in_the_handler(client: Client, gate: Gate) -> None:
    future = client.using(soft_timeout_s=0.05, max_retries=0).submit("hold", gate.path)
    before = gate.begun()
    with pytest.raises(TaskTimeout, match="longer than its soft_timeout_s") as raised:
        future.result(timeout=10)
    assert "in hold" in raised.value.traceback  # where it was
    assert client.worker(before.worker).pid == before.pid  # and its worker goes on
    client.purge()


def test_a_handler_may_clean_up_after_a_soft_timeout(client: Client, gate: Gate) -> None:
    assert client.using(soft_timeout_s=0.05).run("hold_unless_cleaned", gate.path) == "cleaned up"
    gate.begun()


def test_a_soft_timeout_ends_an_async_handler(client: Client) -> None:
    with pytest.raises(TaskTimeout):
        client.using(soft_timeout_s=0.05, max_retries=0).run("sleep_in_async")
    assert client.run("gather", [1, 2, 3]) == 12
    client.purge()


def test_an_async_handler_may_clean_up_after_a_soft_timeout(client: Client) -> None:
    assert client.using(soft_timeout_s=0.05).run("catch_in_async") == "cleaned up"


def test_an_async_handler_that_is_cancelled_otherwise_has_not_timed_out(client: Client) -> None:
    with pytest.raises(TaskFailed, match="on its own account") as raised:
        client.using(soft_timeout_s=60, max_retries=0).run("cancel_itself")
    assert not isinstance(raised.value, TaskTimeout)
    client.purge()


def test_a_soft_timeout_is_raised_once(client: Client) -> None:
    assert client.using(soft_timeout_s=0.02).run("swallow_soft_timeouts", 0.2) == "caught 1"


def test_a_soft_timeout_strikes_the_right_task_or_none(client: Client) -> None:
    """Tasks that end at about the time of their soft time-out, each followed at once by one that has none."""
    limited, free = client.using(soft_timeout_s=0.004, max_retries=0), client.using(max_retries=0)
    tasks = [(limited.submit("nap", 0.003 + number % 20 / 10_000), free.submit("nap", 0.002)) for number in range(300)]
    outcomes = []
    for may_time_out, may_not in tasks:
        assert may_not.result(timeout=20) is None
        try:
            outcomes.append(may_time_out.result(timeout=20))
        except TaskTimeout:
            outcomes.append("timeout")
    assert set(outcomes) <= {None, "timeout"}
    client.purge()


def test_a_task_that_has_ended_in_time_is_not_killed_by_a_manager_that_was_late(start_pool: Start) -> None:
    """It ends while the daemon is stopped. When that goes on, the page still shows the task, and its time is over."""
    pool = start_pool(workers=2)
    with pool.client() as client:
        future = client.using(timeout_s=0.5, max_retries=0).submit("nap", 0.2)
        until(lambda: client.task(future.id).state == "running")
        workers = [worker.pid for worker in client.workers()]
        pool.signal(signal.SIGSTOP)
        select.select([], [], [], 0.8)  # this is how long the manager is away
        pool.signal(signal.SIGCONT)
        assert future.result(timeout=10) is None
        assert [worker.pid for worker in client.workers()] == workers


def test_a_hard_timeout_kills_whatever_the_handler_does(client: Client) -> None:
    future = client.using(timeout_s=0.1, max_retries=0).submit("spin")
    with pytest.raises(TaskTimeout, match="longer than its timeout_s, and its worker was killed"):
        future.result(timeout=10)
    [attempt] = client.task(future.id).attempts
    assert attempt.cause == "timeout"
    client.purge()


def test_a_hard_timeout_overrules_a_handler_that_ignores_the_soft_one(client: Client) -> None:
    with pytest.raises(TaskTimeout, match="killed"):
        client.using(soft_timeout_s=0.05, timeout_s=0.2, max_retries=0).run("spin")
    client.purge()


def test_a_time_out_is_tried_again(client: Client, gate: Gate) -> None:
    future = client.using(timeout_s=0.2, max_retries=1, retry_backoff_s=0.01).submit("hold", gate.path)
    first = gate.begun()
    second = gate.begun()
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.pid != second.pid
    with pytest.raises(TaskFailed):
        future.result(timeout=10)
    client.purge()


def test_the_time_before_its_turn_does_not_count(client: Client, gate: Gate) -> None:
    """More tasks than workers, each of which takes longer than a third of its time-out."""
    brief = client.using(timeout_s=0.3, max_retries=0)
    futures = [brief.submit("nap", 0.1) for _ in range(16)]
    assert [future.result(timeout=10) for future in futures] == [None] * 16


def test_the_handler_knows_its_deadline(client: Client) -> None:
    assert 8 < client.using(timeout_s=9).run("describe_me")["remaining_s"] <= 9
    assert client.using(timeout_s=None).run("describe_me")["remaining_s"] is None

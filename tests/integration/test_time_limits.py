"""Time-outs: a soft one is raised in the handler, a hard one costs the process; both are the task's failure."""

from __future__ import annotations

import pytest

from poolmgr import Client, TaskFailed
from poolmgr.errors import TaskTimeout
from tests.integration.conftest import Gate


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

"""Cancelling: what has not begun never begins; what runs goes on, unless it is to be killed."""

from __future__ import annotations

import importlib
import os

import pytest

from poolmgr import Client
from poolmgr.errors import TaskCancelled
from poolmgr.model import TaskState
from scripts.proofs.pool import Pool, until
from tests.integration.conftest import APPS, Gate


def test_a_queued_task_never_begins(client: Client) -> None:
    client.pause("whoami")
    future = client.submit("whoami")
    assert future.cancel()
    assert future.cancelled()
    client.resume("whoami")
    with pytest.raises(TaskCancelled):
        future.result(timeout=10)
    task = client.task(future.id)
    assert (task.state, task.attempt) == (TaskState.CANCELLED, 0)


def test_a_scheduled_task_never_begins(client: Client) -> None:
    future = client.using(delay_s=1000).submit("whoami")
    assert client.cancel(future.id)
    assert client.task(future.id).state is TaskState.CANCELLED


def test_a_running_task_goes_on(client: Client, gate: Gate) -> None:
    future = client.submit("hold", gate.path, "went on")
    gate.begun()
    assert not future.cancel()
    gate.open()
    assert future.result(timeout=10) == "went on"
    assert not future.cancel()


def test_a_running_task_is_told_and_may_return(client: Client, gate: Gate) -> None:
    future = client.submit("hold_until_cancelled", gate.path)
    gate.begun()
    assert not future.cancel()
    assert future.result(timeout=10) == "told"
    assert client.task(future.id).state is TaskState.COMPLETED


@pytest.mark.parametrize("last_words", [False, True])
def test_a_running_coroutine_is_cancelled_and_may_return(client: Client, gate: Gate, last_words: bool) -> None:
    future = client.submit("hold_as_coroutine", gate.path, last_words)
    gate.begun()
    assert not future.cancel()
    if last_words:
        assert future.result(timeout=10) == "told: True"
    else:
        with pytest.raises(TaskCancelled):
            future.result(timeout=10)
        assert client.task(future.id).attempt == 1, "it is not tried again"
    assert client.run("gather", [1, 2]) == 6, "the next one is not struck"


def test_one_whose_arguments_are_being_decoded_is_told_when_it_begins(
    client: Client, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(APPS)
    slow = importlib.import_module("handlers").SlowToDecode(gate.path)
    calls = client.using(durable=False)
    plain, coroutine = calls.submit("is_cancelled", slow), calls.submit("begin_as_coroutine", slow)
    assert [gate.begun().label for _ in range(2)] == ["decoding"] * 2
    assert not plain.cancel()
    assert not coroutine.cancel()
    gate.open(2)
    assert plain.result(timeout=10) is True
    with pytest.raises(TaskCancelled):
        coroutine.result(timeout=10)


def test_a_call_is_told_when_its_client_goes(shared_pool: Pool, client: Client, gate: Gate) -> None:
    with shared_pool.client() as other:
        other.using(durable=False).submit("hold_until_cancelled", gate.path)
        assert gate.begun().label == "begun"
    assert gate.begun().label == "told"


def test_a_running_task_can_be_killed(client: Client, gate: Gate) -> None:
    future = client.submit("hold", gate.path)
    begun = gate.begun()
    assert client.cancel(future.id, kill=True)
    with pytest.raises(TaskCancelled):
        future.result(timeout=10)
    assert client.task(future.id).state is TaskState.CANCELLED
    assert not client.cancel(future.id, kill=True)
    until(lambda: client.worker(begun.worker).state == "ready", "a new worker is ready")
    assert client.worker(begun.worker).pid != begun.pid
    assert client.dead_letters() == []


def test_a_kill_takes_all_that_the_task_has_started(client: Client, gate: Gate) -> None:
    future = client.submit("start_and_hold", gate.path)
    begun = gate.begun()
    born = [int(pid) for pid in begun.label.split()]
    assert len(born) == 2
    assert client.cancel(future.id, kill=True)
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in born), "both are gone")


def test_prefetched_tasks_are_recalled(lone: Client, gate: Gate) -> None:
    """A name that is known to be short is prefetched; then one of it takes long, and what waits behind is cancelled."""
    assert sum(lone.map("hold_at", [None] * 200, range(200))) == sum(range(200))
    calls = lone.using(durable=False)
    first = calls.submit("hold_at", gate.path, 1000)
    rest = [calls.submit("hold_at", None, number) for number in range(10)]
    gate.begun()
    assert [future.cancel() for future in rest[:5]] == [True] * 5
    gate.open()
    assert first.result(timeout=10) == 1000
    assert [future.result(timeout=10) for future in rest[5:]] == list(range(5, 10))
    for future in rest[:5]:
        with pytest.raises(TaskCancelled):
            future.result(timeout=10)


def test_what_waits_behind_a_long_task_runs_elsewhere(client: Client, gate: Gate) -> None:
    list(client.map("hold_at", [None] * 400, range(400)))
    calls = client.using(durable=False)
    held = [calls.submit("hold_at", gate.path, -1) for _ in range(3)]
    rest = [calls.submit("hold_at", None, number) for number in range(100)]
    for _ in held:
        gate.begun()
    assert [future.result(timeout=10) for future in rest] == list(range(100))
    gate.open(3)
    assert [future.result(timeout=10) for future in held] == [-1] * 3


def test_clear_cancels_all_that_waits_and_nothing_that_runs(lone: Client, gate: Gate) -> None:
    running = lone.submit("hold", gate.path, "ran")
    gate.begun()
    waiting = [lone.submit("add", number) for number in range(5)]
    waiting.append(lone.using(delay_s=1000).submit("add", 5))
    lone.flush()
    assert lone.clear() == 6
    gate.open()
    assert running.result(timeout=10) == "ran"
    for future in waiting:
        with pytest.raises(TaskCancelled):
            future.result(timeout=10)

"""What runs when: priorities, groups, times, keys, limits and pauses."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from poolmgr import Client
from poolmgr.errors import QueueFull, TaskExpired
from poolmgr.model import TaskState
from scripts.proofs.pool import Pool, until
from tests.integration.conftest import Gate


def begin(client: Client, gate: Gate, label: str, **options: object) -> None:
    """Submit a task that names itself at the gate, and wait until the daemon has it."""
    client.using(**options).submit("hold", gate.path, label).accepted(timeout=10)


def order(gate: Gate, count: int) -> str:
    """The labels of the tasks in the order in which they run, one after the other."""
    labels = ""
    for _ in range(count):
        gate.open()
        labels += gate.begun().label
    gate.open()
    return labels


def test_the_lower_priority_runs_first_and_equals_in_their_order(lone: Client, gate: Gate) -> None:
    begin(lone, gate, "now")
    gate.begun()
    for label, priority in zip("abcdef", (50, 10, 0, 10, 0, 100), strict=True):
        begin(lone, gate, label, priority=priority)
    assert order(gate, 6) == "cebdaf"


def test_groups_take_turns(lone: Client, gate: Gate) -> None:
    begin(lone, gate, "now")
    gate.begun()
    for label, group in (("a", "A"), ("b", "A"), ("c", "A"), ("x", "B"), ("y", "B")):
        begin(lone, gate, label, group=group)
    ran = order(gate, 5)
    assert sorted(ran) == sorted("abcxy")
    assert (ran[-1], "".join(each for each in ran if each in "abc")) == ("c", "abc")
    assert ran[:4] in ("axby", "xayb")


def test_clients_take_turns_by_default(lone: Client, lone_pool: Pool, gate: Gate) -> None:
    begin(lone, gate, "now")
    gate.begun()
    for label in "abc":
        begin(lone, gate, label)
    with lone_pool.client() as other:
        begin(other, gate, "x")
        assert "x" in order(gate, 4)[:2]


def test_a_delay_and_a_wall_time_are_waited_for(client: Client) -> None:
    early = time.time()
    delayed = client.using(delay_s=0.2).submit("now")
    at = client.using(at=early + 0.2).submit("now")
    client.flush()
    for task in [client.task(future.id) for future in (delayed, at)]:
        assert task.state is TaskState.SCHEDULED
        assert task.due_at == pytest.approx(early + 0.2, abs=0.1)
    for future in (delayed, at):
        assert future.result(timeout=10) >= early + 0.199
    assert client.using(at=early - 1000).run("add", 1, 2) == 3


def test_what_has_not_begun_in_time_expires(client: Client) -> None:
    client.pause("add")
    future = client.using(expires_s=0.05).submit("add", 1, 2)
    with pytest.raises(TaskExpired, match="not begun within"):
        future.result(timeout=10)
    client.resume("add")
    assert client.task(future.id).state is TaskState.EXPIRED
    assert client.using(expires_s=30).run("add", 1, 2) == 3


def test_what_has_begun_in_time_does_not_expire(client: Client, gate: Gate) -> None:
    held = client.using(expires_s=0.3).submit("hold", gate.path, "in time")
    gate.begun()
    late = client.using(delay_s=0.35).submit("add", 1)
    late.result(timeout=10)  # by now it is too late to begin
    gate.open()
    assert held.result(timeout=10) == "in time"


def test_a_second_submit_of_a_key_is_the_first_task(client: Client, gate: Gate) -> None:
    keyed = client.using(key="report-7")
    first = keyed.submit("hold", gate.path, "once")
    gate.begun()
    second = keyed.submit("hold", gate.path, "twice")
    second.accepted(timeout=10)
    assert second.id == first.id
    gate.open()
    assert [first.result(timeout=10), second.result(timeout=10)] == ["once", "once"]
    third = keyed.submit("add", 1, 2)  # the first is final, and has no window
    assert third.result(timeout=10) == 3
    assert third.id != first.id


def test_a_key_with_a_window_holds_after_the_end(client: Client) -> None:
    keyed = client.using(key=("nightly", 0.3))
    first = keyed.submit("add", 1, 2)
    assert first.result(timeout=10) == 3
    again = keyed.submit("add", 10, 20)
    assert again.result(timeout=10) == 3
    assert again.id == first.id
    until(lambda: keyed.run("add", 10, 20) == 30, "the window is over")


def test_two_clients_share_a_key(client: Client, shared_pool: Pool, gate: Gate) -> None:
    first = client.using(key="shared").submit("hold", gate.path, "one")
    gate.begun()
    with shared_pool.client() as other:
        second = other.using(key="shared").submit("add", 1, 2)
        second.accepted(timeout=10)
        gate.open()
        assert second.result(timeout=10) == first.result(timeout=10) == "one"
        assert second.id == first.id


def test_a_paused_name_waits_and_others_do_not(client: Client) -> None:
    client.pause("whoami")
    waits = client.submit("whoami")
    assert client.run("add", 1, 2) == 3
    assert client.metrics()["queue"]["paused"] == ["whoami"]
    assert client.task(waits.id).state is TaskState.QUEUED
    client.resume("whoami")
    assert waits.result(timeout=10)


def test_a_rate_limit_holds_over_all_workers(client: Client) -> None:
    began = time.monotonic()
    limited = client.using(rate_limit=(3, 0.2))
    for future in [limited.submit("add_limited", 1) for _ in range(7)]:
        assert future.result(timeout=10) == 1
    assert time.monotonic() - began >= 0.4  # three at once, three after 0.2 s, one after another 0.2 s


def test_a_concurrency_limit_holds_over_all_workers(client: Client, gate: Gate) -> None:
    limited = client.using(max_concurrency=2)
    futures = [limited.submit("hold_limited", gate.path) for _ in range(4)]
    gate.begun()
    gate.begun()
    assert client.run("add", 1, 2) == 3  # there is a free worker, and still:
    assert not gate.someone_comes(0.05)
    gate.open()
    gate.begun()
    assert not gate.someone_comes(0.05)
    gate.open(3)
    for future in futures:
        future.result(timeout=10)


def test_what_no_worker_can_do_stays_queued_and_blocks_nobody(client: Client) -> None:
    future = client.using(requires={"gpu"}, priority=0).submit("add", 1, 2)
    assert client.run("add", 3, 4) == 7
    assert client.task(future.id).state is TaskState.QUEUED
    assert future.cancel()


def test_a_full_queue_refuses_and_takes_again(start_pool: Callable[..., Pool], gate: Gate) -> None:
    with start_pool(workers=1, max_queue_depth=50).client() as client:
        begin(client, gate, "now")
        gate.begun()
        futures = [client.submit("add", number) for number in range(51)]
        with pytest.raises(QueueFull, match="50 tasks wait, and 50 may"):
            futures[50].result(timeout=10)
        urgent = client.using(priority=0).submit("add", 0, 0)
        urgent.accepted(timeout=10)
        gate.open()
        assert [future.result(timeout=10) for future in futures[:50]] == list(range(50))
        assert client.run("add", 1, 2) == 3

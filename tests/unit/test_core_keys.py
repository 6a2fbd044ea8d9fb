"""Deduplication keys, their windows, and requeued dead letters."""

from __future__ import annotations

from typing import Any

import pytest

from poolmgr.core.changes import TaskAdded, TaskRecord, TaskRequeued
from poolmgr.core.effects import Accepted, Finished, Same
from poolmgr.errors import QueueFull, ShuttingDown, WrongState
from poolmgr.model import TaskOptions, TaskState
from tests.unit.driver import WALL_OFFSET, Pool

NEW = b"n" * 16


def test_a_second_submit_with_the_key_is_the_first_task_while_that_lives() -> None:
    pool = Pool()
    first = pool.submit(key="k")
    second = pool.submit(key="k")
    [same] = pool.new(Same)
    assert (same.client, same.task_id, same.first, same.final) == (1, second, first, False)
    assert second not in pool.scheduler.state.tasks
    pool.done(first)
    assert {told.task_id for told in pool.new(Finished)} == {first, second}
    third = pool.submit(key="k")
    assert pool.state(third) == "running"


def test_other_keys_and_no_keys_are_other_tasks() -> None:
    pool = Pool(workers=4)
    pool.submit(key="a")
    pool.submit(key="b")
    pool.submit()
    pool.submit()
    assert len(pool.running()) == 4


@pytest.mark.parametrize("state", ["queued", "scheduled", "retrying"])
def test_a_key_is_held_in_every_state_that_is_not_final(state: str) -> None:
    pool = Pool()
    if state == "queued":
        pool.submit("blocker")
    first = pool.submit(key="k", delay_s=5.0 if state == "scheduled" else 0.0)
    if state == "retrying":
        pool.fail(first)
    pool.submit(key="k")
    assert [same.first for same in pool.all(Same)] == [first]


@pytest.mark.parametrize("ending", ["done", "fail", "cancel", "expire"])
def test_a_key_is_free_after_any_end(ending: str) -> None:
    pool = Pool()
    if ending in ("cancel", "expire"):
        pool.submit("blocker")
    first = pool.submit(key="k", max_retries=0, expires_s=5.0)
    match ending:
        case "done":
            pool.done(first)
        case "fail":
            pool.fail(first)
        case "cancel":
            pool.cancel(first)
        case "expire":
            pool.advance(6.0)
    second = pool.submit(key="k")
    assert second in pool.scheduler.state.tasks


def test_a_window_holds_the_key_after_the_end_and_counts_from_the_submit() -> None:
    pool = Pool()
    first = pool.submit(key="k", key_window_s=10.0)
    pool.advance(4.0)
    pool.done(first)
    pool.advance(5.9)
    second = pool.submit(key="k")
    [same] = pool.new(Same)
    assert (same.task_id, same.first, same.final) == (second, first, True)
    pool.advance(0.1)
    third = pool.submit(key="k")
    assert pool.state(third) == "running"


def test_the_end_of_an_old_window_takes_no_key_from_a_new_task() -> None:
    pool = Pool()
    pool.done(pool.submit(key="k", key_window_s=10.0))
    pool.now += 10.0  # the submit comes before the tick
    second = pool.submit(key="k")
    pool.advance(0.0)
    pool.submit(key="k")
    assert [same.first for same in pool.new(Same)] == [second]


def test_keys_whose_window_is_over_are_forgotten() -> None:
    pool = Pool()
    for number in range(10):
        pool.done(pool.submit(key=str(number), key_window_s=10.0))
    pool.advance(10.0)
    assert pool.scheduler.state.keys == {}


def test_the_second_is_acknowledged_no_sooner_than_the_first_is_kept() -> None:
    pool = Pool()
    pool.scheduler.intake.connected(2)
    options = TaskOptions(key="k")
    pool.scheduler.intake.submit(pool.now, b"a" * 16, "work", b"", options, 1, False)
    pool.scheduler.intake.submit(pool.now, b"b" * 16, "work", b"", options, 2, False)
    pool.flush()
    [same] = pool.new(Same)
    assert same.commit == 1
    assert pool.new(Accepted) == [Accepted(1, 1, 1), Accepted(2, 1, 1)]


def test_a_durable_task_is_not_acknowledged_by_a_call_that_has_its_key() -> None:
    pool = Pool()
    pool.scheduler.intake.connected(2)
    call = pool.submit(key="k", durable=False)
    with pytest.raises(WrongState, match="not durable"):
        pool.submit(key="k", client=2)
    assert pool.new(Same) == []
    pool.done(call)
    assert pool.state(pool.submit(key="k", client=2)) == "running"


def test_a_call_may_be_an_earlier_durable_task() -> None:
    pool = Pool()
    pool.submit(key="k")
    pool.submit(key="k", durable=False)
    assert len(pool.new(Same)) == 1


def test_a_call_that_another_client_shares_survives_the_first_ones_client() -> None:
    pool = Pool()
    pool.scheduler.intake.connected(2)
    pool.submit("blocker")
    first = pool.submit(key="k", durable=False)
    second = pool.submit(key="k", durable=False, client=2)
    pool.disconnect(1)
    assert pool.state(first) == "queued"
    pool.disconnect(2)
    assert first not in pool.scheduler.state.tasks
    assert second not in pool.scheduler.state.tasks


def test_thousands_may_wait_for_one_task_and_those_who_have_gone_are_forgotten() -> None:
    pool = Pool(workers=1)
    pool.submit()
    first = pool.submit(key="k")
    for client in range(10, 2000):
        pool.scheduler.intake.connected(client)
        pool.scheduler.intake.watch(first, client)
        pool.scheduler.intake.watch(first, client)
        if client % 100:
            pool.disconnect(client)
    staying = {client for client in range(10, 2000) if client % 100 == 0}
    watching = [client for client, _ in pool.task(first).watchers]
    assert staying <= set(watching)
    assert len(watching) == len(set(watching)) < 100


# ------------------------------------------------------------------------------------- requeue


def _dead(pool: Pool, **options: Any) -> TaskRecord:
    task = pool.submit("fragile", payload=b"x", max_retries=0, **options)
    pool.fail(task)
    [added] = [change for change in pool.changes(TaskAdded) if change.task.id == task]
    return added.task._replace(state=TaskState.DEAD)


def test_a_requeued_dead_letter_is_a_new_task_and_both_remember() -> None:
    pool = Pool()
    dead = _dead(pool)
    pool.scheduler.intake.requeue([(dead, NEW)], pool.now)
    pool.flush()
    assert pool.state(NEW) == "running"
    new = pool.changes(TaskAdded)[-1].task
    assert (new.id, new.name, new.payload, new.origin, new.failures) == (NEW, "fragile", b"x", dead.id, 0)
    assert pool.changes(TaskRequeued) == [TaskRequeued(dead.id, NEW)]


def test_its_own_window_does_not_stop_a_requeue() -> None:
    pool = Pool()
    dead = _dead(pool, key="k", key_window_s=100.0)
    pool.scheduler.intake.requeue([(dead, NEW)], pool.now)
    pool.flush()
    assert pool.state(NEW) == "running"
    pool.advance(150.0)
    assert pool.scheduler.state.keys["k"][0] == NEW


def test_a_living_task_of_the_same_key_does() -> None:
    pool = Pool()
    dead = _dead(pool, key="k")
    pool.submit(key="k")
    with pytest.raises(WrongState, match="same key 'k'"):
        pool.scheduler.intake.requeue([(dead, NEW)], pool.now)
    pool.flush()
    assert pool.changes(TaskRequeued) == []


@pytest.mark.parametrize("refusal", [ShuttingDown, QueueFull])
def test_a_refused_requeue_has_changed_nothing(refusal: type[Exception]) -> None:
    pool = Pool(max_queue_depth=1)
    dead = _dead(pool)
    pool.submit_many(2)
    if refusal is ShuttingDown:
        pool.scheduler.drain(pool.now)
    with pytest.raises(refusal):
        pool.scheduler.intake.requeue([(dead, NEW)], pool.now)
    pool.flush()
    assert pool.changes(TaskRequeued) == []
    assert NEW not in pool.scheduler.state.tasks


def test_many_are_requeued_together_or_not_at_all() -> None:
    pool = Pool(max_queue_depth=2)
    pool.scheduler.intake.pause("fragile")
    pool.flush()
    dead = [_dead(Pool()) for _ in range(3)]
    with pytest.raises(QueueFull, match="0 tasks wait, and 2 may"):
        pool.scheduler.intake.requeue([(each, bytes([number]) * 16) for number, each in enumerate(dead)], pool.now)
    assert not pool.scheduler.state.tasks
    pool.scheduler.intake.requeue([(each, bytes([number]) * 16) for number, each in enumerate(dead[:2])], pool.now)
    assert len(pool.scheduler.state.tasks) == 2


def test_two_of_one_key_are_not_requeued_together() -> None:
    pool = Pool()
    first, second = _dead(pool, key="k"), _dead(pool, key="k")
    with pytest.raises(WrongState, match="have the same key 'k': requeue one of them"):
        pool.scheduler.intake.requeue([(first, NEW), (second, bytes(16))], pool.now)
    assert not pool.scheduler.state.tasks


def test_a_requeued_task_may_die_again_with_a_history_of_its_own() -> None:
    pool = Pool()
    dead = _dead(pool)
    pool.scheduler.intake.requeue([(dead, NEW)], pool.now)
    pool.flush()
    assert pool.task(NEW).submitted_at == pool.now + WALL_OFFSET
    pool.fail(NEW)
    assert NEW not in pool.scheduler.state.tasks
    assert pool.scheduler.state.statistics.dead == 2

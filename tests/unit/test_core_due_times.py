"""Delays, wall times and expiry: what happens to a task because its time has come."""

from __future__ import annotations

from typing import Any

import pytest

from poolmgr.core.changes import TaskAdded
from tests.unit.driver import WALL_OFFSET, Pool


def test_a_delayed_task_waits_for_its_time() -> None:
    pool = Pool()
    task = pool.submit(delay_s=5.0)
    assert pool.state(task) == "scheduled"
    assert pool.scheduler.next_wake() <= pool.now + 5.0
    pool.advance(4.99)
    assert pool.state(task) == "scheduled"
    pool.advance(0.01)
    assert pool.state(task) == "running"


def test_at_a_wall_time() -> None:
    pool = Pool()
    task = pool.submit(at=pool.now + WALL_OFFSET + 5.0)
    past = pool.submit("past", at=5.0)
    assert pool.running() == [past]
    pool.done(past)
    pool.advance(4.99)
    assert pool.state(task) == "scheduled"
    pool.advance(0.01)
    assert pool.state(task) == "running"


@pytest.mark.parametrize(("jump_s", "after_s"), [(60.0, 40.0), (-60.0, 160.0), (3600.0, 0.0)])
def test_at_follows_the_wall_clock_when_it_is_set(jump_s: float, after_s: float) -> None:
    pool = Pool()
    task = pool.submit(at=pool.now + WALL_OFFSET + 100.0)
    pool.scheduler.clock_changed(WALL_OFFSET + jump_s, pool.now)
    pool.advance(after_s - 0.01 if after_s else 0.0)
    assert pool.state(task) == ("scheduled" if after_s else "running")
    pool.advance(0.01)
    assert pool.state(task) == "running"


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_delays_expiry_and_backoff_do_not(jump_s: float) -> None:
    pool = Pool()
    delayed = pool.submit(delay_s=10.0)
    failed = pool.submit(retry_backoff_s=10.0)
    pool.fail(failed)
    pool.submit("blocker", priority=0)
    expiring = pool.submit("expiring", expires_s=10.0)
    pool.scheduler.clock_changed(WALL_OFFSET + jump_s, pool.now)
    pool.advance(9.9)
    assert [pool.state(task) for task in (delayed, failed, expiring)] == ["scheduled", "scheduled", "queued"]
    pool.advance(0.2)
    assert [pool.state(task) for task in (delayed, failed, expiring)] == ["queued", "queued", "expired"]


@pytest.mark.parametrize(("delay_s", "at_s"), [(10.0, 5.0), (5.0, 10.0)])
def test_with_a_delay_and_a_wall_time_the_later_one_counts(delay_s: float, at_s: float) -> None:
    pool = Pool()
    task = pool.submit(delay_s=delay_s, at=pool.now + WALL_OFFSET + at_s)
    assert pool.changes(TaskAdded)[0].task.due_at == pool.now + WALL_OFFSET + 10.0
    pool.scheduler.clock_changed(WALL_OFFSET, pool.now)
    pool.advance(9.9)
    assert pool.state(task) == "scheduled"
    pool.advance(0.1)
    assert pool.state(task) == "running"


# ------------------------------------------------------------------------------------- expiry


def test_a_task_that_does_not_begin_in_time_expires() -> None:
    pool = Pool()
    pool.submit("blocker")
    task = pool.submit(expires_s=5.0)
    pool.advance(4.9)
    assert pool.state(task) == "queued"
    pool.advance(0.2)
    assert pool.state(task) == "expired"
    assert pool.end(task).code == "expired"


def test_one_that_has_begun_does_not() -> None:
    pool = Pool()
    task = pool.submit(expires_s=5.0)
    pool.advance(60.0)
    assert pool.state(task) == "running"


def test_nor_one_that_waits_for_its_retry() -> None:
    pool = Pool()
    task = pool.submit(expires_s=5.0, retry_backoff_s=20.0)
    pool.fail(task)
    pool.advance(10.0)
    assert pool.state(task) == "scheduled"


def test_one_that_is_delayed_beyond_its_expiry_expires() -> None:
    pool = Pool()
    task = pool.submit(expires_s=5.0, delay_s=20.0)
    pool.advance(5.1)
    assert pool.state(task) == "expired"


def test_a_prefetched_one_expires_when_it_comes_back() -> None:
    pool = Pool()
    pool.teach("fast", 0.0001)
    _, task = pool.submit_many(2, "fast", expires_s=5.0)
    pool.answers_looks = False
    pool.advance(5.1)
    assert pool.state(task) == "queued"
    pool.recalled("worker-0", task)
    assert pool.state(task) == "expired"


def test_a_new_task_of_the_same_id_does_not_expire_with_the_old_one() -> None:
    pool = Pool()
    pool.submit("blocker")
    task = pool.submit(durable=False, expires_s=5.0)
    pool.cancel(task)
    pool.submit(id=task, watch=False)
    pool.advance(10.0)
    assert task in pool.scheduler.state.tasks


@pytest.mark.parametrize(
    "options", [{"delay_s": 86_400.0}, {"at": WALL_OFFSET + 86_400.0}, {"expires_s": 86_400.0}], ids=str
)
def test_tasks_that_have_ended_are_not_kept_until_their_time(options: dict[str, Any]) -> None:
    pool = Pool()
    kept = pool.submit("kept", timeout_s=None, **options)
    for _ in range(400):
        task = pool.submit(**options)
        pool.cancel(task)
        if pool.state(task) == "running":
            pool.done(task)
    assert len(pool.scheduler.state.deadlines) < 200
    assert pool.state(kept) in ("scheduled", "running")
    pool.advance(86_401.0)
    assert pool.state(kept) == "running"

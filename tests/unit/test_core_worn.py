"""A worker that a task has changed for good, and pages that cannot be true."""

from __future__ import annotations

from poolmgr.core.effects import Retire
from tests.unit.driver import Pool


def test_a_worn_worker_is_replaced_at_no_cost() -> None:
    pool = Pool()
    pool.done(pool.submit())
    pool.new(Retire)
    pool.scheduler.worker_worn("worker-0", 1, "threads were left", pool.now)
    pool.flush()
    assert pool.new(Retire) == [Retire("worker-0", 1)]
    pool.die("worker-0", "exit code 0")
    assert pool.slot().incarnation == 2
    assert pool.slot().charges == 0


def test_what_a_worn_worker_has_been_sent_goes_elsewhere_as_if_never_sent() -> None:
    pool = Pool()
    pool.done(pool.submit())
    task = pool.submit()
    pool.scheduler.worker_worn("worker-0", 1, "threads were left", pool.now)
    pool.flush()
    assert pool.new(Retire) == []
    pool.recalled("worker-0", task)
    assert pool.new(Retire) == [Retire("worker-0", 1)]
    assert pool.state(task) == "queued"
    assert pool.task(task).attempt == 0
    assert pool.task(task).past.failures == 0


def test_an_earlier_incarnation_is_worn_no_more() -> None:
    pool = Pool()
    pool.done(pool.submit())
    pool.die("worker-0")
    pool.scheduler.worker_worn("worker-0", 1, "threads were left", pool.now)
    pool.flush()
    assert pool.slot().retiring == ""


def test_a_page_that_never_shows_the_task_does_not_spare_it_its_time_limit() -> None:
    pool = Pool()
    pool.submit(timeout_s=1.0)
    for _ in range(70):
        pool.scheduler.page_seen("worker-0", 1, 0, 0.0, pool.now)
        pool.flush()
        pool.now += 0.1
    assert pool.killed() == [("worker-0", "timeout")]


def test_a_page_cannot_move_when_a_task_has_begun_once_that_is_known() -> None:
    pool = Pool()
    task = pool.submit(timeout_s=1.0)
    fence, began = pool.task(task).fence, pool.now
    pool.scheduler.page_seen("worker-0", 1, fence, began, pool.now)
    pool.scheduler.page_seen("worker-0", 1, fence, began + 0.9, began + 0.95)
    pool.scheduler.page_seen("worker-0", 1, fence + 5, began + 1.0, began + 1.0)
    pool.now = began + 1.0
    pool.flush()
    assert pool.killed() == [("worker-0", "timeout")]


def test_the_task_of_a_worker_that_dies_with_an_impossible_page_is_charged() -> None:
    pool = Pool()
    task = pool.submit(max_retries=0)
    fence = pool.task(task).fence
    pool.scheduler.worker_exited("worker-0", 1, "exit code 3", fence + 1000, 0.0, pool.now)
    pool.flush()
    assert pool.end(task).code == "worker_died"

"""Time-outs: soft, then hard, counted from when the worker's page says that the task began."""

from __future__ import annotations

from poolmgr.core.effects import Interrupt, Look
from poolmgr.core.state import MARK_AFTER_S
from tests.unit.driver import Pool


def test_a_task_that_runs_too_long_costs_its_worker_and_is_a_failure_with_that_cause() -> None:
    pool = Pool()
    task = pool.submit(timeout_s=5.0)
    pool.advance(4.9)
    assert pool.killed() == []
    pool.advance(0.1)
    assert pool.killed() == [("worker-0", "timeout")]
    pool.die("worker-0")
    assert pool.state(task) == "scheduled"
    [info] = pool.task(task).past.attempts
    assert (info.cause, info.attempt) == ("timeout", 1)
    assert pool.task(task).past.kills == 0, "a time-out does not poison"


def test_without_a_timeout_a_task_may_run_for_ever() -> None:
    pool = Pool()
    pool.submit(timeout_s=None)
    pool.advance(500.0)
    assert pool.killed() == []
    assert pool.all(Look) == []


def test_it_counts_from_when_the_page_says_it_began() -> None:
    pool = Pool()
    task = pool.submit(timeout_s=5.0)
    pool.pages["worker-0"] = (pool.task(task).fence, pool.now + 2.0)
    pool.advance(6.9)
    assert pool.killed() == []
    pool.advance(0.1)
    assert pool.killed() == [("worker-0", "timeout")]


def test_a_task_that_has_not_begun_is_looked_at_again_and_not_killed() -> None:
    pool = Pool()
    task = pool.submit(timeout_s=5.0)
    pool.pages["worker-0"] = (0, 0.0)
    pool.advance(6.0)
    assert pool.killed() == []
    pool.pages["worker-0"] = (pool.task(task).fence, pool.now)
    pool.advance(4.9)
    assert pool.killed() == []
    pool.advance(0.2)
    assert pool.killed() == [("worker-0", "timeout")]


def test_soft_first_then_hard() -> None:
    pool = Pool()
    task = pool.submit(soft_timeout_s=2.0, timeout_s=5.0)
    pool.advance(1.9)
    assert pool.all(Interrupt) == []
    pool.advance(0.1)
    assert pool.all(Interrupt) == [Interrupt("worker-0", 1, pool.task(task).fence, "soft_timeout")]
    pool.advance(2.9)
    assert pool.killed() == []
    pool.advance(0.1)
    assert pool.killed() == [("worker-0", "timeout")]
    assert len(pool.all(Interrupt)) == 1


def test_a_handler_is_interrupted_once_however_often_its_page_is_read() -> None:
    pool = Pool()
    task = pool.submit(soft_timeout_s=2.0, timeout_s=50.0)
    pool.advance(2.0)
    fence, begun_at = pool.pages["worker-0"]
    pool.scheduler.page_seen("worker-0", 1, fence, begun_at, pool.now)
    pool.flush()
    assert pool.state(task) == "running"
    assert len(pool.all(Interrupt)) == 1


def test_soft_alone_never_kills() -> None:
    pool = Pool()
    pool.submit(soft_timeout_s=2.0, timeout_s=None)
    pool.advance(200.0)
    assert len(pool.all(Interrupt)) == 1
    assert pool.killed() == []


def test_a_soft_timeout_beyond_the_hard_one_delays_nothing() -> None:
    pool = Pool()
    pool.submit(soft_timeout_s=60.0, timeout_s=5.0)
    pool.advance(5.0)
    assert pool.killed() == [("worker-0", "timeout")]
    assert pool.all(Interrupt) == []


def test_each_attempt_has_its_own_time() -> None:
    pool = Pool()
    task = pool.submit(timeout_s=5.0, soft_timeout_s=3.0, retry_backoff_s=0.0)
    pool.advance(4.0)
    pool.fail(task)
    pool.advance(2.9)
    assert len(pool.all(Interrupt)) == 1
    pool.advance(0.1)
    assert len(pool.all(Interrupt)) == 2
    pool.advance(2.0)
    assert pool.killed() == [("worker-0", "timeout")]


def test_a_prefetched_task_has_its_whole_time_from_its_own_begin() -> None:
    pool = Pool()
    pool.teach("fast", 0.0001)
    first, second = pool.submit_many(2, "fast", timeout_s=5.0)
    pool.advance(4.0)
    pool.done(first)
    pool.advance(4.9)
    assert pool.killed() == []
    pool.advance(0.1)
    assert pool.killed() == [("worker-0", "timeout")]
    pool.die("worker-0")
    assert pool.task(second).past.failures == 1


def test_a_task_that_ends_in_time_leaves_no_kill_behind() -> None:
    pool = Pool()
    for _ in range(3):
        task = pool.submit(timeout_s=5.0)
        pool.advance(4.0)
        pool.done(task)
    pool.submit(timeout_s=50.0)
    pool.advance(20.0)
    assert pool.killed() == []


def test_a_result_that_comes_while_the_kill_is_under_way_counts() -> None:
    pool = Pool()
    task = pool.submit(timeout_s=5.0)
    pool.advance(5.0)
    pool.done(task, run_s=5.0)
    assert pool.state(task) == "completed"
    pool.die("worker-0")
    assert pool.slot().state == "ready"
    assert pool.events("task-failed") == []


def test_the_one_behind_is_not_charged_for_it() -> None:
    pool = Pool()
    pool.teach("fast", 0.0001)
    pool.answers_looks = False
    first, second = pool.submit_many(2, "fast", timeout_s=5.0)
    pool.advance(5.0)
    fence, begun_at = pool.pages["worker-0"]
    pool.scheduler.page_seen("worker-0", 1, fence, begun_at, pool.now)
    pool.flush()
    assert pool.killed() == [("worker-0", "timeout")]
    pool.done(first)
    pool.die("worker-0")
    assert pool.state(first) == "completed"
    assert pool.task(second).past.failures == 0
    assert pool.state(second) == "running"


def test_time_outs_are_the_reason_to_wake() -> None:
    pool = Pool()
    pool.submit(timeout_s=0.25, durable=False)
    assert pool.scheduler.next_wake() == pool.now + 0.25
    idle = Pool()
    assert idle.scheduler.next_wake() == idle.now + 1.0


def test_a_durable_task_wakes_us_to_be_kept_as_running_only_while_it_runs() -> None:
    pool = Pool(workers=2)
    short, long = pool.submit(timeout_s=None), pool.submit(timeout_s=None)
    assert pool.scheduler.next_wake() == pool.now + MARK_AFTER_S
    pool.done(short)
    assert pool.scheduler.next_wake() == pool.now + MARK_AFTER_S, "the other still runs"
    pool.done(long)
    assert pool.scheduler.next_wake() == pool.now + 1.0

"""Limits of a name: never exceeded, in no window, and never a reason to stand still."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolmgr.core.limits import NameLimits
from poolmgr.model import TaskOptions
from tests.unit.driver import Pool


def _limits(starts: int, per_s: float) -> NameLimits:
    limits = NameLimits()
    limits.update(TaskOptions(rate_limit=(starts, per_s)))
    return limits


@given(
    st.integers(1, 5),
    st.sampled_from([0.1, 1.0, 7.3, 60.0]),
    st.lists(st.floats(0.0, 30.0), max_size=20),
)
@settings(max_examples=50)
def test_no_window_ever_has_more_starts(starts: int, per_s: float, pauses: list[float]) -> None:
    limits, now, started = _limits(starts, per_s), 1000.0, []
    for pause in pauses:
        now = limits.rate_free_at(now + pause)
        limits.times.append(now)
        started.append(now)
    for first, last in zip(started, started[starts:], strict=False):
        assert last - first >= per_s * (1 - 1e-9)


@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.floats(0.0, 3.0), max_size=20))
@settings(max_examples=50)
def test_a_lower_rate_counts_what_was_started_under_the_higher(high: int, low: int, pauses: list[float]) -> None:
    limits, now = _limits(max(high, low), 1.0), 1000.0
    for pause in pauses:
        now = limits.rate_free_at(now + pause)
        limits.times.append(now)
    limits.update(TaskOptions(rate_limit=(min(high, low), 1.0)))
    free_at = limits.rate_free_at(now)
    assert sum(time > free_at - 1.0 + 1e-9 for time in limits.times) < min(high, low)


def test_starts_come_as_soon_as_the_rate_allows() -> None:
    limits = _limits(2, 10.0)
    for now in (100.0, 103.0):
        assert limits.rate_free_at(now) == now
        limits.times.append(now)
    assert limits.rate_free_at(104.0) == 110.0
    assert limits.rate_free_at(110.0) == 110.0
    limits.times.append(110.0)
    assert limits.rate_free_at(110.0) == 113.0


def test_without_limits_nothing_is_held() -> None:
    limits = NameLimits()
    limits.running = 99
    assert limits.rate_free_at(5.0) == 5.0
    assert not limits.full


# ------------------------------------------------------------------------------------- in the scheduler


def test_a_rate_holds_over_all_workers_and_lets_go_in_time() -> None:
    pool = Pool(workers=8)
    tasks = pool.submit_many(5, rate_limit=(2, 10.0))
    assert pool.running() == tasks[:2]
    pool.advance(9.9)
    assert pool.running() == tasks[:2]
    pool.advance(0.1)
    assert pool.running() == tasks[:4]
    pool.advance(10.0)
    assert pool.running() == tasks


def test_a_rate_hides_no_other_name() -> None:
    pool = Pool(workers=4)
    pool.submit_many(3, "slow", rate_limit=(1, 60.0), priority=0)
    other = pool.submit("other", priority=100)
    assert pool.state(other) == "running"
    assert len(pool.running()) == 2


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_concurrency_over_all_workers(limit: int) -> None:
    pool = Pool(workers=4)
    tasks = pool.submit_many(6, max_concurrency=limit)
    for done in range(6):
        assert pool.running() == tasks[done : done + limit]
        pool.done(tasks[done])


@pytest.mark.parametrize("ending", ["fail", "die", "kill"])
def test_any_end_of_an_attempt_makes_room(ending: str) -> None:
    pool = Pool(workers=2)
    first, second = pool.submit_many(2, max_concurrency=1, retry_backoff_s=10.0)
    if ending == "fail":
        pool.fail(first)
    else:
        if ending == "kill":
            pool.cancel(first, kill=True)
        pool.die("worker-0")
    assert pool.running() == [second]


def test_another_limit_replaces_the_old_one_at_once() -> None:
    pool = Pool(workers=4)
    pool.submit_many(4, max_concurrency=1)
    assert len(pool.running()) == 1
    pool.submit(max_concurrency=3)
    assert len(pool.running()) == 3


def test_a_rate_that_is_lifted_holds_no_longer() -> None:
    pool = Pool(workers=4)
    pool.submit_many(3, rate_limit=(1, 3600.0))
    pool.submit()
    assert len(pool.running()) == 4


def test_a_limit_that_comes_later_counts_what_runs_already() -> None:
    pool = Pool(workers=4)
    first = pool.submit()
    second = pool.submit(max_concurrency=1)
    assert pool.running() == [first]
    pool.done(first)
    assert pool.running() == [second]


def test_a_limited_name_is_not_prefetched() -> None:
    pool = Pool()
    pool.teach("fast", 0.0001)
    pool.submit_many(3, "fast", max_concurrency=2)
    assert len(pool.slot().in_flight) == 1


def test_pause_and_resume() -> None:
    pool = Pool(workers=2)
    pool.scheduler.intake.pause("work")
    held, other = pool.submit(), pool.submit("other")
    assert pool.running() == [other]
    pool.scheduler.intake.resume("work")
    pool.flush()
    assert pool.running() == [held, other] or pool.running() == [other, held]


def test_a_pause_lets_run_what_runs_and_holds_its_retry() -> None:
    pool = Pool()
    task = pool.submit()
    pool.scheduler.intake.pause("work")
    pool.fail(task)
    pool.advance(60.0)
    assert pool.state(task) == "queued"
    pool.scheduler.intake.resume("work")
    pool.flush()
    assert pool.state(task) == "running"


def test_resuming_does_not_lift_the_rate() -> None:
    pool = Pool(workers=4)
    pool.submit_many(3, rate_limit=(1, 60.0))
    pool.scheduler.intake.pause("work")
    pool.scheduler.intake.resume("work")
    pool.flush()
    assert len(pool.running()) == 1


def test_a_paused_task_can_be_cancelled() -> None:
    pool = Pool()
    pool.scheduler.intake.pause("work")
    task = pool.submit()
    pool.cancel(task)
    assert pool.state(task) == "cancelled"

"""What a worker has taken, and what becomes of it and of its task."""

from __future__ import annotations

from typing import Any

import pytest

from poolmgr.core.effects import Cap, GiveBack, Kill, Measure, Spawn, Start, Weigh
from poolmgr.core.failure import Failure
from poolmgr.core.memory_limits import TRIM_S
from poolmgr.post_mortem import PostMortem
from tests.unit.driver import VALUE_ERROR, Pool

NO_MEMORY = Failure("task_failed", "", "MemoryError", "Traceback ...", ("MemoryError", "Exception"))


def _pool(**settings: Any) -> Pool:
    return Pool(**({"worker_memory_limit_mb": 100} | settings))


def _sample(pool: Pool, used_mb: float, worker: str = "worker-0") -> None:
    pool.scheduler.memory_limits.sampled(worker, pool.slot(worker).incarnation, used_mb, pool.now)
    pool.flush()


def _weigh(pool: Pool, used_mb: float, fence: int | None = None) -> None:
    fence = pool.slot().in_flight[0].fence if fence is None else fence
    pool.scheduler.memory_limits.weighed("worker-0", pool.slot().incarnation, fence, used_mb, pool.now)
    pool.flush()


def _measure(pool: Pool, used_mb: float) -> None:
    pool.scheduler.memory_limits.measured("worker-0", pool.slot().incarnation, used_mb, pool.now)
    pool.flush()


def _die(pool: Pool, post_mortem: PostMortem) -> None:
    fence, begun_at = pool.pages["worker-0"]
    incarnation = pool.slot().incarnation
    pool.scheduler.worker_exited("worker-0", incarnation, post_mortem.how, fence, begun_at, pool.now, post_mortem)
    pool.flush()


# ------------------------------------------------------------------------------------- over the limit while busy


def test_one_that_is_over_its_limit_is_weighed_and_then_killed() -> None:
    pool = _pool()
    task = pool.submit(max_retries=0)
    _sample(pool, 120.0)
    assert pool.new(Weigh) == [Weigh("worker-0", 1, 1)]
    assert pool.all(Kill) == []
    _weigh(pool, 119.0)
    [kill] = pool.new(Kill)
    assert (kill.worker, kill.reason) == ("worker-0", "out_of_memory")
    assert kill.grace_s < 0.1, "it goes on allocating"
    pool.die("worker-0", "signal 9 (SIGKILL)")
    assert pool.end(task).code == "out_of_memory"
    assert b"took 119 MB, its limit is 100 MB" in bytes(pool.end(task).outcome)  # type: ignore[arg-type]


def test_one_that_only_seemed_so_goes_on() -> None:
    pool = _pool()
    task = pool.submit()
    _sample(pool, 120.0)
    _weigh(pool, 80.0)
    assert pool.all(Kill) == []
    _sample(pool, 120.0)
    assert pool.new(Weigh) == [Weigh("worker-0", 1, 1)], "it is weighed anew"
    pool.done(task)
    assert pool.end(task).state == "completed"


def test_one_weighing_at_a_time() -> None:
    pool = _pool()
    pool.submit()
    for used_mb in (110.0, 120.0, 130.0):
        _sample(pool, used_mb)
    assert len(pool.all(Weigh)) == 1


def test_what_a_task_has_taken_says_nothing_of_the_next() -> None:
    pool = _pool()
    task = pool.submit()
    _sample(pool, 120.0)
    pool.done(task)
    pool.submit()
    _weigh(pool, 120.0, fence=1)
    assert pool.all(Kill) == []
    _sample(pool, 120.0)
    assert pool.new(Weigh) == [Weigh("worker-0", 1, 2)]


def test_whatever_it_has_begun_by_then_pays() -> None:
    pool = _pool()
    pool.teach("quick", 0.0001)
    first, second = pool.submit_many(2, "quick", max_retries=0)
    assert len(pool.slot().in_flight) == 2
    _sample(pool, 120.0)
    _weigh(pool, 120.0)
    worker, fence = "worker-0", pool.task(first).fence
    pool.pages[worker] = (pool.task(second).fence, pool.now)
    pool.scheduler.attempts_done(worker, [(fence, pool.now, pool.now, b"")], pool.now)
    pool.flush()
    pool.die(worker, "signal 9 (SIGKILL)")
    assert pool.end(first).state == "completed"
    assert pool.end(second).code == "out_of_memory"


def test_it_counts_as_a_kill_and_the_pool_goes_on() -> None:
    pool = _pool(poison_after=3)
    task = pool.submit(max_retries=10, retry_backoff_s=0.0)
    for _ in range(3):
        _sample(pool, 120.0)
        _weigh(pool, 120.0)
        pool.die("worker-0", "signal 9 (SIGKILL)")
    assert pool.end(task).state == "dead"
    assert len(pool.all(Start)) == 3
    assert pool.slot().state == "ready"
    assert pool.slot().charges == 0


def test_without_a_limit_nothing_is_judged() -> None:
    pool = _pool(worker_memory_limit_mb=0)
    pool.submit()
    _sample(pool, 1e6)
    assert pool.all(Weigh) == []


@pytest.mark.parametrize("incarnation", [0, 2])
def test_another_incarnation_is_not_meant(incarnation: int) -> None:
    pool = _pool()
    pool.submit()
    pool.scheduler.memory_limits.sampled("worker-0", incarnation, 120.0, pool.now)
    pool.scheduler.memory_limits.weighed("worker-0", incarnation, 1, 120.0, pool.now)
    pool.flush()
    assert pool.all(Weigh) == []
    assert pool.all(Kill) == []


# ------------------------------------------------------------------------------------- a limit of its own


def test_a_task_with_a_limit_of_its_own() -> None:
    pool = _pool()
    task = pool.submit(memory_limit_mb=10, max_retries=0)
    assert [type(each) for each in pool.new(Cap) + pool.new(Start)] == [Cap, Start]
    assert pool.new(Cap) == [Cap("worker-0", 1, 10)]
    _sample(pool, 20.0)
    assert pool.new(Weigh) == [Weigh("worker-0", 1, 1)]
    _weigh(pool, 20.0)
    pool.die("worker-0", "signal 9 (SIGKILL)")
    assert pool.end(task).code == "out_of_memory"
    assert pool.slot().memory_limit_mb == 100


def test_its_limit_goes_with_it() -> None:
    pool = _pool()
    pool.done(pool.submit(memory_limit_mb=1000))
    assert pool.new(Cap) == [Cap("worker-0", 1, None)]
    pool.submit()
    assert pool.new(Cap) == []
    _sample(pool, 120.0)
    assert pool.new(Weigh) == [Weigh("worker-0", 1, 2)]


def test_the_limit_is_lifted_before_the_next_task_starts() -> None:
    pool = _pool()
    task = pool.submit(memory_limit_mb=1000)
    pool.submit(memory_limit_mb=50)
    pool.done(task)
    order = [each for each in pool.latest if isinstance(each, (Cap, Start))]
    assert [each.limit_mb if isinstance(each, Cap) else "start" for each in order] == [None, 50, "start"]


def test_nothing_is_prefetched_behind_it() -> None:
    pool = _pool()
    for name in ("quick", "heavy"):
        pool.teach(name, 0.0001)
    pool.submit(name="heavy", memory_limit_mb=10)
    pool.submit_many(5, "quick")
    assert len(pool.slot().in_flight) == 1


# ------------------------------------------------------------------------------------- refused memory


def test_a_memory_error_is_the_limit_seen_from_inside() -> None:
    pool = _pool()
    task = pool.submit(max_retries=0)
    _sample(pool, 40.0)
    pool.fail(task, NO_MEMORY)
    assert pool.end(task).code == "out_of_memory"
    assert b"to be had (its worker took 40 MB, its limit is 100 MB)" in bytes(pool.end(task).outcome)  # type: ignore[arg-type]
    assert pool.retired() == ["worker-0"], "who knows in which state it is"


def test_where_there_is_no_limit_it_is_the_handlers_own() -> None:
    pool = _pool(worker_memory_limit_mb=0)
    task = pool.submit(max_retries=0)
    pool.fail(task, NO_MEMORY)
    assert pool.end(task).code == "task_failed"
    assert pool.retired() == []


def test_other_failures_are_what_they_are() -> None:
    pool = _pool()
    task = pool.submit(max_retries=0)
    _sample(pool, 90.0)
    pool.fail(task, VALUE_ERROR)
    assert pool.end(task).code == "task_failed"
    assert pool.retired() == []


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (PostMortem(signal=9, oom_killed=True), "out_of_memory"),
        (PostMortem(signal=6, peak_growth_mb=190.0), "out_of_memory"),
        (PostMortem(exit_code=1, peak_growth_mb=190.0), "out_of_memory"),
        (PostMortem(exit_code=0, peak_growth_mb=190.0), "worker_died"),
        (PostMortem(signal=11, peak_growth_mb=120.0), "worker_died"),
        (PostMortem(signal=9), "worker_died"),
    ],
)
def test_deaths_by_memory_are_told_from_others(found: PostMortem, code: str) -> None:
    pool = _pool()
    task = pool.submit(max_retries=0)
    _die(pool, found)
    assert pool.end(task).code == code


# ------------------------------------------------------------------------------------- at rest


def test_an_idle_one_that_is_over_it_gives_back_first() -> None:
    pool = _pool()
    pool.done(pool.submit())
    _sample(pool, 120.0)
    assert pool.new(GiveBack) == [GiveBack("worker-0", 1)]
    _sample(pool, 20.0)
    assert pool.retired() == []
    _sample(pool, 120.0)
    assert pool.new(GiveBack) == [GiveBack("worker-0", 1)]
    _sample(pool, 110.0)
    assert pool.retired() == [], "it is at it"
    pool.advance(TRIM_S)
    _sample(pool, 110.0)
    assert pool.retired() == ["worker-0"]
    assert pool.events("worker-recycled") == [
        {"worker_id": "worker-0", "used_mb": 110.0, "limit_mb": 100, "reason": "memory_limit"}
    ]
    pool.die("worker-0", "exit code 0")
    assert pool.slot().state == "ready"
    assert pool.slot().charges == 0, "that costs nobody"


def test_one_that_runs_a_task_instead_of_giving_back_is_not_waited_for() -> None:
    pool = _pool()
    pool.done(pool.submit())
    _sample(pool, 120.0)
    assert pool.new(GiveBack) == [GiveBack("worker-0", 1)]
    pool.done(pool.submit())
    _sample(pool, 120.0)
    assert pool.retired() == ["worker-0"]


def test_one_that_never_rests_is_measured_between_two_tasks() -> None:
    pool = _pool()
    task = pool.submit()
    other = pool.submit(max_retries=0)
    pool.done(task)
    assert pool.new(Measure) == [], "nobody has looked while it ran"
    _sample(pool, 90.0)
    pool.done(other)
    assert pool.new(Measure) == [Measure("worker-0", 1)]
    pool.submit()
    _measure(pool, 120.0)
    assert pool.slot().retiring == "memory_limit"
    assert pool.all(Kill) == [], "what it has begun may end"


def test_it_is_measured_before_it_is_given_another() -> None:
    pool = _pool()
    task = pool.submit()
    pool.submit()
    _sample(pool, 50.0)
    pool.done(task)
    assert [type(each) for each in pool.latest if isinstance(each, (Measure, Start))] == [Measure, Start]


def test_one_that_leaks_is_replaced_before_it_is_over() -> None:
    pool = _pool()
    for number in range(9):
        pool.done(pool.submit())
        _sample(pool, 12.0 * number)
        if pool.new(GiveBack):
            pool.advance(TRIM_S)
            _sample(pool, 12.0 * number)  # it was no garbage
        if pool.retired():
            break
    assert pool.retired() == ["worker-0"]
    assert pool.slot().memory_used_mb < 100
    assert pool.events("worker-recycled")[0]["reason"] == "memory_trend"


def test_one_that_is_over_it_before_it_was_of_use_is_the_slots_fault() -> None:
    pool = _pool(max_restart_attempts=2, restart_cooldown_s=5.0)
    for _ in range(2):
        _sample(pool, 120.0)
        _sample(pool, 120.0)
        assert pool.killed()[-1] == ("worker-0", "memory")
        pool.die("worker-0", "signal 9 (SIGKILL)")
        spawned = len(pool.all(Spawn))
        pool.advance(4.0)
        assert len(pool.all(Spawn)) == spawned, "it is not started again at once"
        pool.advance(2.0)
    assert pool.slot().state == "failed"
    assert "before it had run a task" in pool.events("worker-error")[0]["error"]

"""The autoscaler: what makes it add and take away workers, what holds it back, and that it comes to rest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolmgr.config import Group
from poolmgr.core.effects import Emit
from poolmgr.core.slot import READY_WITHIN_S
from poolmgr.errors import BadOption
from tests.unit.driver import Pool

WAIT_S, IDLE_S = 1.0, 20.0


def _pool(workers: int = 2, **others: Any) -> Pool:
    usual = {
        "autoscale": True, "min_workers": 2, "max_workers": 20, "autoscale_wait_s": WAIT_S, "autoscale_idle_s": IDLE_S,
    }  # fmt: skip
    return Pool(workers=workers, **(usual | others))


def _size(pool: Pool) -> int:
    return pool.scheduler.supervisor.size()


def _steps(pool: Pool) -> list[int]:
    """The sizes that it was scaled to, in their order."""
    names = ("pool-scaled-up", "pool-scaled-down")
    return [event.fields["new_size"] for event in pool.all(Emit) if event.name in names]


def _reason(pool: Pool) -> str:
    return pool.scheduler.autoscaler.reason


# ------------------------------------------------------------------------------------- up


def test_a_burst_doubles_the_pool_until_it_is_met_or_at_its_bound() -> None:
    pool = _pool()
    pool.submit_many(30, timeout_s=None)
    pool.advance(20.0)
    assert _steps(pool) == [4, 8, 16, 20]
    assert len(pool.running()) == 20
    assert "max_workers is reached" in _reason(pool)
    assert pool.events("pool-scaled-up")[0] == {
        "count": 2, "new_size": 4, "group": "default",
        "reason": "28 tasks wait, for 3.0 s, and no worker is idle",
    }  # fmt: skip


def test_no_more_workers_are_added_than_tasks_wait() -> None:
    pool = _pool(workers=4)
    pool.submit_many(5, timeout_s=None)
    pool.advance(10.0)
    assert _steps(pool) == [5]


def test_one_look_is_not_enough() -> None:
    pool = _pool()
    tasks = pool.submit_many(3, timeout_s=None)
    pool.advance(2.0)  # at the second look it has waited for 2 s
    pool.done(tasks[0])
    pool.advance(5.0)
    assert _steps(pool) == []


def test_the_present_pace_tells_how_long_they_will_wait() -> None:
    pool = _pool()
    for _ in range(20):
        pool.done(pool.submit(), run_s=5.0)
    pool.submit_many(12, timeout_s=None)
    pool.advance(2.0)
    assert _steps(pool) == [4]
    assert pool.scheduler.autoscaler.last is not None
    assert "for 25.0 s" in pool.scheduler.autoscaler.last.reason


def test_many_short_tasks_in_the_queue_are_no_reason() -> None:
    pool = _pool()
    pool.teach("work", 0.00001, 40)
    running = pool.submit_many(500)
    for _ in range(8):
        pool.advance(0.9)
        for task in running[:60]:
            pool.done(task, run_s=0.00001)
        running = [*running[60:], *pool.submit_many(60)]
        oldest = [task for task in running if pool.task(task).slot is None]
        for task in oldest:
            pool.task(task).queued_at = pool.now  # as if all had come just now
    assert _steps(pool) == []


def test_new_workers_are_awaited_before_there_are_more() -> None:
    pool = _pool()
    pool.comes_up = False
    pool.submit_many(30, timeout_s=None)
    pool.advance(10.0)
    assert _steps(pool) == [4]
    assert "2 new workers are not ready yet" in _reason(pool)
    pool.comes_up = True
    pool.flush()
    pool.advance(10.0)
    assert _steps(pool) == [4, 8, 16, 20]


def test_none_are_added_where_the_processors_are_busy_already() -> None:
    pool = _pool()
    pool.cpu_percent = 90.1
    pool.submit_many(30, timeout_s=None)
    pool.advance(30.0)
    assert _steps(pool) == []
    assert "the machine is busy already (90 % of its CPU)" in _reason(pool)
    pool.cpu_percent = 90.0
    pool.advance(2.0)
    assert _steps(pool) == [4]


def test_none_are_added_where_memory_is_short() -> None:
    pool = _pool()
    pool.submit_many(30, timeout_s=None)
    for _ in range(10):
        pool.scheduler.pressure.measured(75.0, 0.0, pool.now)
        pool.flush()
        pool.advance(1.0)
    assert _steps(pool) == []
    assert "memory is short: 75 %" in _reason(pool)
    for _ in range(6):
        pool.scheduler.pressure.measured(50.0, 0.0, pool.now)
        pool.flush()
        pool.advance(1.0)
    assert _steps(pool)[0] == 4


def test_none_are_added_while_nothing_is_known_of_the_machine() -> None:
    pool = _pool()
    pool.cpu_percent = None
    pool.submit_many(30, timeout_s=None)
    pool.advance(30.0)
    assert _steps(pool) == []
    assert "is not known" in _reason(pool)


def test_none_are_added_where_those_that_there_are_are_of_no_use() -> None:
    pool = _pool(max_restart_attempts=1)
    for worker in ("worker-0", "worker-1"):
        pool.die(worker)
    pool.submit_many(5)
    pool.advance(10.0)
    assert _steps(pool) == []
    assert "none is of use" in _reason(pool)


def test_new_workers_that_hang_at_their_start_are_not_awaited_for_ever() -> None:
    pool = _pool()
    pool.comes_up = False
    pool.submit_many(30, timeout_s=None)
    pool.advance(READY_WITHIN_S)
    assert _steps(pool) == [4]
    pool.advance(6.0)
    assert _steps(pool) == [4, 8]


def test_a_name_that_its_breaker_tries_with_one_task_is_worth_one_worker() -> None:
    pool = _pool(breaker_open_s=20.0)
    pool.submit("busy", timeout_s=None)
    for _ in range(3):
        pool.fail(pool.submit(max_retries=0))
    pool.submit("busy", timeout_s=None)
    pool.submit_many(10, timeout_s=None)
    pool.advance(35.0)
    assert _steps(pool) == [3]


@pytest.mark.parametrize("held", ["paused", "breaker", "capability", "rate", "concurrency", "delay"])
def test_what_could_not_run_is_no_reason(held: str) -> None:
    pool = _pool(breaker_open_s=1000.0)
    pool.submit_many(2, "busy", timeout_s=None)
    kinds: dict[str, dict[str, Any]] = {
        "capability": {"requires": frozenset({"gpu"})}, "rate": {"rate_limit": (1, 1000.0)},
        "concurrency": {"max_concurrency": 1}, "delay": {"delay_s": 1000.0},
    }  # fmt: skip
    options = kinds.get(held, {})
    if held == "paused":
        pool.scheduler.intake.pause("work")
    elif held == "breaker":
        pool.done(pool.running()[0])
        for _ in range(3):
            pool.fail(pool.submit(max_retries=0))
        pool.submit("busy", timeout_s=None)
    elif held in ("rate", "concurrency"):
        pool.done(pool.running()[0])
        pool.submit(timeout_s=None, **options)
    pool.submit_many(10, timeout_s=None, **options)
    pool.advance(30.0)
    assert len(pool.running()) == 2
    assert _steps(pool) == []


def test_a_limit_of_concurrency_is_what_workers_are_added_for() -> None:
    pool = _pool()
    pool.submit_many(20, max_concurrency=3, timeout_s=None)
    pool.advance(30.0)
    assert _steps(pool) == [3]
    assert len(pool.running()) == 3


# ------------------------------------------------------------------------------------- down


def test_an_idle_pool_goes_down_to_its_bound_one_at_a_time() -> None:
    pool = _pool(workers=6)
    pool.advance(IDLE_S)
    assert _steps(pool) == []
    pool.advance(1.0)
    assert _steps(pool) == [5]
    pool.advance(7.0)
    assert _steps(pool) == [5, 4, 3, 2]
    pool.advance(100.0)
    assert (_steps(pool), _size(pool)) == ([5, 4, 3, 2], 2)
    assert all(event["count"] == 1 and event["reason"] for event in pool.events("pool-scaled-down"))
    assert "min_workers is reached" in _reason(pool)


@pytest.mark.parametrize(("busy", "size"), [(0, 2), (7, 9), (8, 10), (10, 10)])
def test_a_fifth_of_those_that_are_left_is_to_spare(busy: int, size: int) -> None:
    pool = _pool(workers=10)
    pool.submit_many(busy, timeout_s=None)
    pool.advance(100.0)
    assert _size(pool) == size
    assert len(pool.running()) == busy


def test_what_was_needed_lately_is_kept() -> None:
    pool = _pool(workers=10)
    for _ in range(10):
        tasks = pool.submit_many(10, timeout_s=None)
        pool.advance(2.0)
        for task in tasks:
            pool.done(task)
        pool.advance(IDLE_S - 5.0)
    assert _steps(pool) == []
    assert "up to 10 of 10 workers were busy" in _reason(pool) or "it is to be seen" in _reason(pool)


def test_after_a_burst_all_goes_back() -> None:
    pool = _pool()
    tasks = pool.submit_many(30, timeout_s=None)
    pool.advance(15.0)
    assert _size(pool) == 20
    while left := [task for task in tasks if task in pool.scheduler.state.tasks]:
        for task in left:
            if pool.state(task) == "running":
                pool.done(task, run_s=15.0)
    pool.advance(IDLE_S + 18 * IDLE_S / 10 + 20.0)
    assert _steps(pool) == [4, 8, 16, 20, *range(19, 1, -1)]


# ------------------------------------------------------------------------------------- whose workers


def test_groups_keep_their_sizes_and_count_for_the_bounds() -> None:
    group = Group(name="gpu", size=3, reserved=True)
    pool = _pool(workers=5, groups=(group,), min_workers=4, max_workers=8)
    pool.submit_many(30, timeout_s=None)
    pool.advance(10.0)
    assert _size(pool) == 8
    assert pool.scheduler.supervisor.size("gpu") == 3
    pool.scheduler.intake.clear(pool.now)
    for task in pool.running():
        pool.done(task)
    pool.advance(200.0)
    assert (_size(pool), pool.scheduler.supervisor.size("gpu")) == (4, 3)


def test_where_workers_were_taken_out_by_hand_the_bound_is_reached_at_once() -> None:
    pool = _pool(workers=6, min_workers=6)
    for worker in list(pool.scheduler.state.slots)[1:]:
        pool.scheduler.stop_worker(worker, pool.now)
        pool.flush()
        pool.die(worker, "exited 0")
    pool.advance(60.0)
    assert _size(pool) == 1
    pool.submit_many(3, timeout_s=None)
    pool.advance(5.0)
    assert _steps(pool) == [6]


def test_of_workers_that_belong_to_no_group_one_is_kept() -> None:
    pool = _pool(workers=5, groups=(Group(name="gpu", size=3, reserved=True),), min_workers=1)
    pool.advance(200.0)
    assert (_size(pool), pool.scheduler.supervisor.size("default")) == (4, 1)
    task = pool.submit()
    assert pool.state(task) == "running"


def test_where_there_was_none_the_first_comes_when_it_is_needed() -> None:
    pool = _pool(workers=3, groups=(Group(name="gpu", size=3, reserved=True),), min_workers=1)
    task = pool.submit(timeout_s=None)
    pool.advance(5.0)
    assert pool.state(task) == "running"
    pool.done(task)
    pool.advance(200.0)
    assert pool.scheduler.supervisor.size("default") == 0


def test_what_waits_for_a_group_is_no_reason() -> None:
    pool = _pool(workers=3, groups=(Group(name="gpu", size=1, reserved=True),))
    pool.submit_many(2, timeout_s=None)
    pool.submit_many(10, "train", requires=frozenset({"gpu"}), timeout_s=None)
    pool.advance(30.0)
    assert _steps(pool) == []


def test_scaling_by_hand_stays_possible_and_begins_its_time_anew() -> None:
    pool = _pool(workers=4)
    pool.advance(15.0)
    pool.scheduler.supervisor.scale(6, pool.now)
    pool.flush()
    assert pool.events("pool-scaled-up") == [{"count": 2, "new_size": 6, "group": "default", "reason": "asked for"}]
    pool.advance(15.0)
    assert _size(pool) == 6
    pool.advance(7.0)
    assert _size(pool) == 5
    with pytest.raises(BadOption):
        pool.scheduler.supervisor.scale(21, pool.now)


def test_it_does_nothing_where_it_is_off() -> None:
    pool = _pool(workers=4, autoscale=False)
    pool.submit_many(30, timeout_s=None)
    pool.advance(100.0)
    assert _steps(pool) == []
    assert pool.scheduler.autoscaler.seen(pool.now) is None


def test_a_daemon_that_was_blocked_does_not_judge() -> None:
    pool = _pool()
    pool.submit_many(30, timeout_s=None)
    for _ in range(5):
        pool.jump(5.0)
    assert _steps(pool) == []
    assert "no time to judge" in _reason(pool)


def test_it_tells_what_it_saw_and_why_it_did_what() -> None:
    pool = _pool()
    pool.submit_many(3, timeout_s=None)
    pool.advance(3.0)
    found = pool.scheduler.autoscaler.seen(pool.now)
    assert found is not None
    assert (found["size"], found["busy"], found["waiting"]) == (2, 2, 1)  # as it was when it looked
    assert found["cpu_percent"] == 10.0
    assert (found["last"]["before"], found["last"]["after"]) == (2, 3)
    assert found["last"]["reason"] in found["reason"]
    pool.advance(1.0)
    found = pool.scheduler.autoscaler.seen(pool.now)
    assert found is not None
    assert (found["size"], found["busy"], found["idle"]) == (3, 3, 0)


# ------------------------------------------------------------------------------------- it comes to rest


@pytest.mark.parametrize("a_second", [3, 5, 8, 11])
def test_a_steady_load_is_met_and_then_nothing_happens(a_second: int) -> None:
    """Tasks of a second each, so many a second: by and by nothing is scaled any more."""
    pool = _pool()
    begun: dict[bytes, float] = {}
    settled = 0
    for tenth in range(3000):
        if tenth * a_second // 10 != (tenth + 1) * a_second // 10:
            pool.submit_many((tenth + 1) * a_second // 10 - tenth * a_second // 10)
        for task in pool.running():
            begun.setdefault(task, pool.now)
        for task in [task for task, at in begun.items() if at <= pool.now - 1.0]:
            pool.done(task, run_s=1.0)
            del begun[task]
        pool.advance(0.1)
        if tenth == 1500:
            settled = len(_steps(pool))
    assert len(_steps(pool)) == settled, f"{_steps(pool)} does not come to rest"
    assert a_second <= _size(pool) <= 2 * a_second + 2


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["submit", "end", "wait", "busy", "calm", "short", "scale", "stop"]), st.integers(1, 12)
        ),
        max_size=40,
    )
)
@settings(max_examples=60)
def test_whatever_happens_it_keeps_to_its_bounds_and_heeds_the_machine(steps: list[tuple[str, int]]) -> None:
    pool = _pool(workers=3, max_workers=9, autoscale_idle_s=5.0)
    stopped = 0
    for what, count in steps:
        before = len(pool.events("pool-scaled-up"))
        was_short = bool(pool.scheduler.state.memory.level)
        if what == "submit":
            pool.submit_many(count, timeout_s=None)
        elif what == "end":
            for task in pool.running()[:count]:
                pool.done(task, run_s=1.0)
        elif what == "wait":
            pool.advance(float(count))
        elif what in ("busy", "calm"):
            pool.cpu_percent = 99.0 if what == "busy" else 1.0
        elif what == "short":
            pool.scheduler.pressure.measured(60.0 + 2 * count, 0.0, pool.now)
            pool.flush()
        elif what == "stop":
            worker = max(pool.scheduler.state.slots, default="")
            pool.scheduler.stop_worker(worker, pool.now)
            pool.flush()
            stopped += 1
        elif 2 <= count <= 9:
            pool.scheduler.supervisor.scale(count, pool.now)
            pool.flush()
            before = len(pool.events("pool-scaled-up"))
        assert stopped or _size(pool) >= 2  # by hand it may be less
        assert _size(pool) <= 9
        short = was_short and bool(pool.scheduler.state.memory.level)  # then it was so all the time
        assert not (short or (pool.cpu_percent or 0.0) > 90.0) or len(pool.events("pool-scaled-up")) == before
    pool.cpu_percent = 1.0
    while pool.running():
        for task in pool.running():
            pool.done(task, run_s=1.0)
    pool.advance(100.0)
    assert _size(pool) == 2 or (stopped and _size(pool) < 2)

"""Memory pressure of the machine: what each level holds back, and that there is a way out of each."""

from __future__ import annotations

from typing import Any

import pytest

from poolmgr.core import views
from poolmgr.core.effects import Interrupt, Start, Trim
from poolmgr.core.memory import Level
from poolmgr.core.pressure import CALM_S, LET_EVERY_S
from poolmgr.core.supervisor import EXITS_WITHIN_S
from poolmgr.model import TaskOptions
from tests.unit.driver import Pool

LOW = 50


def _measure(pool: Pool, percent: float, stalled: float = 0.0) -> str:
    """The level after this measure."""
    pool.scheduler.pressure.measured(percent, stalled, pool.now)
    pool.flush()
    return pool.scheduler.state.memory.level.word


def _go_on(pool: Pool, percent: float, seconds: float, stalled: float = 0.0) -> str:
    """The level after so long of it, measured once a second."""
    level = _measure(pool, percent, stalled)
    while seconds > 0:
        pool.advance(min(1.0, seconds))
        seconds -= 1.0
        level = _measure(pool, percent, stalled)
    return level


def _asked(pool: Pool) -> list[bytes]:
    started = {start.fence: start.task_id for start in pool.all(Start)}
    return [started[each.fence] for each in pool.all(Interrupt) if each.reason == "preempt"]


def _busy(pool: Pool, **options: Any) -> bytes:
    """A task that runs, and has done so for long."""
    return pool.submit(**{"timeout_s": None, **options})


# ------------------------------------------------------------------------------------- levels


@pytest.mark.parametrize(
    ("percent", "stalled", "level"),
    [
        (70.0, 0.0, "normal"),
        (70.1, 0.0, "high"),
        (85.1, 0.0, "critical"),
        (95.1, 0.0, "emergency"),
        (100.0, 100.0, "emergency"),
        (59.0, 100.0, "normal"),  # to stand still makes no level of a machine that is half empty
        (61.0, 9.9, "normal"),
        (61.0, 10.0, "high"),
        (76.0, 10.0, "critical"),
        (86.0, 10.0, "emergency"),
    ],
)
def test_use_and_stalls_make_a_level_at_once(percent: float, stalled: float, level: str) -> None:
    assert _measure(Pool(), percent, stalled) == level


def test_a_level_ends_once_it_has_been_calm_for_a_while() -> None:
    pool = Pool()
    _measure(pool, 71.0)
    assert _go_on(pool, 66.0, 60.0) == "high"  # not far enough below
    assert _go_on(pool, 64.0, CALM_S - 1.0) == "high"
    assert _measure(pool, 66.0) == "high"
    assert _go_on(pool, 64.0, CALM_S - 1.0) == "high"  # it counts from the beginning again
    assert _go_on(pool, 64.0, 1.0) == "normal"


def test_from_an_emergency_it_goes_down_to_what_is_still_true() -> None:
    pool = Pool()
    _measure(pool, 99.0)
    assert _go_on(pool, 82.0, CALM_S) == "critical"  # not yet 5 points below 85
    assert _go_on(pool, 10.0, CALM_S) == "normal"


def test_low_thresholds_have_an_exit_too() -> None:
    pool = Pool(memory_thresholds=(2, 3, 4))
    assert _measure(pool, 2.1) == "high"
    assert _go_on(pool, 1.7, CALM_S) == "normal"


def test_a_level_that_nobody_measures_is_none() -> None:
    pool = Pool()
    _measure(pool, 99.0)
    waiting = pool.submit()
    pool.advance(9.0)
    assert pool.state(waiting) == "queued"
    pool.advance(3.0)
    assert pool.state(waiting) == "running"
    assert pool.events("memory-pressure")[-1]["level"] == "normal"


def test_a_daemon_that_was_blocked_does_not_take_that_for_relief() -> None:
    pool = Pool()
    _measure(pool, 99.0)
    waiting = pool.submit()
    pool.jump(60.0)
    assert pool.state(waiting) == "queued"
    pool.advance(9.0)
    assert pool.state(waiting) == "queued"
    pool.advance(3.0)
    assert pool.state(waiting) == "running"


def test_each_change_is_told_with_its_reason() -> None:
    pool = Pool()
    _measure(pool, 50.0)
    _measure(pool, 88.0, stalled=30.0)
    _go_on(pool, 50.0, CALM_S)
    why = "88 % of the machine's memory is in use, page cache left out; all work stood still for 30 % of the last 10 s"
    first, last = pool.events("memory-pressure")
    assert first == {"level": "emergency", "before": "normal", "percent": 88.0, "why": why}
    assert (last["level"], last["before"]) == ("normal", "emergency")


def test_status_and_health_show_it() -> None:
    pool = Pool()
    _measure(pool, 75.0)
    state = pool.scheduler.state
    assert views.metrics(state, pool.now)["memory"] == {
        "level": "high", "percent": 75.0, "stalled_percent": 0.0, "held_from": 50,
        "why": "75 % of the machine's memory is in use, page cache left out",
    }  # fmt: skip
    health = views.health(state, pool.now)
    assert health["status"] == "degraded"
    assert "memory pressure is high: 75 % of" in health["alerts"][0]


# ------------------------------------------------------------------------------------- high


def test_low_tasks_are_held_and_run_when_it_is_over() -> None:
    pool = Pool(workers=4)
    _measure(pool, 75.0)
    low, other, normal = pool.submit(priority=LOW), pool.submit(priority=100), pool.submit(priority=LOW - 1)
    assert [pool.state(task) for task in (low, other, normal)] == ["queued", "queued", "running"]
    _go_on(pool, 20.0, CALM_S)
    assert [pool.state(task) for task in (low, other)] == ["running", "running"]


def test_what_runs_goes_on() -> None:
    pool = Pool()
    low = _busy(pool, priority=LOW)
    _go_on(pool, 75.0, 30.0)
    assert pool.state(low) == "running"
    pool.done(low)
    assert pool.state(low) == "completed"


def test_idle_workers_give_memory_back_before_anybody_loses_anything() -> None:
    pool = Pool(workers=1)
    _busy(pool)
    waiting = pool.submit(sheddable=True)
    _measure(pool, 75.0)
    assert len(pool.all(Trim)) == 1
    assert pool.state(waiting) == "queued"
    pool.advance(1.0)
    _measure(pool, 60.0)  # that was enough; but the level goes on for a while
    _go_on(pool, 75.0, 12.0)
    assert len(pool.all(Trim)) == 2


def test_sheddable_tasks_that_wait_end_and_new_ones_too() -> None:
    pool = Pool(workers=2)
    running = [_busy(pool, sheddable=True) for _ in range(2)]
    waiting = [pool.submit(sheddable=True), pool.submit(sheddable=True, durable=False)]
    delayed, other = pool.submit(sheddable=True, delay_s=5.0), pool.submit()
    _go_on(pool, 75.0, 1.0)
    assert [pool.end(task).code for task in waiting] == ["shed", "shed"]
    assert [pool.state(task) for task in waiting] == ["expired", "expired"]
    assert [pool.state(task) for task in (*running, delayed, other)] == ["running", "running", "scheduled", "queued"]
    assert pool.events("tasks-shed") == [{"count": 2}]
    new = [pool.submit(sheddable=True), pool.submit(sheddable=True, durable=False)]
    assert [pool.state(task) for task in new] == ["expired", "expired"]
    _go_on(pool, 75.0, 5.0)
    assert pool.state(delayed) == "expired"  # when its time had come
    _go_on(pool, 20.0, CALM_S)
    assert pool.state(pool.submit(sheddable=True)) == "queued"
    assert pool.scheduler.state.statistics.shed == 5


def test_one_that_has_begun_before_is_not_shed() -> None:
    pool = Pool(workers=1)
    task = pool.submit(sheddable=True, retry_backoff_s=0.0)
    pool.fail(task)
    _go_on(pool, 75.0, 1.0)
    pool.preempt(task)
    pool.submit(priority=0)
    pool.release(task)
    assert pool.state(task) == "queued"


def test_many_at_once_are_shed_as_one_is() -> None:
    pool = Pool(workers=1)
    _go_on(pool, 75.0, 1.0)
    taken = pool.scheduler.intake.submit_many(
        pool.now, [b"a" * 16], "work", [b""], TaskOptions(sheddable=True), 1, True
    )
    assert not taken


def test_of_what_is_held_one_task_is_let_through_now_and_then() -> None:
    pool = Pool(workers=4)
    _measure(pool, 75.0)
    tasks = [pool.submit(priority=priority) for priority in (60, 50, 50)]
    _go_on(pool, 75.0, LET_EVERY_S[Level.HIGH] - 1.0)
    assert pool.running() == []
    _go_on(pool, 75.0, 1.0)
    assert pool.running() == [tasks[1]]
    _go_on(pool, 75.0, LET_EVERY_S[Level.HIGH])
    assert pool.running() == [tasks[1], tasks[2]]
    _go_on(pool, 75.0, LET_EVERY_S[Level.HIGH])
    assert len(pool.running()) == 3


def test_what_comes_after_a_long_time_of_pressure_is_held_as_long_as_the_first() -> None:
    pool = Pool(workers=4)
    _go_on(pool, 75.0, 100.0)
    low = pool.submit(priority=LOW)
    _go_on(pool, 75.0, LET_EVERY_S[Level.HIGH] - 1.0)
    assert pool.state(low) == "queued"


def test_who_is_let_through_and_paused_does_not_start() -> None:
    pool = Pool(workers=4)
    pool.scheduler.intake.pause("paused")
    _measure(pool, 75.0)
    paused, free = pool.submit("paused", priority=LOW), pool.submit("free", priority=90)
    _go_on(pool, 75.0, LET_EVERY_S[Level.HIGH])
    assert [pool.state(task) for task in (paused, free)] == ["queued", "running"]


def test_one_for_which_there_is_no_worker_takes_nobodys_turn() -> None:
    pool = Pool(workers=4)
    _measure(pool, 75.0)
    pool.submit("train", priority=LOW, requires=frozenset({"gpu"}))
    others = [pool.submit(priority=60), pool.submit(priority=60)]
    _go_on(pool, 75.0, LET_EVERY_S[Level.HIGH])
    assert pool.running() == others[:1]
    _go_on(pool, 75.0, LET_EVERY_S[Level.HIGH])
    assert pool.running() == others


def test_while_no_worker_is_free_it_is_still_one_that_is_let_through() -> None:
    pool = Pool(workers=2)
    busy = [_busy(pool) for _ in range(2)]
    _measure(pool, 75.0)
    tasks = [pool.submit("one", priority=LOW), pool.submit("other", priority=60)]
    _go_on(pool, 75.0, 5 * LET_EVERY_S[Level.HIGH])
    for task in busy:
        pool.done(task)
    assert pool.running() == tasks[:1]


# ------------------------------------------------------------------------------------- critical


def test_one_task_at_a_time_gives_way_the_newest_of_the_lowest_priority() -> None:
    pool = Pool(workers=4, preempt_grace_s=0.5)
    tasks = [_busy(pool, priority=priority) for priority in (10, 60, 10)]
    pool.advance(5.0)
    newest = _busy(pool, priority=10)
    pool.advance(5.0)
    _go_on(pool, 90.0, 1.0)
    assert _asked(pool) == [tasks[1]]
    pool.release(tasks[1])
    assert pool.state(tasks[1]) == "queued"
    assert pool.retired() == ["worker-1"]  # or its memory would stay where it is
    _measure(pool, 90.0)
    assert _asked(pool) == [tasks[1]]  # the process is still there
    pool.die("worker-1", "exited with 0")
    _measure(pool, 90.0)
    assert _asked(pool) == [tasks[1]]  # it has just gone
    _go_on(pool, 90.0, 1.0)
    assert _asked(pool) == [tasks[1], newest]
    pool.release(newest)
    assert pool.state(newest) == "queued"  # nor do others of its priority start
    assert pool.state(pool.submit(priority=10)) == "queued"
    assert pool.state(pool.submit(priority=9)) == "running"


def test_the_last_one_that_runs_goes_on_and_critical_ones_always_do() -> None:
    pool = Pool(workers=2, preempt_grace_s=0.5)
    alone = _busy(pool, priority=90)
    pool.advance(5.0)
    _go_on(pool, 90.0, 10.0)
    assert _asked(pool) == []
    _busy(pool, priority=4)
    _go_on(pool, 90.0, 5.0)
    assert _asked(pool) == [alone]


def test_one_that_keeps_checkpoints_has_the_whole_grace_others_a_second() -> None:
    pool = Pool(workers=2, preempt_grace_s=5.0)
    pool.scheduler.preemption.is_resumable = lambda task: task.name == "agent"
    _busy(pool, name="plain", priority=40)
    agent = _busy(pool, name="agent", priority=50)
    pool.advance(2.0)
    _go_on(pool, 90.0, 1.0)
    assert _asked(pool) == [agent]
    _go_on(pool, 90.0, 4.0)
    assert pool.killed() == []
    _go_on(pool, 90.0, 1.0)
    assert pool.killed() == [("worker-1", "preempted")]

    pool = Pool(workers=2, preempt_grace_s=5.0)
    _busy(pool, priority=40)
    _busy(pool, priority=50)
    pool.advance(2.0)
    _go_on(pool, 90.0, 2.0)
    assert pool.killed() == [("worker-1", "preempted")]


def test_in_an_emergency_what_would_lose_all_anyway_is_killed_at_once() -> None:
    pool = Pool(workers=2, preempt_grace_s=5.0)
    _busy(pool)
    _busy(pool)
    pool.advance(2.0)
    _go_on(pool, 99.0, 1.0)
    assert pool.killed() == [("worker-1", "preempted")]
    assert _asked(pool) == []


def test_one_whose_end_comes_first_leaves_no_full_process_behind() -> None:
    pool = Pool(workers=2, preempt_grace_s=5.0)
    pool.scheduler.preemption.is_resumable = lambda task: True
    _busy(pool)
    ending = _busy(pool)
    pool.advance(2.0)
    _go_on(pool, 90.0, 1.0)
    pool.done(ending)
    assert pool.state(ending) == "completed"
    _measure(pool, 90.0)
    assert pool.retired() == ["worker-1"]


def test_a_worker_that_does_not_exit_is_killed_so_that_the_next_gives_way() -> None:
    pool = Pool(workers=3, preempt_grace_s=5.0)
    _busy(pool)
    other, newest = _busy(pool), _busy(pool)
    pool.advance(2.0)
    _go_on(pool, 90.0, 1.0)
    pool.release(newest)
    assert pool.retired() == ["worker-2"]
    _go_on(pool, 90.0, EXITS_WITHIN_S + 2.0)
    assert pool.killed() == [("worker-2", "lingers")]
    pool.die("worker-2")
    _go_on(pool, 90.0, 2.0)
    assert _asked(pool) == [newest, other]


def test_below_critical_those_that_gave_way_go_on() -> None:
    pool = Pool(workers=2, preempt_grace_s=5.0)
    _busy(pool)
    task = _busy(pool)
    pool.advance(2.0)
    _go_on(pool, 90.0, 1.0)
    pool.release(task)
    pool.die("worker-1", "exited with 0")
    assert pool.state(task) == "queued"
    assert _go_on(pool, 75.0, CALM_S) == "high"
    assert pool.state(task) == "running"


# ------------------------------------------------------------------------------------- emergency


def test_nothing_starts_but_critical_tasks() -> None:
    pool = Pool(workers=4)
    _measure(pool, 99.0)
    tasks = [pool.submit(priority=priority) for priority in (0, 4, 5, 10)]
    assert [pool.state(task) for task in tasks] == ["running", "running", "queued", "queued"]
    _go_on(pool, 99.0, LET_EVERY_S[Level.EMERGENCY])
    assert pool.state(tasks[2]) == "running"
    assert pool.state(tasks[3]) == "queued"
    _go_on(pool, 60.0, CALM_S)
    assert pool.state(tasks[3]) == "running"

"""Workers that fall silent: look before shooting, and go on without those that do not end."""

from __future__ import annotations

from typing import Any

import pytest

from poolmgr.core.effects import Continue, Inspect, Kill, Spawn
from poolmgr.core.supervisor import EXITS_WITHIN_S
from tests.unit.driver import Pool


def _silent(**settings: Any) -> Pool:
    pool = Pool(zombie_after_s=30.0, **settings)
    pool.silent.add("worker-0")
    return pool


def _inspected(pool: Pool, verdict: str) -> None:
    pool.scheduler.inspected("worker-0", pool.slot().incarnation, verdict, pool.now)
    pool.flush()


def test_silence_is_a_suspicion_and_no_verdict() -> None:
    pool = _silent()
    pool.advance(30.0)
    assert pool.all(Inspect) == []
    pool.advance(1.5)
    assert pool.all(Inspect) == [Inspect("worker-0", 1)]
    assert pool.all(Kill) == []


def test_there_is_one_look_for_each_such_silence() -> None:
    pool = _silent()
    pool.advance(62.5)
    assert len(pool.all(Inspect)) == 2


def test_a_heart_that_beats_is_not_looked_at() -> None:
    pool = Pool()
    pool.advance(120.0)
    assert pool.all(Inspect) == []


@pytest.mark.parametrize("verdict", ["running", "gone"])
def test_one_that_computes_is_let_run_to_the_tasks_own_deadline(verdict: str) -> None:
    pool = _silent()
    pool.submit(timeout_s=100.0)
    pool.advance(32.0)
    _inspected(pool, verdict)
    assert pool.all(Kill) == []
    pool.advance(68.1)
    assert pool.killed() == [("worker-0", "timeout")]


def test_one_that_is_asleep_is_a_zombie_and_its_task_is_charged() -> None:
    pool = _silent()
    task = pool.submit(timeout_s=None)
    pool.advance(32.0)
    _inspected(pool, "asleep")
    assert pool.killed() == [("worker-0", "hung")]
    assert pool.events("zombie-detected")[0]["worker_id"] == "worker-0"
    pool.die("worker-0")
    assert pool.task(task).past.failures == 1
    assert "hung" in pool.task(task).past.attempts[0].message


def test_a_stopped_one_is_continued_once() -> None:
    pool = _silent()
    pool.advance(32.0)
    _inspected(pool, "stopped")
    assert pool.all(Continue) == [Continue("worker-0", 1)]
    assert pool.all(Kill) == []
    pool.advance(31.0)
    _inspected(pool, "stopped")
    assert len(pool.all(Continue)) == 1
    assert pool.killed() == [("worker-0", "hung")]


def test_a_heart_that_beats_in_between_is_no_second_chance() -> None:
    pool = _silent()
    pool.submit(timeout_s=None)
    pool.advance(32.0)
    _inspected(pool, "stopped")
    pool.silent.clear()
    pool.advance(5.0)
    pool.silent.add("worker-0")
    pool.advance(32.0)
    _inspected(pool, "stopped")
    assert len(pool.all(Continue)) == 1
    assert pool.killed() == [("worker-0", "hung")]


def test_one_that_goes_on_may_be_continued_again_another_day() -> None:
    pool = _silent()
    pool.advance(32.0)
    _inspected(pool, "stopped")
    pool.silent.clear()
    pool.done(pool.submit())
    pool.advance(5.0)
    pool.silent.add("worker-0")
    pool.advance(32.0)
    _inspected(pool, "stopped")
    assert len(pool.all(Continue)) == 2
    assert pool.all(Kill) == []


def test_a_scheduler_that_was_late_itself_judges_nobody() -> None:
    pool = _silent()
    pool.advance(5.0)
    pool.jump(60.0)
    assert pool.all(Inspect) == []
    pool.advance(29.0)
    assert pool.all(Inspect) == []
    pool.advance(3.0)
    assert len(pool.all(Inspect)) == 1


@pytest.mark.parametrize("ticks_first", [True, False])
def test_a_scheduler_that_was_blocked_during_the_inspection_judges_nobody(ticks_first: bool) -> None:
    """What the worker has said meanwhile is not read yet."""
    pool = _silent()
    pool.advance(32.0)
    assert len(pool.all(Inspect)) == 1
    if ticks_first:
        pool.jump(8.0)
    else:
        pool.now += 8.0
    _inspected(pool, "asleep")
    assert pool.killed() == []
    while len(pool.all(Inspect)) < 2:
        pool.advance(1.0)
    _inspected(pool, "asleep")
    assert pool.killed() == [("worker-0", "hung")]


def test_one_that_hangs_before_it_is_ready_is_charged_to_its_slot() -> None:
    pool = Pool(ready=False)
    pool.silent.add("worker-0")
    pool.advance(32.0)
    _inspected(pool, "asleep")
    pool.die("worker-0")
    assert pool.slot().state == "stopped"
    assert pool.slot().charges == 1


def test_one_that_hangs_idle_charges_no_task() -> None:
    pool = _silent()
    task = pool.submit()
    pool.done(task)
    pool.advance(32.0)
    _inspected(pool, "asleep")
    pool.die("worker-0")
    assert pool.slot().state == "ready"
    assert pool.events("task-failed") == []


def test_one_that_does_not_end_is_left_behind() -> None:
    pool = _silent()
    task = pool.submit(timeout_s=None)
    pool.advance(32.0)
    _inspected(pool, "asleep")
    pool.advance(10.9)
    assert len(pool.all(Spawn)) == 1
    pool.advance(0.2)
    assert pool.all(Spawn)[-1] == Spawn("worker-0", 2, 1)
    assert pool.scheduler.state.stuck_pids == {1000: "worker-0"}
    assert "1000" in pool.events("worker-error")[-1]["error"]
    assert pool.task(task).past.failures == 1


def test_when_it_ends_after_all_nobody_is_hurt() -> None:
    pool = _silent()
    pool.submit(timeout_s=None)
    pool.advance(32.0)
    _inspected(pool, "asleep")
    pool.advance(11.1)
    pool.scheduler.worker_exited("worker-0", 1, "killed by SIGKILL", 0, 0.0, pool.now)
    pool.flush()
    assert pool.slot().state == "ready"
    assert pool.slot().incarnation == 2


def test_one_that_ended_in_time_is_not_stuck() -> None:
    pool = _silent()
    pool.done(pool.submit())
    pool.advance(32.0)
    _inspected(pool, "asleep")
    pool.die("worker-0")
    pool.advance(20.0)
    assert pool.slot().incarnation == 2
    assert pool.scheduler.state.stuck_pids == {}


# ------------------------------------------------------------------------------------- who is to go, and does not


def test_one_that_was_told_to_go_and_stays_is_killed_and_replaced() -> None:
    pool = Pool(max_tasks_per_worker=1)
    pool.done(pool.submit())
    assert pool.retired() == ["worker-0"]
    pool.advance(EXITS_WITHIN_S)
    assert pool.killed() == []
    pool.advance(2.0)
    assert pool.killed() == [("worker-0", "lingers")]
    waiting = pool.submit()
    pool.die("worker-0")
    assert pool.state(waiting) == "running"
    assert pool.slot().charges == 0


def test_one_that_was_told_to_go_finishes_what_it_has_begun() -> None:
    pool = Pool(workers=2)
    task = pool.submit(timeout_s=None)
    pool.scheduler.stop_worker("worker-0", pool.now)
    pool.flush()
    pool.advance(10 * EXITS_WITHIN_S)
    assert pool.killed() == []
    pool.done(task)
    pool.advance(EXITS_WITHIN_S)
    assert pool.killed() == []
    pool.jump(5.0)  # its end may wait to be read
    assert pool.killed() == []
    pool.advance(2.0)
    assert pool.killed() == [("worker-0", "lingers")]
    pool.die("worker-0")
    assert list(pool.scheduler.state.slots) == ["worker-1"]

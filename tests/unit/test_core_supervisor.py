"""The slots and their processes: who is replaced when, who pays, how many there are."""

from __future__ import annotations

import pytest

from poolmgr.core.effects import Forget, Kill, Retire, Spawn
from poolmgr.errors import BadOption, NotFound
from tests.unit.driver import Pool


def _slots(pool: Pool) -> list[str]:
    return list(pool.scheduler.state.slots)


def _states(pool: Pool) -> list[str]:
    return [str(slot.state) for slot in pool.scheduler.state.slots.values()]


def _fresh_deaths(pool: Pool, count: int, cooldown_s: float = 5.0) -> None:
    """``worker-0`` dies before it is of use, again and again."""
    for number in range(count):
        if number:
            pool.advance(cooldown_s)
        pool.die("worker-0", "exited 1")


# ------------------------------------------------------------------------------------- made and ready


def test_a_pool_begins_with_its_size() -> None:
    pool = Pool(workers=3, ready=False)
    assert pool.new(Spawn) == [Spawn("worker-0", 1, 1), Spawn("worker-1", 1, 1), Spawn("worker-2", 1, 1)]
    assert _states(pool) == ["starting"] * 3
    assert pool.events("pool-initialized") == [{"pool_size": 3}]


def test_a_starting_worker_gets_nothing_a_ready_one_does() -> None:
    pool = Pool(ready=False)
    task = pool.submit()
    assert pool.state(task) == "queued"
    pool.scheduler.worker_spawned("worker-0", 1, 4711)
    pool.scheduler.worker_ready("worker-0", 1, frozenset(), pool.now)
    pool.flush()
    assert pool.state(task) == "running"
    assert pool.slot().pid == 4711
    assert pool.events("worker-started") == [{"worker_id": "worker-0", "pid": 4711, "incarnation": 1, "generation": 1}]


def test_what_an_earlier_incarnation_says_is_old_news() -> None:
    pool = Pool()
    pool.done(pool.submit())
    pool.die("worker-0")
    task = pool.submit()
    scheduler = pool.scheduler
    scheduler.worker_exited("worker-0", 1, "again", pool.task(task).fence, 0.0, pool.now)
    scheduler.worker_broken("worker-0", 1, "garbage", pool.now)
    scheduler.worker_spawned("worker-0", 1, 9)
    scheduler.worker_ready("worker-0", 1, frozenset({"gpu"}), pool.now)
    scheduler.page_seen("worker-0", 1, pool.task(task).fence, 1.0, pool.now)
    scheduler.inspected("worker-0", 1, "asleep", pool.now)
    pool.flush()
    assert pool.state(task) == "running"
    assert pool.killed() == []
    assert pool.slot().capabilities == {"default"}


# ------------------------------------------------------------------------------------- replaced


def test_a_worker_that_died_during_a_task_is_replaced_at_once() -> None:
    pool = Pool()
    pool.submit()
    pool.die("worker-0")
    assert pool.new(Spawn) == [Spawn("worker-0", 2, 1)]
    assert pool.slot().restarts == 1
    assert pool.events("worker-exited")[0]["how"] == "killed by SIGKILL"


def test_so_is_one_that_died_idle_after_having_been_of_use() -> None:
    pool = Pool()
    pool.done(pool.submit())
    pool.die("worker-0")
    assert pool.new(Spawn) == [Spawn("worker-0", 2, 1)]


@pytest.mark.parametrize("ready", [False, True])
def test_one_that_was_of_no_use_waits_for_its_cool_down(ready: bool) -> None:
    pool = Pool(ready=ready, restart_cooldown_s=5.0)
    pool.die("worker-0", "exited 1")
    assert _states(pool) == ["stopped"]
    pool.advance(4.9)
    assert len(pool.all(Spawn)) == 1
    pool.advance(0.1)
    assert pool.all(Spawn)[-1] == Spawn("worker-0", 2, 1)
    assert "exited 1" in pool.events("worker-error")[0]["error"]


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_slot_fails_after_max_restart_attempts_and_is_tried_again_after_a_minute(attempts: int) -> None:
    pool = Pool(max_restart_attempts=attempts)
    _fresh_deaths(pool, attempts - 1)
    assert _states(pool) in (["stopped"], ["ready"])
    pool.advance(5.0 if attempts > 1 else 0.0)
    pool.die("worker-0", "exited 1")
    assert _states(pool) == ["failed"]
    pool.advance(59.9)
    assert _states(pool) == ["failed"]
    pool.advance(0.1)
    assert _states(pool) == ["ready"]
    assert pool.slot().incarnation == attempts + 1


def test_a_failed_slot_that_fails_again_waits_another_minute() -> None:
    pool = Pool()
    _fresh_deaths(pool, 3)
    pool.advance(60.0)
    pool.die("worker-0", "exited 1")
    assert _states(pool) == ["failed"]


def test_a_worker_of_use_clears_what_was_charged_before() -> None:
    pool = Pool()
    _fresh_deaths(pool, 2)
    pool.advance(5.0)
    pool.done(pool.submit())
    pool.die("worker-0")
    _fresh_deaths(pool, 2)
    assert _states(pool) == ["stopped"]


def test_garbage_costs_the_worker_and_is_said() -> None:
    pool = Pool()
    pool.done(pool.submit())
    pool.scheduler.worker_broken("worker-0", 1, "not MessagePack", pool.now)
    pool.flush()
    assert pool.new(Kill) == [Kill("worker-0", 1, "broken", 0.0)]
    pool.die("worker-0")
    assert pool.slot().state == "ready"
    assert pool.events("worker-error")[0]["error"] == "not MessagePack"


def test_a_worker_that_breaks_again_and_again_before_it_is_of_use_backs_off() -> None:
    pool = Pool()
    pool.scheduler.worker_broken("worker-0", 1, "not MessagePack", pool.now)
    pool.flush()
    pool.die("worker-0")
    assert _states(pool) == ["stopped"]


def test_a_task_under_which_workers_break_is_charged_and_not_run_for_ever() -> None:
    pool = Pool()
    task = pool.submit(max_retries=50, retry_backoff_s=0.0)
    for _ in range(3):
        pool.scheduler.worker_broken("worker-0", pool.slot().incarnation, "not MessagePack", pool.now)
        pool.flush()
        pool.die("worker-0")
    assert pool.state(task) == "dead"


def test_without_auto_restart_a_slot_stays_empty_but_for_recycling() -> None:
    pool = Pool(workers=2, auto_restart=False, max_tasks_per_worker=2)
    pool.die("worker-1")
    assert pool.slot("worker-1").state == "stopped"
    pool.done(pool.submit())
    pool.done(pool.submit())
    pool.die("worker-0", "exited 0")
    assert pool.slot("worker-0").state == "ready"
    pool.submit()
    pool.die("worker-0")
    pool.advance(100.0)
    assert _states(pool) == ["stopped", "stopped"]


def test_no_slot_is_filled_again_during_a_drain() -> None:
    pool = Pool(workers=2)
    pool.die("worker-0", "exited 1")
    pool.submit()
    pool.scheduler.drain(pool.now)
    pool.die("worker-1")
    pool.advance(100.0)
    assert _states(pool) == ["stopped", "stopped"]
    assert len(pool.all(Spawn)) == 2


# ------------------------------------------------------------------------------------- how many


def test_scaling_up_fills_the_lowest_free_numbers() -> None:
    pool = Pool(workers=3)
    pool.scheduler.stop_worker("worker-1", pool.now)
    pool.flush()
    pool.die("worker-1", "exited 0")
    pool.scheduler.supervisor.scale(4, pool.now)
    pool.flush()
    assert sorted(_slots(pool)) == ["worker-0", "worker-1", "worker-2", "worker-3"]
    assert pool.events("pool-scaled-up") == [{"count": 2, "new_size": 4, "group": "default", "reason": "asked for"}]


def test_scaling_down_takes_first_who_has_not_worked_then_who_has_been_idle_for_longest() -> None:
    pool = Pool(workers=6)
    tasks = pool.submit_many(4)
    for task in (tasks[2], tasks[0], tasks[1]):
        pool.done(task)
        pool.now += 1.0
    pool.scheduler.supervisor.scale(2, pool.now)
    pool.flush()
    assert pool.retired() == ["worker-5", "worker-4", "worker-2", "worker-0"]
    assert pool.state(tasks[3]) == "running"


@pytest.mark.parametrize("auto_restart", [True, False])
def test_scaling_down_takes_first_what_is_of_no_use(auto_restart: bool) -> None:
    """The one that was at work last has died, and its slot rests, or its next process has not come up."""
    pool = Pool(workers=4, auto_restart=auto_restart)
    for task in pool.submit_many(4):
        pool.done(task)
        pool.now += 1.0
    pool.comes_up = False
    pool.die("worker-3")
    pool.scheduler.supervisor.scale(3, pool.now)
    pool.scheduler.supervisor.scale(1, pool.now)
    pool.flush()
    staying = [slot for slot in pool.scheduler.state.slots.values() if not slot.leaving]
    assert [(slot.id, str(slot.state)) for slot in staying] == [("worker-2", "ready")]


def test_scaling_down_takes_a_slot_that_has_failed_before_one_that_has_not_worked_yet() -> None:
    pool = Pool(workers=2, max_restart_attempts=1)
    pool.die("worker-0", "exited 1")
    assert str(pool.slot("worker-0").state) == "failed"
    pool.scheduler.supervisor.scale(1, pool.now)
    pool.flush()
    assert _slots(pool) == ["worker-1"]


def test_scaling_down_takes_a_busy_worker_where_none_is_idle_any_more() -> None:
    pool = Pool(workers=4)
    tasks = pool.submit_many(3)
    pool.done(tasks[0])
    pool.scheduler.supervisor.scale(2, pool.now)
    pool.flush()
    assert [slot.id for slot in pool.scheduler.state.slots.values() if slot.leaving] == ["worker-0", "worker-3"]
    assert pool.retired() == ["worker-3", "worker-0"]
    assert [pool.state(task) for task in tasks[1:]] == ["running", "running"]
    assert pool.events("pool-scaled-down") == [{"count": 2, "new_size": 2, "group": "default", "reason": "asked for"}]


def test_a_busy_worker_that_leaves_finishes_what_it_has_begun() -> None:
    pool = Pool(workers=2)
    first, second = pool.submit_many(2)
    pool.scheduler.stop_worker("worker-0", pool.now)
    pool.flush()
    assert pool.retired() == []
    waiting = pool.submit()
    pool.done(first)
    assert pool.retired() == ["worker-0"]
    assert pool.state(waiting) == "queued"
    pool.die("worker-0", "exited 0")
    assert _slots(pool) == ["worker-1"]
    assert pool.all(Forget) == [Forget("worker-0")]
    assert pool.state(first) == "completed"
    pool.done(second)
    assert pool.state(waiting) == "running"


@pytest.mark.parametrize("size", [1, 9])
def test_scaling_stays_within_its_bounds(size: int) -> None:
    pool = Pool(workers=4, min_workers=2, max_workers=8)
    with pytest.raises(BadOption, match="min_workers 2 and max_workers 8"):
        pool.scheduler.supervisor.scale(size, pool.now)
    assert len(_slots(pool)) == 4


def test_a_slot_without_a_process_goes_at_once() -> None:
    pool = Pool(workers=2)
    pool.die("worker-0", "exited 1")
    pool.scheduler.stop_worker("worker-0", pool.now)
    pool.flush()
    assert _slots(pool) == ["worker-1"]
    pool.advance(60.0)
    assert _slots(pool) == ["worker-1"]


def test_one_more_and_one_that_is_not_there() -> None:
    pool = Pool(workers=1, max_workers=2)
    assert pool.scheduler.start_worker(pool.now) == "worker-1"
    pool.flush()
    with pytest.raises(BadOption):
        pool.scheduler.start_worker(pool.now)
    with pytest.raises(NotFound, match="worker-7"):
        pool.scheduler.stop_worker("worker-7", pool.now)


def test_a_slot_that_comes_again_goes_on_counting_its_incarnations() -> None:
    pool = Pool(workers=2)
    pool.scheduler.stop_worker("worker-1", pool.now)
    pool.flush()
    pool.die("worker-1", "exited 0")
    pool.scheduler.start_worker(pool.now)
    pool.flush()
    assert pool.all(Spawn)[-1] == Spawn("worker-1", 2, 1)
    assert pool.slot("worker-1").restarts == 0


# ------------------------------------------------------------------------------------- age and idleness


def test_an_old_worker_is_recycled_when_its_task_is_done() -> None:
    pool = Pool(max_worker_age_s=100.0)
    pool.advance(99.0)
    task = pool.submit(timeout_s=None)
    pool.advance(3.0)
    assert _states(pool) == ["draining"]
    assert pool.all(Retire) == []
    pool.done(task)
    assert pool.retired() == ["worker-0"]
    pool.die("worker-0", "exited 0")
    assert _states(pool) == ["ready"]
    assert pool.slot().charges == 0


def test_one_that_was_ready_for_as_long_as_a_pause_is_replaced_at_once_though_it_was_never_used() -> None:
    pool = Pool(restart_cooldown_s=5.0)
    pool.advance(4.9)
    pool.die("worker-0")
    assert (str(pool.slot().state), pool.slot().charges) == ("stopped", 1)
    pool.advance(5.0)
    for _ in range(5):
        pool.advance(5.0)
        pool.die("worker-0")
        assert (str(pool.slot().state), pool.slot().charges) == ("ready", 0)


def test_recycling_one_that_was_never_used_charges_nobody() -> None:
    pool = Pool(max_worker_age_s=10.0)
    pool.advance(12.0)
    pool.die("worker-0", "exited 0")
    assert _states(pool) == ["ready"]
    assert pool.slot().charges == 0


def test_an_idle_worker_is_recycled_only_if_it_was_of_use() -> None:
    pool = Pool(workers=2, idle_timeout_s=10.0)
    pool.done(pool.submit())
    pool.advance(9.0)
    assert pool.retired() == []
    pool.advance(3.0)
    assert pool.retired() == ["worker-0"]


def test_a_retired_worker_that_dies_at_its_task_is_charged_like_any_other() -> None:
    pool = Pool(max_worker_age_s=10.0)
    task = pool.submit()
    pool.advance(12.0)
    pool.die("worker-0", "killed by SIGSEGV")
    assert pool.task(task).past.failures == 1


def test_reuse_is_counted() -> None:
    pool = Pool(workers=2)
    for _ in range(4):
        for task in pool.submit_many(2):
            pool.done(task)
    assert pool.scheduler.state.statistics.reuse_rate() == 0.75
    assert [pool.slot(f"worker-{n}").executed for n in (0, 1)] == [4, 4]

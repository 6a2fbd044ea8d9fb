"""While the store refuses to write, durable work is neither taken nor started, and all other work goes on."""

from __future__ import annotations

import pytest

from poolmgr.core.changes import TaskRecord
from poolmgr.core.effects import Start
from poolmgr.errors import StoreUnavailable
from poolmgr.model import TaskOptions, TaskState
from tests.unit.driver import WALL_OFFSET, Pool

FULL = "the disk is full"
ID = b"r" * 16


def _refuse(pool: Pool, commit: int | None = None) -> None:
    state = pool.scheduler.state
    pool.scheduler.store_trouble.begins(FULL, state.commit if commit is None else commit, pool.now)
    pool.flush()


def _take_again(pool: Pool) -> None:
    pool.scheduler.store_trouble.ends()
    pool.flush()


def test_a_durable_submit_is_refused_with_the_reason_and_taken_once_it_is_over() -> None:
    pool = Pool()
    _refuse(pool)
    with pytest.raises(StoreUnavailable, match=FULL):
        pool.submit()
    assert not pool.scheduler.state.tasks
    _take_again(pool)
    assert pool.state(pool.submit()) == "running"


def test_a_refused_submit_is_counted_and_so_acknowledged_in_its_turn() -> None:
    pool = Pool()
    _refuse(pool)
    with pytest.raises(StoreUnavailable):
        pool.submit()
    assert pool.scheduler.state.sessions[1].submits == 1


def test_what_is_not_durable_is_taken_and_started_before_durable_work_that_waits() -> None:
    pool = Pool()
    first = pool.submit()
    waiting = pool.submit(priority=0)
    _refuse(pool)
    pool.done(first)
    assert pool.running() == []
    call = pool.submit(durable=False, priority=50)
    assert pool.running() == [call]
    pool.done(call)
    _take_again(pool)
    assert pool.running() == [waiting]


def test_of_one_name_and_group_those_that_are_not_durable_overtake_only_while_it_refuses() -> None:
    pool = Pool()
    first = pool.submit(durable=False, group="g")
    kept, call, later = (pool.submit(durable=durable, group="g") for durable in (True, False, True))
    _refuse(pool)
    pool.done(first)
    assert pool.running() == [call]
    _take_again(pool)
    pool.done(call)
    assert pool.running() == [kept]
    last = pool.submit(durable=False, group="g")
    pool.done(kept)
    assert pool.running() == [later]
    pool.done(later)
    assert pool.running() == [last]


def test_a_start_that_waits_for_a_refused_commit_is_taken_back_and_its_worker_is_free() -> None:
    pool = Pool()
    kept = pool.submit(restartable=False)
    [start] = pool.all(Start)
    assert start.commit
    pool.lines["worker-0"].clear()  # the shell has not made it, and will not
    _refuse(pool, start.commit)
    assert (pool.state(kept), pool.task(kept).attempt) == ("queued", 0)
    call = pool.submit(durable=False)
    assert pool.running() == [call]
    _refuse(pool, start.commit)  # said again at each try: the call is none that waits
    assert pool.running() == [call]
    pool.done(call)
    _take_again(pool)
    assert pool.running() == [kept]
    assert pool.all(Start)[-1].attempt == 1


def test_a_start_whose_commit_was_made_before_is_not_touched() -> None:
    pool = Pool()
    kept = pool.submit(restartable=False)
    _refuse(pool, pool.all(Start)[0].commit + 1)
    assert pool.running() == [kept]


def test_a_durable_retry_and_a_delay_that_is_over_wait_too() -> None:
    pool = Pool()
    failing = pool.submit(max_retries=1, retry_backoff_s=1.0)
    delayed = pool.submit(delay_s=2.0)
    _refuse(pool)
    pool.fail(failing)
    pool.advance(5.0)
    assert (pool.state(failing), pool.state(delayed)) == ("queued", "queued")
    _take_again(pool)
    assert pool.running() == [failing]


def test_a_paused_name_stays_paused_when_it_is_over() -> None:
    pool = Pool()
    _refuse(pool)
    pool.scheduler.intake.pause("work")
    _take_again(pool)
    task = pool.submit()
    assert pool.state(task) == "queued"
    _refuse(pool)
    pool.scheduler.intake.resume("work")
    pool.flush()
    assert pool.state(task) == "queued"
    _take_again(pool)
    assert pool.state(task) == "running"


def test_a_durable_dead_task_is_not_requeued_meanwhile() -> None:
    pool = Pool()
    dead = TaskRecord(ID, "work", b"", TaskOptions(), "g", 1, TaskState.DEAD, WALL_OFFSET)
    _refuse(pool)
    with pytest.raises(StoreUnavailable, match=FULL):
        pool.scheduler.intake.requeue([(dead, b"n" * 16)], pool.now)
    call = dead._replace(options=TaskOptions(durable=False))
    pool.scheduler.intake.requeue([(call, b"n" * 16)], pool.now)

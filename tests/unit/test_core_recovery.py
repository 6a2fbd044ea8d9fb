"""A new epoch takes over what the last one left: nothing is lost, and a task that kills daemons is found."""

from __future__ import annotations

from typing import Any

import pytest

from poolmgr.core.changes import TaskEnded, TaskMoved, TaskRecord
from poolmgr.core.effects import Start
from poolmgr.model import TaskOptions, TaskState
from poolmgr.payload import Lost
from tests.unit.driver import WALL_OFFSET, Pool

ID = b"r" * 16
WALL = 1000.0 + WALL_OFFSET  # the wall time at which a pool begins


def _record(state: str = "queued", *, id: bytes = ID, order: int = 7, **known: Any) -> TaskRecord:
    options = TaskOptions(**known.pop("options", {}))
    record = TaskRecord(id, "work", b"x", options, "client-4", order, TaskState(state), WALL - 60.0)
    return record._replace(**known)


def _recovered(*records: TaskRecord, names: str = "work", **settings: Any) -> Pool:
    pool = Pool(begin=False, **settings)
    pool.scheduler.recovery.recover(records, lambda name: name in names.split(), pool.now)
    pool.begin()
    return pool


def test_what_waited_waits_in_its_old_order_before_what_is_new() -> None:
    records = [_record(id=bytes([order]) * 16, order=order) for order in (3, 1, 2)]
    pool = _recovered(*records)
    assert pool.running() == [bytes([1]) * 16]
    pool.submit(group="client-4")
    for order in (1, 2, 3):
        pool.done(bytes([order]) * 16)
    assert pool.task(pool.running()[0]).order == 4


def test_a_recovered_task_starts_only_after_its_start_is_committed() -> None:
    pool = _recovered(_record())
    [start] = pool.all(Start)
    assert start.commit == 1
    [moved] = pool.changes(TaskMoved)
    assert (moved.state, moved.attempt) == ("running", 1)


def test_attempts_and_failures_count_on() -> None:
    pool = _recovered(_record(attempt=3, failures=2, kills=1, options={"max_retries": 2}))
    [start] = pool.all(Start)
    assert start.attempt == 4
    pool.fail(ID)
    [ended] = pool.changes(TaskEnded)
    assert (ended.state, ended.attempt, ended.failures) == ("dead", 4, 3)


def test_one_that_was_cancelled_as_it_ran_does_not_run_again() -> None:
    pool = _recovered(_record("running", attempt=1, cancel_wanted=True))
    assert pool.all(Start) == []
    [ended] = pool.changes(TaskEnded)
    assert (ended.state, ended.attempt) == ("cancelled", 1)


def test_a_task_that_ran_was_interrupted_and_that_is_no_failure() -> None:
    pool = _recovered(_record("running", attempt=1))
    assert pool.state(ID) == "running"
    assert (pool.task(ID).past.interruptions, pool.task(ID).past.failures, pool.task(ID).attempt) == (1, 0, 2)
    assert pool.changes(TaskMoved)[-1].interruptions == 1


def test_one_that_is_interrupted_again_and_again_is_dead() -> None:
    pool = _recovered(_record("running", attempt=3, interruptions=2))
    [ended] = pool.changes(TaskEnded)
    assert (ended.state, ended.code) == ("dead", "interrupted")
    assert "quarantined" in ended.message
    assert pool.running() == []


def test_one_that_may_not_run_again_is_dead_at_once() -> None:
    pool = _recovered(_record("running", attempt=1, options={"restartable": False}))
    [ended] = pool.changes(TaskEnded)
    assert (ended.state, ended.code) == ("dead", "interrupted")


def test_but_it_runs_if_it_had_not_begun() -> None:
    pool = _recovered(_record("queued", options={"restartable": False}))
    assert pool.running() == [ID]


@pytest.mark.parametrize("state", ["queued", "scheduled", "running"])
def test_a_name_that_the_app_lacks_is_dead(state: str) -> None:
    pool = _recovered(_record(state, due_at=WALL + 5.0 if state == "scheduled" else None), names="other")
    [ended] = pool.changes(TaskEnded)
    assert (ended.state, ended.code) == ("dead", "unknown_task")
    assert "'work'" in ended.message
    assert pool.scheduler.state.tasks == {}


@pytest.mark.parametrize("state", ["queued", "scheduled", "running"])
def test_one_whose_payload_is_lost_is_dead(state: str) -> None:
    due_at = WALL + 5.0 if state == "scheduled" else None
    pool = _recovered(_record(state, due_at=due_at, payload=Lost("somebody has removed 1-1")))
    [ended] = pool.changes(TaskEnded)
    assert (ended.state, ended.code) == ("dead", "payload_lost")
    assert ended.message == "its payload is gone: somebody has removed 1-1"
    assert pool.scheduler.state.tasks == {}


def test_a_delay_goes_on_and_one_that_has_passed_is_over() -> None:
    pool = _recovered(_record("scheduled", due_at=WALL + 10.0))
    assert pool.state(ID) == "scheduled"
    pool.advance(9.9)
    assert pool.state(ID) == "scheduled"
    pool.advance(0.1)
    assert pool.state(ID) == "running"
    assert _recovered(_record("scheduled", due_at=WALL - 1.0)).running() == [ID]


def test_a_wall_time_is_followed_and_a_backoff_is_not() -> None:
    options = {"at": WALL + 10.0}
    waits = _recovered(_record("scheduled", due_at=WALL + 10.0, options=options))
    retries = _recovered(_record("scheduled", due_at=WALL + 10.0, attempt=1, failures=1, options=options))
    for pool in (waits, retries):
        pool.scheduler.clock_changed(WALL_OFFSET + 60.0, pool.now)
        pool.advance(0.0)
    assert waits.state(ID) == "running"
    assert retries.state(ID) == "scheduled"


@pytest.mark.parametrize(("expires_s", "state"), [(59.0, "expired"), (90.0, "queued")])
def test_expiry_counts_from_the_submit_through_the_daemons_death(expires_s: float, state: str) -> None:
    blocker = _record(id=b"b" * 16, order=1)
    pool = _recovered(blocker, _record(options={"expires_s": expires_s}))
    pool.advance(0.1)
    ended = {change.id: str(change.state) for change in pool.changes(TaskEnded)}
    assert ended.get(ID, "queued") == state
    pool.advance(31.0)
    assert ID not in pool.scheduler.state.tasks


def test_keys_are_held_again_and_their_windows_count_from_the_submit() -> None:
    pool = _recovered(_record(options={"key": "k", "key_window_s": 100.0}))
    pool.submit(key="k")
    assert list(pool.scheduler.state.tasks) == [ID]
    pool.done(ID)
    pool.advance(39.0)
    assert "k" in pool.scheduler.state.keys
    pool.advance(2.0)
    assert pool.scheduler.state.keys == {}


def test_limits_hold_again() -> None:
    records = [_record(id=bytes([n]) * 16, order=n, options={"max_concurrency": 1}) for n in (1, 2, 3)]
    pool = _recovered(*records, workers=3)
    assert len(pool.running()) == 1


def test_nothing_that_was_recovered_is_prefetched() -> None:
    records = [_record(id=bytes([n]) * 16, order=n) for n in range(1, 40)]
    pool = _recovered(*records)
    for number in range(1, 20):
        pool.done(bytes([number]) * 16)
    assert len(pool.slot().in_flight) == 1


def test_nor_behind_what_is_new() -> None:
    pool = _recovered(_record("scheduled", due_at=WALL + 10.0))
    pool.teach("work", 0.0001)
    pool.answers_looks = False
    pool.advance(9.999)
    pool.submit_many(2)
    pool.advance(0.001)
    assert len(pool.slot().in_flight) == 2
    assert pool.worker_of(ID) is None


def test_a_record_goes_round_unchanged() -> None:
    record = _record("scheduled", due_at=WALL + 10.0, attempt=2, failures=1, kills=1, interruptions=1, origin=b"o" * 16)
    assert _kept(_recovered(record)) == record
    later = record.options._replace(at=WALL + 10.0)
    record = record._replace(options=later, attempt=0, failures=0)
    assert _kept(_recovered(record)) == record


def _kept(pool: Pool) -> TaskRecord:
    """The task as a store would keep it now."""
    task = pool.task(ID)
    return task.record(pool.scheduler.state.stored_due(task))


def test_one_that_is_interrupted_for_the_second_time_is_queued_among_those_that_run_alone() -> None:
    pool = _recovered(*(_record("running", id=bytes([n]) * 16, order=n, attempt=2, interruptions=1) for n in (1, 2, 3)))
    first, second, third = (bytes([n]) * 16 for n in (1, 2, 3))
    assert pool.running() == [first]
    pool.cancel(second)  # from the lane in which it stands
    pool.done(first)
    assert pool.running() == [third]


def test_two_that_were_interrupted_twice_never_run_beside_one_another() -> None:
    records = [_record("queued", id=bytes([n]) * 16, order=n, attempt=2, interruptions=2) for n in (1, 2)]
    pool = _recovered(*records, workers=3)
    assert pool.running() == [bytes([1]) * 16]
    assert pool.submit() in pool.running()  # others do
    pool.done(bytes([1]) * 16)
    assert bytes([2]) * 16 in pool.running()

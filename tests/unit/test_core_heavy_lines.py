"""Waiting tasks with payloads of any size: what is in memory is bounded by their bytes, and nothing else changes."""

from __future__ import annotations

import pytest

from poolmgr.core.changes import TaskAdded
from poolmgr.core.effects import Accepted, Refill
from poolmgr.core.task import Task
from poolmgr.model import TaskState
from poolmgr.store.memory import MemoryStore
from tests.unit.test_core_storeroom import Stored, started

WHOLE = 1000  # bytes that all payloads in memory may have
HEAVY = bytes(100)


def _pool(store: MemoryStore | None = None, *, window: int = 1000, window_bytes: int = WHOLE) -> Stored:
    return Stored(store, window=window, window_bytes=window_bytes)


def _paused(pool: Stored) -> Stored:
    pool.begin()
    pool.scheduler.intake.pause("work")
    return pool


def _bytes(pool: Stored) -> int:
    """What the payloads of all tasks in memory weigh."""
    return sum(len(task.payload) for task in pool.scheduler.state.tasks.values())


def _again(pool: Stored) -> Stored:
    """The next epoch, on the same store."""
    pool.keep()
    again = _pool()
    again.store = pool.store
    again.scheduler.intake.pause("work")
    again.scheduler.recovery.recover(list(pool.store.in_hand()), lambda name: True, again.now, pool.store.shelves())
    again.begin()
    return again


def test_a_heavy_row_is_in_memory_up_to_half_of_the_whole() -> None:
    pool = _paused(_pool())
    ids = [pool.submit(payload=HEAVY) for _ in range(50)]
    pool.keep()
    assert pool.in_memory() > 1
    assert _bytes(pool) <= WHOLE // 2
    assert pool.scheduler.state.queue.depth == 50
    assert started(pool) == ids


def test_many_that_come_together_are_no_exception() -> None:
    pool = _paused(_pool())
    ids = [number.to_bytes(16, "big") for number in range(1, 51)]
    options = pool.task(pool.submit(id=b"first" * 3 + b".")).options
    for at in range(0, 50, 10):
        assert pool.scheduler.intake.submit_many(pool.now, ids[at : at + 10], "work", [HEAVY] * 10, options, 1, True)
        pool.flush()
        assert _bytes(pool) <= WHOLE // 2
    pool.keep()
    assert started(pool)[1:] == ids


def test_one_task_of_a_row_is_in_memory_whatever_it_weighs() -> None:
    pool = _paused(_pool())
    ids = [pool.submit(payload=bytes(5 * WHOLE)) for _ in range(10)]
    pool.keep()
    assert pool.in_memory() == 1
    assert started(pool) == ids


def test_of_many_heavy_rows_each_has_its_next_task_and_all_together_the_whole() -> None:
    pool = _paused(_pool())
    for _ in range(5):
        for row in range(40):
            pool.submit(payload=HEAVY, group=f"group-{row}")
    pool.keep()
    assert _bytes(pool) <= WHOLE + 40 * len(HEAVY)
    assert {task.group for task in pool.scheduler.state.tasks.values()} == {f"group-{row}" for row in range(40)}


def test_light_rows_beside_heavy_ones_are_left_in_peace() -> None:
    pool = _paused(_pool(window_bytes=512_000))
    for _ in range(100):
        pool.submit(payload=bytes(100_000), group="heavy")
    for _ in range(100):
        pool.submit(payload=bytes(10), group="light")
    assert sum(task.group == "light" for task in pool.scheduler.state.tasks.values()) == 100


def test_a_page_ends_with_the_bytes_that_it_may_have() -> None:
    pool = _paused(_pool())
    for _ in range(50):
        pool.submit(payload=HEAVY)
    again = _again(pool)
    again.keep()
    (refill,) = again.wanted
    assert refill.limit_bytes == WHOLE // 8
    again.refill()
    assert len(HEAVY) <= _bytes(again) <= WHOLE // 2
    assert len(started(again)) == 50


def test_what_is_being_read_is_taken_from_what_all_may_have() -> None:
    pool = _paused(_pool())
    for row in range(40):
        for _ in range(5):
            pool.submit(payload=HEAVY, group=f"group-{row}")
    again = _again(pool)
    again.keep()
    assert len(again.wanted) == 40
    assert sum(refill.limit_bytes for refill in again.wanted) <= WHOLE + 40
    again.refill()
    assert _bytes(again) <= WHOLE + 40 * len(HEAVY)


def test_a_heavy_schedule_is_put_away_and_comes_when_it_is_due() -> None:
    pool = _pool()
    pool.begin()
    count = 60
    ids = [pool.submit(payload=HEAVY, delay_s=10.0 + each * 37 % count) for each in range(count)]
    pool.keep()
    assert _bytes(pool) <= WHOLE // 2
    assert pool.scheduler.state.all_scheduled == count
    begun = []
    for _ in range(count + 12):
        pool.advance(1.0)
        pool.refill()
        assert _bytes(pool) <= WHOLE
        while running := [task.id for slot in pool.scheduler.state.slots.values() for task in slot.in_flight]:
            begun += running
            pool.done(running[0])
            pool.refill()
    assert begun == sorted(ids, key=lambda id: ids.index(id) * 37 % count)


def test_heavy_tasks_that_are_due_at_once_come_into_memory_one_after_the_other() -> None:
    pool = _paused(_pool())
    ids = [pool.submit(payload=HEAVY, delay_s=10.0) for _ in range(60)]
    pool.keep()
    for _ in range(200):
        pool.advance(0.25)
        pool.refill()
        assert _bytes(pool) <= WHOLE
    assert pool.scheduler.state.all_scheduled == 0
    assert pool.scheduler.state.queue.depth == 60
    assert started(pool) == ids


def test_heavy_tasks_that_fall_due_while_their_line_is_read_are_put_away_in_between() -> None:
    """One or the other is always being read: the answers come one at a time, and each has the next asked for."""
    pool = _paused(_pool())
    ids = [pool.submit(payload=HEAVY, delay_s=delay_s) for delay_s in (0.0, 1.0) for _ in range(60)]
    again = _again(pool)
    again.advance(2.0)
    again.scheduler.intake.resume("work")
    again.flush()
    answers, most = again.read(), 0
    begun: list[bytes] = []
    while len(begun) < len(ids):
        again.advance(0.01)
        again.answer(answers[:1])
        answers = [*answers[1:], *again.read()]
        for slot in again.scheduler.state.slots.values():
            if slot.in_flight:
                begun.append(slot.in_flight[0].id)
                again.done(begun[-1])
        answers += again.read()
        most = max(most, _bytes(again))
    assert most <= WHOLE
    assert sorted(begun) == sorted(ids)


def test_heavy_tasks_that_must_stay_in_memory_do_not_keep_others_from_their_time() -> None:
    pool = _pool()
    pool.begin()
    for number in range(10):
        pool.submit(payload=HEAVY, delay_s=1000.0, key=str(number))
    soon = [pool.submit(payload=HEAVY, delay_s=10.0) for _ in range(5)]
    pool.keep()
    while pool.now < 1013.0:
        pool.advance(0.5)
        pool.refill()
        for task in list(pool.scheduler.state.tasks.values()):
            if task.state is TaskState.RUNNING:
                pool.done(task.id)
    assert not set(soon) & set(pool.scheduler.state.tasks)
    assert pool.scheduler.state.all_scheduled == 10


def test_what_must_stay_in_memory_counts() -> None:
    pool = _paused(_pool())
    for number in range(6):
        pool.submit(payload=HEAVY, key=str(number))
    assert pool.scheduler.state.payloads.held == 6 * len(HEAVY)
    for _ in range(10):
        pool.submit(payload=HEAVY, group="other")
    assert pool.in_memory() == 7


@pytest.mark.parametrize("delay_s", [0.0, 100.0], ids=["queued", "delayed"])
def test_what_was_fetched_by_its_id_is_put_back_where_it_is_much(delay_s: float) -> None:
    pool = _paused(_pool())
    ids = [pool.submit(payload=HEAVY, delay_s=delay_s) for _ in range(50)]
    pool.keep()
    recovery = pool.scheduler.recovery
    for id in ids:
        recovery.look_up(True)
        if id not in pool.scheduler.state.tasks:
            record = pool.store.record(id)
            assert record is not None
            assert recovery.fetch(record, pool.now) is not None
        assert pool.scheduler.intake.watch(id, 1)
        recovery.look_up(False)
        pool.flush()
        assert _bytes(pool) <= WHOLE
    assert pool.scheduler.state.waiting == 50
    pool.advance(delay_s)
    while pool.scheduler.state.all_scheduled:
        pool.advance(0.25)
        pool.refill()
    assert started(pool) == ids


def test_what_comes_while_the_schedule_is_read_is_put_away_after_that() -> None:
    pool = _paused(_pool())
    for _ in range(20):
        pool.submit(payload=HEAVY, delay_s=100.0)
    again = _again(pool)
    answers = again.read()
    for number in range(20):
        again.submit(payload=HEAVY, delay_s=200.0, id=b"later" + number.to_bytes(11, "big"))
    assert _bytes(again) == 20 * len(HEAVY)
    again.answer(answers)
    assert _bytes(again) <= WHOLE
    assert again.scheduler.state.all_scheduled == 40


def test_cancelled_tasks_leave_nothing_behind() -> None:
    pool = _paused(_pool(window_bytes=1 << 20))
    tasks: list[Task] = []
    for delay_s in (0.0, 50.0):
        tasks += [pool.task(pool.submit(payload=HEAVY, delay_s=delay_s)) for _ in range(10)]
    pool.scheduler.intake.clear(pool.now)
    pool.flush()
    assert pool.scheduler.state.payloads.held == 0
    assert {task.payload for task in tasks} == {b""}  # though the line and the deadlines may hold them yet
    assert all(len(change.task.payload) == len(HEAVY) for change in _added(pool))


def test_a_row_keeps_nothing_of_a_task_that_was_started() -> None:
    pool = _pool()
    pool.begin()
    task = pool.submit(payload=HEAVY)
    pool.done(task)
    rows = [row for lane in pool.scheduler.state.queue.lanes for row in lane.rows.values()]
    assert [hasattr(row, "next") for row in rows] == [False]


def test_one_that_is_cancelled_in_the_turn_in_which_it_came_is_kept_whole() -> None:
    pool = _paused(_pool())
    intake = pool.scheduler.intake
    options = pool.task(pool.submit(payload=HEAVY)).options
    intake.submit(pool.now, b"short life......", "work", HEAVY, options, 1, True)
    intake.cancel(b"short life......", False, 7, pool.now)
    pool.flush()
    pool.keep()
    record = pool.store.record(b"short life......")
    assert record is not None
    assert record.payload == HEAVY


def test_a_client_is_told_with_the_bytes_that_wait_for_the_commit() -> None:
    pool = _paused(_pool())
    pool.submit(payload=bytes(30))
    assert pool.new(Accepted)[0].unkept_bytes == 30
    pool.submit(payload=bytes(30), durable=False)
    assert pool.new(Accepted)[0].unkept_bytes == 0
    options = pool.task(pool.submit(payload=b"")).options
    pool.scheduler.intake.submit_many(pool.now, [b"a" * 16, b"b" * 16], "work", [bytes(5), bytes(6)], options, 1, True)
    pool.flush()
    assert pool.new(Accepted)[0].unkept_bytes == 11
    assert not pool.new(Refill)


def _added(pool: Stored) -> list[TaskAdded]:
    return pool.changes(TaskAdded)

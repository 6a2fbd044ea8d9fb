"""Which waiting tasks are in memory: lines that are put away beyond a window, and come back in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from poolmgr.core.changes import TaskRecord
from poolmgr.core.effects import Effect, Finished, Persist, Refill
from poolmgr.core.ready_queue import ReadyQueue
from poolmgr.core.scheduler import WINDOW_BYTES, Scheduler
from poolmgr.core.shelf import START, ShelfSize, place_of
from poolmgr.core.shelving import Shelving
from poolmgr.core.task import Task
from poolmgr.errors import QueueFull
from poolmgr.model import TaskOptions, TaskState
from poolmgr.store.memory import MemoryStore
from tests.unit.driver import WALL_OFFSET, Pool

WINDOW = 8


class Stored(Pool):
    """A pool whose store answers when it is told to, and has only ``window`` tasks of a line in memory."""

    def __init__(
        self,
        store: MemoryStore | None = None,
        *,
        window: int = WINDOW,
        window_bytes: int = WINDOW_BYTES,
        **settings: Any,
    ) -> None:
        super().__init__(begin=False, **settings)
        self.scheduler = Scheduler(
            self.scheduler.state.settings,
            random=lambda: 0.0,
            wall_offset=WALL_OFFSET,
            window=window,
            window_bytes=window_bytes,
        )
        self.scheduler.intake.connected(1)
        self.store = store or MemoryStore(limit=None)
        self.store.open()
        self.wanted: list[Refill] = []
        self.kept = 0

    def keep(self) -> None:
        """What was decided so far is committed, and what is wanted of the store is noted."""
        for effect in self.effects[self.kept :]:
            if isinstance(effect, Refill):
                self.wanted.append(effect)
        for effect in self.effects[self.kept :]:
            if isinstance(effect, Persist) and effect.durable:
                self.store.apply(effect.changes)
        self.kept = len(self.effects)

    def read(self) -> list[tuple[Refill, list[TaskRecord]]]:
        """What the store shows now of all that is wanted."""
        self.keep()
        wanted, self.wanted = self.wanted, []
        return [(each, self.store.shelf(each.line, each.after, each.limit, each.limit_bytes)) for each in wanted]

    def answer(self, answers: Sequence[tuple[Refill, list[TaskRecord]]]) -> None:
        for refill, records in answers:
            self.scheduler.recovery.loaded(refill.number, records, self.now)
            self.flush()

    def refill(self) -> None:
        while answers := self.read():
            self.answer(answers)

    def in_memory(self) -> int:
        return len(self.scheduler.state.tasks)


def _paused(count: int, **settings: Any) -> tuple[Stored, list[bytes]]:
    """A pool in which so many tasks of one name wait."""
    pool = Stored(**settings)
    pool.begin()
    pool.scheduler.intake.pause("work")
    ids = [pool.submit("work") for _ in range(count)]
    pool.keep()
    return pool, ids


def started(pool: Stored) -> list[bytes]:
    """Run all that waits, and tell the order in which it was started."""
    pool.scheduler.intake.resume("work")
    pool.flush()
    order: list[bytes] = []
    (slot,) = pool.scheduler.state.slots.values()
    while pool.scheduler.state.waiting or pool.in_memory():
        pool.refill()
        assert slot.in_flight, "it does not go on"
        order.append(slot.in_flight[0].id)
        pool.done(order[-1])
        pool.keep()
    return order


def test_of_a_long_line_the_first_are_in_memory() -> None:
    pool, ids = _paused(100)
    assert pool.in_memory() <= WINDOW
    assert pool.scheduler.state.queue.depth == 100
    assert set(pool.scheduler.state.tasks) == set(ids[: pool.in_memory()])


def test_what_was_put_away_runs_in_its_order() -> None:
    pool, ids = _paused(100)
    assert started(pool) == ids


def test_what_has_a_key_or_expires_stays_in_memory_and_in_its_place() -> None:
    pool = Stored()
    pool.begin()
    pool.scheduler.intake.pause("work")
    ids = [
        pool.submit("work", **({"key": str(each)} if each % 7 == 3 else {"expires_s": 1e6} if each % 7 == 5 else {}))
        for each in range(70)
    ]
    pool.keep()
    held = [id for each, id in enumerate(ids) if each % 7 in (3, 5)]
    assert set(held) <= set(pool.scheduler.state.tasks)
    assert pool.in_memory() <= len(held) + WINDOW
    assert started(pool) == ids


def test_calls_are_never_put_away() -> None:
    pool = Stored()
    pool.begin()
    pool.scheduler.intake.pause("work")
    for _ in range(100):
        pool.submit("work", durable=False)
    assert pool.in_memory() == 100


def test_a_task_on_a_shelf_can_be_cancelled_by_its_id() -> None:
    pool, ids = _paused(50)
    record = pool.store.record(ids[40])
    assert record is not None
    assert pool.scheduler.recovery.fetch(record, pool.now) is not None
    pool.scheduler.intake.cancel(ids[40], False, 7, pool.now)
    pool.flush()
    pool.keep()
    assert pool.scheduler.state.queue.depth == 49
    assert started(pool) == ids[:40] + ids[41:]


def test_one_that_was_fetched_and_is_not_cancelled_waits_for_its_turn() -> None:
    pool, ids = _paused(50)
    record = pool.store.record(ids[40])
    assert record is not None
    task = pool.scheduler.recovery.fetch(record, pool.now)
    assert task is not None
    assert task.past.beyond
    assert pool.scheduler.recovery.fetch(record._replace(id=ids[0], order=1), pool.now) is None  # it is in memory
    assert started(pool) == ids


def test_what_ends_while_the_store_is_read_does_not_come_back() -> None:
    pool, _ = _paused(50)
    pool.scheduler.intake.resume("work")
    pool.flush()
    pool.scheduler.intake.pause("work")
    while not (answers := pool.read()):
        pool.done(next(iter(pool.scheduler.state.slots.values())).in_flight[0].id)
        pool.scheduler.intake.resume("work")
        pool.flush()
    shown = answers[0][1][0]
    assert pool.scheduler.recovery.fetch(shown, pool.now) is not None
    pool.scheduler.intake.cancel(shown.id, False, 7, pool.now)
    pool.flush()
    pool.answer(answers)
    assert shown.id not in pool.scheduler.state.tasks


def test_whoever_has_submitted_is_told_the_end_of_what_was_put_away() -> None:
    pool, ids = _paused(30)
    started(pool)
    assert {each.task_id for each in pool.effects if isinstance(each, Finished)} == set(ids)


def test_tasks_that_come_together_are_put_away_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, ids = _paused(2 * WINDOW)
    in_memory = pool.in_memory()

    def push(self: ReadyQueue, task: Task) -> None:
        raise AssertionError("one by one")

    with monkeypatch.context() as patched:
        patched.setattr(ReadyQueue, "push", push)
        more = [number.to_bytes(16, "big") for number in range(1000, 1000 + 3 * WINDOW)]
        assert pool.scheduler.intake.submit_many(pool.now, more, "work", [b""] * len(more), TaskOptions(), 1, True)
        pool.flush()
    assert pool.in_memory() == in_memory
    assert pool.scheduler.state.queue.depth == 5 * WINDOW
    started(pool)
    assert [each.task_id for each in pool.effects if isinstance(each, Finished)] == ids + more


def test_a_limit_on_the_queue_counts_what_is_on_shelves() -> None:
    pool, _ = _paused(40, max_queue_depth=40)
    with pytest.raises(QueueFull, match="40 tasks wait"):
        pool.submit("work")


def test_delayed_tasks_are_put_away_and_come_when_they_are_due() -> None:
    pool = Stored()
    pool.begin()
    count = 200
    ids = [pool.submit("work", delay_s=10.0 + (each * 37 % count)) for each in range(count)]
    pool.keep()
    assert pool.in_memory() <= WINDOW
    assert pool.scheduler.state.all_scheduled == count
    started = []
    for _ in range(count + 10):
        pool.advance(1.0)
        pool.refill()
        while running := [task for slot in pool.scheduler.state.slots.values() for task in slot.in_flight]:
            started.append(running[0].id)
            assert abs(pool.now - (1010.0 + ids.index(running[0].id) * 37 % count)) <= 1.0
            pool.done(running[0].id)
    assert len(started) == count == len(set(started))


def test_a_delay_keeps_its_length_on_the_shelf_when_the_clock_is_set() -> None:
    pool = Stored()
    pool.begin()
    ids = [pool.submit("work", delay_s=100.0 + each) for each in range(50)]
    pool.keep()
    pool.scheduler.clock_changed(WALL_OFFSET + 3_600.0, pool.now)
    pool.flush()
    pool.advance(99.0)
    pool.refill()
    assert not any(slot.in_flight for slot in pool.scheduler.state.slots.values())
    pool.advance(1.5)
    pool.refill()
    assert pool.state(ids[0]) == TaskState.RUNNING


def test_a_new_epoch_holds_no_more_than_the_old_one() -> None:
    pool, ids = _paused(100)
    again = Stored()
    again.store = pool.store
    sizes = pool.store.shelves()
    assert [each.tasks for each in sizes] == [100]
    again.scheduler.recovery.recover(list(pool.store.in_hand()), lambda name: True, again.now, sizes)
    again.begin()
    assert again.in_memory() == 0
    assert again.scheduler.state.waiting == 100
    assert again.submit("work", id=b"n" * 16) not in again.scheduler.state.tasks  # it stands behind all others
    assert started(again)[:100] == ids


def test_no_more_is_loaded_than_a_line_needs() -> None:
    pool, ids = _paused(100)
    again = Stored()
    again.store = pool.store
    again.scheduler.intake.pause("work")
    again.scheduler.recovery.recover([], lambda name: True, again.now, pool.store.shelves())
    again.begin()
    again.refill()
    assert 0 < again.in_memory() <= WINDOW
    assert set(again.scheduler.state.tasks) < set(ids[:WINDOW])


def test_tasks_that_somebody_has_deleted_are_not_waited_for() -> None:
    pool, ids = _paused(30)
    size = pool.store.shelves()[0]
    pool.store = MemoryStore(limit=None)
    pool.store.open()
    again = Stored()
    again.scheduler.recovery.recover([], lambda name: True, again.now, [size])
    again.begin()
    again.refill()
    assert again.scheduler.state.waiting == 0
    assert len(again.events("shelf-corrected")) == 1
    assert ids


def test_one_that_ends_as_it_is_looked_up_is_to_be_looked_up_again() -> None:
    """Else whoever submits it again would take it for a new one."""
    pool, ids = _paused(20)
    pool.scheduler.state.known = lambda name: False
    record = pool.store.record(ids[-1])
    assert record is not None
    pool.scheduler.recovery.look_up(True)
    assert pool.scheduler.recovery.fetch(record, pool.now) is None
    pool.flush()
    pool.keep()
    assert pool.store.record(ids[-1]).state is TaskState.DEAD  # type: ignore[union-attr]


def test_a_line_whose_name_the_app_lacks_is_given_up_as_it_comes() -> None:
    pool, ids = _paused(20)
    again = Stored()
    again.store = pool.store
    again.scheduler.recovery.recover([], lambda name: False, again.now, pool.store.shelves())
    again.begin()
    while answers := again.read():
        again.answer(answers)
    again.keep()
    assert {pool.store.record(id).state for id in ids} == {TaskState.DEAD}  # type: ignore[union-attr]


def test_where_there_are_many_lines_each_has_less_in_memory() -> None:
    pool = Stored()
    pool.begin()
    pool.scheduler.intake.pause("work")
    for line in range(200):
        for _ in range(10):
            pool.submit("work", group=f"group-{line}")
    assert pool.in_memory() < 200 * 10 / 2


def test_sizes_and_places() -> None:
    pool, _ = _paused(30)
    (size,) = pool.store.shelves()
    assert size == ShelfSize(size.line, 30, 30)
    records = pool.store.shelf(size.line, START, 100)
    assert [place_of(record) for record in records] == [(0.0, order) for order in range(1, 31)]


def _until_wanted(pool: Stored) -> Refill:
    """Run tasks until more of a line is asked for."""
    pool.scheduler.intake.resume("work")
    pool.flush()
    (slot,) = pool.scheduler.state.slots.values()
    while not pool.wanted:
        pool.done(slot.in_flight[0].id)
        pool.keep()
    return pool.wanted.pop()


def test_a_read_that_failed_is_asked_for_anew_and_hides_nothing_that_came_meanwhile() -> None:
    pool, ids = _paused(70, window=64)
    failed = _until_wanted(pool)
    delayed = pool.submit("work", delay_s=0.5)
    later = [pool.submit("work") for _ in range(3)]
    pool.keep()
    pool.scheduler.recovery.not_loaded(failed.number)
    pool.flush()
    answers = pool.read()
    assert [answer[0].number for answer in answers] != [failed.number]
    pool.advance(0.5)  # the delay is over before the answer is heard
    pool.answer(answers)
    ran = started(pool)
    assert {delayed, *later} <= set(ran)
    assert all(pool.store.record(id).state is TaskState.COMPLETED for id in [*ids, delayed, *later])  # type: ignore[union-attr]
    assert pool.events("shelf-corrected") == []


def test_a_read_that_failed_says_nothing_of_what_is_put_away_later() -> None:
    pool, _ = _paused(30)
    failed = _until_wanted(pool)
    scheduler = pool.scheduler
    scheduler.intake.pause("work")
    for record in pool.store.shelf(failed.line, failed.after, 1000):
        scheduler.recovery.look_up(True)
        found = scheduler.recovery.fetch(record, pool.now)
        assert found is not None
        scheduler.intake.cancel(found.id, False, 7, pool.now)
        pool.flush()
        pool.keep()
        scheduler.recovery.look_up(False)
    scheduler.recovery.not_loaded(failed.number)
    pool.flush()
    answers = pool.read()
    new = [pool.submit("work") for _ in range(3)]
    pool.keep()
    pool.answer(answers)
    assert set(new) <= set(started(pool))
    assert pool.events("shelf-corrected") == []


class Prompt(Stored):
    """Its store reads at once, and its answers are heard late."""

    pending: list[tuple[Refill, list[TaskRecord]]]

    def flush(self) -> list[Effect]:
        effects = super().flush()
        self.pending = [*getattr(self, "pending", []), *self.read()]
        return effects

    def hear(self) -> None:
        while self.pending:
            self.answer([self.pending.pop(0)])


def test_a_task_that_falls_due_while_the_schedule_is_read_is_not_taken_twice() -> None:
    """It was looked up by its id, so that it is in memory; its line has a shelf of its own."""
    pool = Prompt(window=4, window_bytes=2000)
    pool.begin()
    scheduler = pool.scheduler
    scheduler.intake.pause("work")
    heavy = bytes(400)
    ids = [pool.submit("work") for _ in range(12)]
    ids += [pool.submit("work", delay_s=1.0 + 0.001 * number, payload=heavy) for number in range(4)]
    ids += [pool.submit("work", delay_s=30.0, payload=heavy), pool.submit("work", delay_s=1.0005, payload=bytes(50))]
    record = pool.store.record(ids[-1])
    assert record is not None
    scheduler.recovery.look_up(True)
    scheduler.recovery.fetch(record, pool.now)
    scheduler.recovery.look_up(False)
    pool.flush()
    pool.advance(1.00005)
    assert pool.pending, "the schedule is read"
    pool.advance(0.0025)
    pool.hear()
    scheduler.intake.resume("work")
    pool.flush()
    (slot,) = scheduler.state.slots.values()
    for _ in range(200):
        pool.hear()
        if slot.in_flight:
            pool.done(slot.in_flight[0].id)
        else:
            pool.advance(1.0)
    assert [pool.store.record(id).state for id in ids] == [TaskState.COMPLETED] * len(ids)  # type: ignore[union-attr]
    assert pool.events("shelf-corrected") == []


def test_what_must_be_in_memory_is_not_looked_through_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One delayed task is heavier than the whole schedule may be, and nothing else could go."""
    pool = Stored(window_bytes=1000)
    pool.begin()
    pool.submit("report", payload=bytes(5000), delay_s=3600.0)
    looked = 0
    shorten = Shelving._shorten_schedule

    def counted(self: Shelving) -> None:
        nonlocal looked
        looked += 1
        shorten(self)

    monkeypatch.setattr(Shelving, "_shorten_schedule", counted)
    for _ in range(100):
        pool.submit("flaky", delay_s=10.0, durable=False)
    assert looked <= 6  # each time that they have doubled


def test_of_what_is_looked_up_and_ends_nothing_stays() -> None:
    pool, ids = _paused(100)
    scheduler = pool.scheduler
    scheduler.recovery.look_up(True)
    for id in ids:
        if id not in scheduler.state.tasks:
            record = pool.store.record(id)
            assert record is not None
            found = scheduler.recovery.fetch(record, pool.now)
            assert found is not None
            scheduler.intake.cancel_waiting([found], pool.now)
            pool.flush()
            assert not scheduler.storeroom._strays
    scheduler.recovery.look_up(False)

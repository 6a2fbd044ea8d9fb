"""Schedules: which ticks have a task, and when, whatever the clock and the daemon's lives do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from poolmgr.core.changes import ScheduleRecord, ScheduleRemoved, ScheduleSet, ScheduleTicked, TaskAdded
from poolmgr.core.effects import Persist, Start
from poolmgr.core.periodic import ALL_AT_MOST, ON_TIME_S
from poolmgr.errors import BadOption, NotFound, UnknownTask
from poolmgr.manager.timetable import Timetable
from poolmgr.model import TaskOptions
from poolmgr.schedule import Timing
from tests.unit.driver import WALL_OFFSET, Pool

MINUTELY = Timing(every_s=60.0)


class Periodic(Pool):
    """A pool with schedules. Its wall clock begins at ``start``."""

    def __init__(self, *records: ScheduleRecord, workers: int = 1, **settings: Any) -> None:
        self.options: dict[str, TaskOptions] = {"work": TaskOptions(), "other": TaskOptions()}
        super().__init__(workers, begin=False, **settings)
        self.start = self.now + WALL_OFFSET
        self.periodic.begin(records, Timetable(), self._options_of, self.now)
        self.begin()

    def _options_of(self, name: str, packed: bytes | None) -> TaskOptions:
        if name not in self.options:
            raise UnknownTask(f"unknown task {name!r}")
        return self.options[name]

    @property
    def periodic(self) -> Any:
        return self.scheduler.periodic

    def schedule(self, timing: Timing = MINUTELY, id: str = "s", name: str = "work") -> None:
        self.periodic.set(id, name, b"payload", None, timing, self.now)
        self.flush()

    def made(self) -> list[float]:
        """When each task was submitted, in seconds since the start, by the wall clock."""
        return [round(change.task.submitted_at - self.start, 3) for change in self.changes(TaskAdded)]

    def ticks(self) -> list[float]:
        """Up to where the schedule has come, at each of its commits."""
        return [round(change.last_tick - self.start, 3) for change in self.changes(ScheduleTicked)]

    def set_clock(self, by_s: float) -> None:
        self.scheduler.clock_changed(self.scheduler.state.wall_offset + by_s, self.now)
        self.scheduler.tick(self.now)
        self.flush()

    def info(self, id: str = "s", upcoming: int = 1) -> Any:
        return self.periodic.info(self.periodic.find(id), upcoming)


def _record(last_tick_ago_s: float = 0.0, **fields: Any) -> ScheduleRecord:
    """A schedule of an earlier epoch, whose last turn was so long before this one's start."""
    last_tick = 1000.0 + WALL_OFFSET - last_tick_ago_s
    plain: dict[str, Any] = {
        "id": "s", "name": "work", "payload": b"payload", "options": None, "timing": MINUTELY, "paused": False,
        "created_at": last_tick - 600 * 60.0, "last_tick": last_tick,
    }  # fmt: skip
    return ScheduleRecord(**{**plain, **fields})


# ------------------------------------------------------------------------------------------------ ticks


def test_each_tick_has_a_task() -> None:
    pool = Periodic()
    pool.schedule()
    pool.advance(59.9)
    assert pool.made() == []
    pool.advance(120.2)
    assert pool.made() == pool.ticks() == [60.0, 120.0, 180.0]
    [first, *_] = pool.changes(TaskAdded)
    assert (first.task.name, first.task.payload, first.task.origin) == ("work", b"payload", "schedule:s")
    assert first.task.options == TaskOptions()


def test_a_ticks_task_is_in_the_commit_that_says_so_and_starts_after_it() -> None:
    pool = Periodic()
    pool.schedule()
    pool.advance(60.0)
    [commit] = [each for each in pool.all(Persist) if any(isinstance(one, TaskAdded) for one in each.changes)]
    assert [type(change) for change in commit.changes] == [TaskAdded, ScheduleTicked]
    [start] = pool.all(Start)
    assert start.commit == commit.number > 0


def test_late_timers_do_not_delay_the_next_ticks() -> None:
    pool = Periodic()
    pool.schedule()
    pool.jump(63.0)
    pool.advance(58.0)
    assert pool.made() == [63.0, 120.0]
    assert pool.ticks() == [60.0, 120.0]


def test_the_id_of_a_ticks_task_is_known_beforehand() -> None:
    one, other = Periodic(), Periodic()
    for pool in (one, other):
        pool.schedule()
        pool.schedule(id="t")
        pool.advance(120.0)
    ids = [change.task.id for change in one.changes(TaskAdded)]
    assert ids == [change.task.id for change in other.changes(TaskAdded)]
    assert len(set(ids)) == 4
    assert ids[0][:6] == int((one.start + 60.0) * 1000).to_bytes(6, "big")  # as new_task_id has it: they sort by age
    assert one.info().last_task == ids[2].hex()


def test_a_schedule_made_again_has_other_tasks() -> None:
    pool = Periodic()
    for _ in range(2):
        pool.schedule(Timing(cron="* * * * *"))
        pool.advance(60.0)
        pool.periodic.remove("s")
        pool.set_clock(-59.0)
    first, second = pool.changes(TaskAdded)
    assert int(first.task.submitted_at) == int(second.task.submitted_at)
    assert first.task.id != second.task.id


def test_the_handlers_options_are_those_of_the_moment_and_always_durable() -> None:
    pool = Periodic()
    pool.schedule()
    pool.options["work"] = TaskOptions(priority=3, durable=False)
    pool.advance(60.0)
    [added] = pool.changes(TaskAdded)
    assert added.task.options == TaskOptions(priority=3)


# ------------------------------------------------------------------------------------------------ missed ticks


@pytest.mark.parametrize(
    ("missed", "ago_s", "tasks"),
    [
        ("once", 59.0, 0),
        ("once", 61.0, 1),
        ("once", 10_000.0, 1),
        ("skip", 60.0 + ON_TIME_S - 1, 1),  # hardly late: a restart takes a moment
        ("skip", 60.0 + ON_TIME_S + 1, 0),
        ("skip", 600.0 + ON_TIME_S - 1, 1),
        ("skip", 10_000.0 + 6, 0),
        ("all", 59.0, 0),
        ("all", 61.0, 1),
        ("all", 601.0, 10),
        ("all", 60.0 * 100_000, ALL_AT_MOST),
    ],
)
def test_ticks_that_no_daemon_was_there_for(missed: str, ago_s: float, tasks: int) -> None:
    pool = Periodic(_record(ago_s, timing=MINUTELY._replace(missed=missed)))
    pool.advance(0.0)
    assert len(pool.made()) == tasks
    passed = int(ago_s // 60)
    assert pool.ticks() == ([round(passed * 60.0 - ago_s, 3)] if passed else [])
    pool.advance(60.0)  # and then it goes on as it was
    assert len(pool.made()) == tasks + 1


def test_missed_ticks_are_told_with_how_many_there_were() -> None:
    pool = Periodic(_record(601.0), _record(601.0, id="t", timing=Timing(every_s=60.0, missed="all")))
    pool.advance(0.0)
    assert [(each["schedule"], each["ticks"], each["tasks"]) for each in pool.events("schedule-missed")] == [
        ("s", 10, 1), ("t", 10, 10),
    ]  # fmt: skip


def test_ticks_of_cron_that_were_missed() -> None:
    pool = Periodic(_record(3600.0, timing=Timing(cron="*/10 * * * *", missed="all"), created_at=0.0))
    pool.advance(0.0)
    assert len(pool.made()) == 6


# ------------------------------------------------------------------------------------------------ the clock


def test_a_clock_set_back_gives_no_tick_a_second_turn() -> None:
    pool = Periodic()
    pool.schedule()
    pool.advance(150.0)
    assert pool.ticks() == [60.0, 120.0]
    pool.set_clock(-100.0)  # it is second 50 again
    pool.advance(129.0)
    assert pool.ticks() == [60.0, 120.0]
    pool.advance(2.0)
    assert pool.ticks() == [60.0, 120.0, 180.0]


@pytest.mark.parametrize(("missed", "tasks"), [("once", 1), ("skip", 0), ("all", 5)])
def test_a_clock_set_forward_is_ticks_missed(missed: str, tasks: int) -> None:
    pool = Periodic()
    pool.schedule(MINUTELY._replace(missed=missed))
    pool.advance(10.0)
    pool.set_clock(60.0 * 5 + 30)
    assert len(pool.made()) == tasks
    assert pool.ticks() == [300.0]
    pool.advance(20.0)
    assert pool.ticks() == [300.0, 360.0]


def test_a_clock_that_is_put_right_moves_the_next_tick() -> None:
    pool = Periodic()
    pool.schedule()
    pool.advance(10.0)
    pool.set_clock(20.0)
    pool.advance(29.9)
    assert pool.ticks() == []
    pool.advance(0.2)
    assert pool.ticks() == [60.0]


# ------------------------------------------------------------------------------------------------ hindrances


@pytest.mark.parametrize("hindrance", ["unknown task", "queue", "store"])
def test_a_tick_that_cannot_become_a_task_has_its_turn_once_it_can(hindrance: str) -> None:
    pool = Periodic(workers=1, max_queue_depth=2)
    pool.schedule()
    blockers: list[bytes] = []
    if hindrance == "unknown task":
        del pool.options["work"]
    elif hindrance == "queue":
        blockers = [pool.submit("other") for _ in range(3)]
    else:
        pool.scheduler.store_trouble.begins("full", pool.scheduler.state.commit, pool.now)
    pool.advance(200.0)
    assert not [each for each in pool.changes(TaskAdded) if each.task.name == "work"]
    assert pool.ticks() == []
    assert len(pool.events("schedule-held")) == 1
    assert pool.info().trouble
    if hindrance == "unknown task":
        pool.options["work"] = TaskOptions()
    elif hindrance == "queue":
        for blocker in blockers:
            pool.done(blocker)
    else:
        pool.scheduler.store_trouble.ends()
    pool.advance(1.1)
    assert len([each for each in pool.changes(TaskAdded) if each.task.name == "work"]) == 1
    assert pool.ticks() == [180.0]
    assert pool.info().trouble == ""


def test_a_queue_that_fills_up_half_way_loses_no_tick() -> None:
    record = _record(301.0, timing=MINUTELY._replace(missed="all"))
    pool = Periodic(record, max_queue_depth=2)
    seen: list[int] = []
    for _ in range(6):
        pool.advance(1.1)
        seen.append(len(pool.made()))
        for task in pool.running():
            pool.done(task)
    assert seen[0] < 5
    assert seen[-1] == 5
    assert len({change.task.id for change in pool.changes(TaskAdded)}) == 5


def test_ticks_that_were_left_out_are_told_although_the_queue_fills_up_half_way() -> None:
    behind = 5
    record = _record(60.0 * (ALL_AT_MOST + behind) + 1, timing=MINUTELY._replace(missed="all"))
    pool = Periodic(record, max_queue_depth=2)
    pool.advance(0.0)
    assert len(pool.made()) == 3  # one runs, two wait
    [missed] = pool.events("schedule-missed")
    assert (missed["ticks"], missed["tasks"]) == (behind + 3, 3)


def test_what_waited_for_its_time_is_queued_before_a_tick_that_comes_in_the_same_turn() -> None:
    pool = Periodic(workers=1, max_queue_depth=2)
    pool.schedule(Timing(every_s=1.0, missed="all"))
    older = pool.submit("work", delay_s=1.5)
    pool.jump(2.1)  # the first tick was due before it; the second finds the queue full: what can start is started
    assert pool.running() == [older]
    assert pool.ticks() == [2.0]


def test_a_schedule_with_much_to_make_up_for_does_not_take_all_the_room_for_ever() -> None:
    greedy = _record(60.0 * 500 + 1, timing=MINUTELY._replace(missed="all"))
    pool = Periodic(greedy, _record(60.0 * 2, id="t"), max_queue_depth=2)
    for _ in range(5):
        pool.advance(1.1)
        pool.done(pool.running()[0])
    assert {each.id for each in pool.changes(ScheduleTicked)} == {"s", "t"}


def test_a_tick_finds_the_room_of_what_has_expired_in_the_same_turn() -> None:
    pool = Periodic(workers=1, max_queue_depth=1)
    pool.schedule()
    pool.submit("other")
    pool.submit("other", expires_s=61.0)
    pool.jump(62.0)
    assert pool.events("schedule-held") == []
    assert pool.ticks() == [60.0]


def test_a_tick_whose_key_is_held_has_no_task() -> None:
    pool = Periodic()
    pool.options["work"] = TaskOptions(key="one at a time")
    pool.schedule()
    pool.advance(180.0)
    assert len(pool.made()) == 1
    assert pool.ticks() == [60.0, 120.0, 180.0]
    pool.done(pool.running()[0])
    pool.advance(60.0)
    assert pool.made() == [60.0, 240.0]


def test_a_daemon_that_drains_leaves_the_ticks_to_the_next() -> None:
    pool = Periodic()
    pool.schedule()
    pool.submit("other")
    pool.scheduler.drain(pool.now)
    pool.advance(120.0)
    assert pool.ticks() == []


def test_a_time_zone_that_was_lost_is_told_and_breaks_nothing() -> None:
    pool = Periodic(_record(timing=Timing(cron="0 0 * * *", timezone="Europe/Atlantis")), _record(id="t"))
    pool.advance(61.0)
    assert len(pool.made()) == 1
    assert "unknown time zone" in pool.info().trouble
    assert pool.info().upcoming == ()


# ------------------------------------------------------------------------------------------------ changes of schedules


def test_the_same_again_changes_nothing_and_misses_nothing() -> None:
    pool = Periodic(_record(90.0))
    pool.schedule()
    assert pool.changes(ScheduleSet) == []
    pool.advance(0.0)
    assert len(pool.made()) == 1


def test_another_payload_or_policy_keeps_the_ticks() -> None:
    pool = Periodic()
    pool.schedule()
    pool.advance(50.0)
    pool.schedule(MINUTELY._replace(missed="all"), name="other")
    pool.advance(15.0)
    assert pool.ticks() == [60.0]
    assert [change.task.name for change in pool.changes(TaskAdded)] == ["other"]


def test_another_timing_begins_from_now() -> None:
    pool = Periodic()
    pool.schedule()
    pool.advance(50.0)
    pool.schedule(Timing(every_s=30.0))
    pool.advance(61.0)
    assert pool.ticks() == [80.0, 110.0]


def test_what_is_paused_makes_nothing_and_was_not_missed() -> None:
    pool = Periodic()
    pool.schedule()
    pool.periodic.pause("s", pool.now)
    pool.advance(600.0)
    assert pool.made() == []
    assert pool.info().paused
    assert pool.info().upcoming == ()
    pool.schedule(Timing(every_s=30.0))  # a change leaves it paused
    pool.advance(30.0)
    pool.periodic.resume("s", pool.now)
    pool.advance(30.0)
    assert pool.made() == [660.0]


def test_what_is_removed_is_gone() -> None:
    pool = Periodic()
    pool.schedule()
    pool.periodic.remove("s")
    pool.advance(100.0)
    assert pool.made() == []
    assert pool.changes(ScheduleRemoved) == [ScheduleRemoved("s")]
    with pytest.raises(NotFound, match="no schedule 's'"):
        pool.periodic.remove("s")
    for change in (pool.periodic.pause, pool.periodic.resume):
        with pytest.raises(NotFound):
            change("s", pool.now)


def test_upcoming_ticks_are_told() -> None:
    pool = Periodic()
    pool.schedule(Timing(cron="0 12 * * *", timezone="Europe/Berlin"))
    first, second, third = pool.info(upcoming=3).upcoming
    assert second - first == third - second == 86400.0
    assert pool.info().last_tick is None
    assert pool.info().last_task is None


def _declare(pool: Periodic, **declared: Timing) -> None:
    pool.periodic.declare({name: (timing, b"") for name, timing in declared.items()}, pool.now)
    pool.flush()


def test_declared_schedules_follow_the_code_and_leave_others_alone() -> None:
    pool = Periodic()
    pool.schedule(id="work")
    _declare(pool, work=MINUTELY, other=MINUTELY)
    assert sorted(pool.scheduler.state.schedules) == ["app:other", "app:work", "work"]
    pool.periodic.pause("app:other", pool.now)
    _declare(pool, other=Timing(every_s=30.0))
    assert sorted(pool.scheduler.state.schedules) == ["app:other", "work"]
    assert pool.info("app:other")._replace(created_at=0.0) == pool.info("app:other")._replace(
        created_at=0.0, every_s=30.0, paused=True, declared=True
    )
    pool.advance(60.0)
    assert [change.task.origin for change in pool.changes(TaskAdded)] == ["schedule:work"]


def test_what_is_declared_again_by_the_next_daemon_goes_on() -> None:
    pool = Periodic(_record(90.0, id="app:work", payload=b""))
    _declare(pool, work=MINUTELY)
    assert pool.changes(ScheduleSet) == []
    pool.advance(0.0)
    assert len(pool.made()) == 1


@pytest.mark.parametrize("when", [Timing(cron="* * *"), Timing(cron="0 0 * * *", timezone="?")])
def test_a_timing_is_checked_before_it_is_taken(when: Timing) -> None:
    with pytest.raises(BadOption):
        Timetable().check(when, 0.0)


def _origins(changes: Sequence[TaskAdded]) -> list[object]:
    return [change.task.origin for change in changes]


def test_a_requeued_task_comes_from_the_dead_one() -> None:
    pool = Periodic()
    pool.options["work"] = TaskOptions(max_retries=0)
    pool.schedule()
    pool.advance(60.0)
    [added] = pool.changes(TaskAdded)
    pool.fail(added.task.id)
    pool.scheduler.intake.requeue([(added.task, b"n" * 16)], pool.now)
    pool.flush()
    assert _origins(pool.changes(TaskAdded)) == ["schedule:s", added.task.id]

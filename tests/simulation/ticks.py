"""What must be true of schedules, whoever is asked: reckoned apart from the scheduler, second by second.

1. No tick has a second turn, in whatever life of the daemon: none is in two commits, and the schedule never goes back.
2. No tick is passed over: each has its turn, in a commit that has the tasks that the policy of missed ones wants, and
   no others. A task whose key was held by another may be lacking, and no other task.
3. A tick's task begins only after that commit.
4. Turns are punctual where nothing is in their way.
5. What the store holds of schedules when a daemon starts is what was committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from poolmgr.core.changes import Change, ScheduleRecord, ScheduleRemoved, ScheduleSet, ScheduleTicked, TaskAdded
from poolmgr.core.effects import Effect, Persist
from poolmgr.core.periodic import ON_TIME_S
from poolmgr.core.schedule import task_id
from poolmgr.core.scheduler import Scheduler
from poolmgr.errors import UnknownTask
from poolmgr.model import TaskOptions
from poolmgr.payload import inline
from poolmgr.schedule import Timing
from poolmgr.store.base import Store
from tests.simulation.oracle import Known, Oracle
from tests.simulation.world import World

NAMES: Final = ("quick", "work", "flaky", "deadly", "dropped")
TIMINGS: Final = (Timing(every_s=0.1), Timing(every_s=0.7), Timing(every_s=20.0), Timing(cron="*/3 * * * * *"))
OPTIONS: Final = {
    None: TaskOptions(timeout_s=10.0, max_backoff_s=2.0),
    b"key": TaskOptions(timeout_s=10.0, max_backoff_s=2.0, key="tick"),
    b"fast": TaskOptions(timeout_s=10.0, max_backoff_s=2.0, expires_s=1.0, priority=0),
    b"once": TaskOptions(timeout_s=10.0, max_backoff_s=2.0, restartable=False, max_retries=0, durable=False),
}
_CRON_S: Final = 3  # from tick to tick
_LATE_S: Final = 1.5  # that a turn may be: retried each second


def options_of(name: str, packed: bytes | None, has_dropped: bool) -> TaskOptions:
    """What the shell tells of a schedule's tasks."""
    if name == "dropped" and not has_dropped:
        raise UnknownTask("unknown task 'dropped'")
    return OPTIONS[packed]


def _ticks(record: ScheduleRecord, after: float, until: float) -> list[float]:
    every_s = record.timing.every_s
    if every_s is None:
        first = (int(after) // _CRON_S + 1) * _CRON_S
        return [float(tick) for tick in range(first, int(until) + 1, _CRON_S)]
    numbers = range(
        max(1, int((after - record.created_at) / every_s) - 1), int((until - record.created_at) / every_s) + 2
    )
    ticks = [record.created_at + number * every_s for number in numbers]
    return [tick for tick in ticks if after < tick <= until]


class TickCheck:
    """Follows the schedules through all lives of the daemon."""

    def __init__(self, world: World, oracle: Oracle) -> None:
        self._world = world
        self._oracle = oracle
        self._kept: dict[str, ScheduleRecord] = {}  # what is committed
        self._decided: dict[str, ScheduleRecord] = {}  # what is, or will be
        self._committed: set[bytes] = set()  # tasks of ticks
        self._told_at = world.now
        self._offset = world.wall_offset  # before the turn that is looked at, within which the clock may be set

    def begin(self, store: Store) -> list[ScheduleRecord]:
        """A daemon starts; the schedules that it finds."""
        found = store.schedules()
        assert found == [self._kept[id] for id in sorted(self._kept)], f"schedules are kept as {found}"
        self._decided = dict(self._kept)
        self._offset = self._world.wall_offset
        return found

    def decided(self, effects: Sequence[Effect], told_at: float) -> None:
        """What the scheduler wants done, before it is, and before anybody else looks at it. It has decided so between
        ``told_at`` and now: the daemon may have been blocked since."""
        self._told_at = told_at
        for effect in effects:
            if isinstance(effect, Persist) and effect.durable:
                made = [each.task for each in effect.changes if isinstance(each, TaskAdded)]
                self._made = {task.id: task.origin for task in made if isinstance(task.origin, str)}
                for task in made:
                    if task.id in self._made:
                        self._is_new(task.id)
                        known = Known(task.id, task.name, inline(task.payload), task.options, given_now=True)
                        known.expires_at = self._world.now + (task.options.expires_s or float("inf"))
                        self._oracle.tasks[task.id] = known
                for change in effect.changes:
                    self._follow(self._decided, change)
                assert not self._made, f"{self._made} were made at no tick"
        self._offset = self._oracle.scheduler.state.wall_offset

    def _is_new(self, id: bytes) -> None:
        assert id not in self._committed, f"a tick has its task {id.hex()} again"
        before = self._oracle.tasks.get(id)  # of a daemon that died before it was kept
        assert before is None or not before.begun, f"{id.hex()} has begun, and was never kept"

    def _follow(self, records: dict[str, ScheduleRecord], change: Change) -> None:
        if isinstance(change, ScheduleSet):
            before = records.get(change.schedule.id)
            if before is not None and before.created_at == change.schedule.created_at:
                assert change.schedule.last_tick >= before.last_tick, f"{change} goes back behind {before}"
            records[change.schedule.id] = change.schedule
        elif isinstance(change, ScheduleRemoved):
            del records[change.id]
        elif isinstance(change, ScheduleTicked):
            before = records[change.id]
            if records is self._decided:
                self._check_turn(before, change.last_tick)
            records[change.id] = before._replace(last_tick=change.last_tick)

    def _check_turn(self, record: ScheduleRecord, last_tick: float) -> None:
        assert not record.paused, f"{record.id} is paused, and has a turn"
        assert last_tick > record.last_tick, f"{record.id} has the turn of {last_tick} again"
        ticks = _ticks(record, record.last_tick, last_tick)
        assert ticks, f"{record.id} has no tick until {last_tick}"
        assert ticks[-1] == last_tick, f"{record.id} is turned until {last_tick}, which is no tick"
        # By the clock as it was before, or as it has been set in this very turn.
        offsets = self._offset, self._oracle.scheduler.state.wall_offset
        walls = [at + offset for at in (self._told_at, self._world.now) for offset in offsets]
        assert last_tick <= max(walls) + 1e-5, f"{record.id} has its turn {last_tick - max(walls)} s too early"
        wanted = [self._wanted(record, ticks, wall) for wall in walls]
        for tick in ticks:
            made = self._made.pop(task_id(record, tick), None)
            assert made is None or any(tick in each for each in wanted), f"{record.id} was to skip {tick}"
            missing = made is None and all(tick in each for each in wanted)
            assert not missing or self._may_lack(record), f"{record.id}: {tick} is passed over"

    def _wanted(self, record: ScheduleRecord, ticks: list[float], wall: float) -> set[float]:
        """Those of ``ticks`` that are to have a task, by a clock that shows ``wall``."""
        if record.timing.missed == "all":
            return set(self._among_the_last(record, ticks, wall))
        late = record.timing.missed == "skip" and wall - ticks[-1] > ON_TIME_S
        return set() if late else {ticks[-1]}

    def _among_the_last(self, record: ScheduleRecord, ticks: list[float], wall: float) -> list[float]:
        """Those of ``ticks`` that no thousand others follow of those that are due. A turn ends before the last of these
        where the queue is full; and where it may be, turns are looked at without delay."""
        may_end_early = self._oracle.scheduler.state.settings.max_queue_depth > 0
        last = ticks[-1]
        due = _ticks(record, record.last_tick, max(wall, last)) if may_end_early else ticks
        return [tick for tick in due[-1000:] if tick <= last]

    def _may_lack(self, record: ScheduleRecord) -> bool:
        """Another task may hold the key; or the last of these tasks was cancelled and ended in this very turn."""
        return OPTIONS[record.options].key is not None

    def applied(self, changes: Sequence[Change]) -> None:
        """These are committed."""
        for change in changes:
            self._follow(self._kept, change)
            if isinstance(change, TaskAdded) and isinstance(change.task.origin, str):
                self._committed.add(change.task.id)
                self._oracle.tasks[change.task.id].acknowledged = True

    def begins(self, id: bytes) -> None:
        """A worker begins a task."""
        known = self._oracle.tasks[id]
        scheduler = self._oracle.scheduler
        task = scheduler.state.tasks.get(id)
        if task is not None and isinstance(task.past.origin, str):
            assert id in self._committed, f"{known.id.hex()} begins, and its tick is not kept"

    def check_punctual(self, scheduler: Scheduler, unblocked_at: float) -> None:
        """After each step: no turn is long due that nothing is in the way of."""
        state = scheduler.state
        if state.shutting_down or state.store_trouble or state.settings.max_queue_depth:
            return
        now = self._world.now
        for schedule in state.schedules.values():
            record = schedule.record
            if record.paused or schedule.trouble:
                continue
            wall = now + state.wall_offset
            due = next(iter(_ticks(record, record.last_tick, wall)), wall) - state.wall_offset
            late_s = now - max(due, unblocked_at, self.moved_at)
            assert late_s < _LATE_S, f"{record.id} is {late_s} s late"

    moved_at: float = 0.0  # when the clock was set, or a schedule made, last: timers follow

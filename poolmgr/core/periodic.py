"""Periodic tasks: schedules, and their ticks.

A tick is a moment of the wall clock at which a schedule is due. What holds, whatever the clock does and whenever the
daemon dies:

1. A tick has one task at most. ``last_tick`` only grows, and no tick up to it has a turn again; where the clock is
   set back, the schedule waits until it has come by there once more.
2. A tick's task and the schedule's new ``last_tick`` are in one commit, and the task starts after it: a tick whose
   task is not kept has not had its turn, and nothing has run.
3. Every tick has its turn, late if need be: where no daemon was there, the clock was set forward, the store refuses,
   the queue is full or the app lacks the handler. Turns that come late are *missed*, and the schedule's policy says
   which of them have a task.

A tick whose task's ``key`` is held by an earlier task has had its turn, and no task: so runs are kept from overlapping.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from poolmgr.core.changes import ScheduleRecord, ScheduleRemoved, ScheduleSet, ScheduleTicked
from poolmgr.core.intake import Intake
from poolmgr.core.schedule import ORIGIN, Schedule, task_id
from poolmgr.core.state import State
from poolmgr.errors import BadOption, NotFound, PoolError, StoreUnavailable
from poolmgr.model import TaskOptions
from poolmgr.schedule import DECLARED, ScheduleInfo, Timing

ON_TIME_S: Final = 10.0  # a turn that comes no later than this is none that was missed
ALL_AT_MOST: Final = 1_000  # ticks that have tasks when all that were missed are made up for
RETRY_S: Final = 1.0  # after which a tick that could not become a task is tried again
_COUNTED: Final = {"all": 2_000}  # ticks that are looked at, back from now, when some were missed
_COUNTED_ELSE: Final = 100

OptionsOf = Callable[[str, bytes | None], TaskOptions]


class Timetable(Protocol):
    """The calendar, which the core does not know by itself. Ticks depend on nothing but the timing and ``anchor``."""

    def after(self, timing: Timing, anchor: float, wall: float) -> float | None:
        """The first tick after ``wall``; None: there is none any more. Raises ``BadOption``: it cannot be read."""
        ...

    def between(self, timing: Timing, anchor: float, after: float, until: float, most: int) -> list[float]:
        """The latest ticks, at most ``most``, after ``after`` and not after ``until``; ascending."""
        ...


class Periodic:
    """The schedules' side of the scheduler."""

    def __init__(self, state: State, intake: Intake) -> None:
        self._state = state
        self._intake = intake
        self._timetable: Timetable
        self._options_of: OptionsOf

    # ------------------------------------------------------------------------------------------ which there are

    def begin(self, records: Iterable[ScheduleRecord], timetable: Timetable, options_of: OptionsOf, now: float) -> None:
        """Take over the schedules of earlier epochs.

        Args:
            options_of: the options of a task by its name and by what a schedule has to say of them. Raises
                ``UnknownTask``, ``BadOption``.
        """
        self._timetable = timetable
        self._options_of = options_of
        for record in records:
            schedule = self._state.schedules[record.id] = Schedule(record)
            self._arm(schedule, now)

    def set(
        self, id: str, name: str, payload: bytes, options: bytes | None, timing: Timing, now: float
    ) -> ScheduleRecord:
        """Make a schedule, or change the one of that id. One that keeps its ticks misses none of them."""
        schedule = self._state.schedules.get(id)
        wall = now + self._state.wall_offset
        made = ScheduleRecord(id, name, payload, options, timing, False, wall, wall)
        if schedule is not None:
            before = schedule.record
            made = made._replace(paused=before.paused)
            if timing._replace(missed=before.timing.missed) == before.timing:
                made = made._replace(created_at=before.created_at, last_tick=before.last_tick)
        self._keep(made, now)
        return made

    def declare(self, declared: Mapping[str, tuple[Timing, bytes]], now: float) -> None:
        """The app's code has these schedules (by task: when, and the payload), and no others."""
        wanted = {DECLARED + name: (name, timing, payload) for name, (timing, payload) in declared.items()}
        for id in [id for id in self._state.schedules if id.startswith(DECLARED) and id not in wanted]:
            self.remove(id)
        for id, (name, timing, payload) in wanted.items():
            self.set(id, name, payload, None, timing, now)

    def remove(self, id: str) -> None:
        """Forget a schedule; tasks that it has made stay. Raises ``NotFound``."""
        self.find(id)
        del self._state.schedules[id]
        self._state.fact(ScheduleRemoved(id), True)

    def pause(self, id: str, now: float) -> None:
        """Make no tasks until ``resume``. Raises ``NotFound``."""
        self._keep(self.find(id).record._replace(paused=True), now)

    def resume(self, id: str, now: float) -> None:
        """Go on with the next tick: those of the pause have had their turn.

        Raises:
            NotFound: there is no such schedule.
            BadOption: its time zone is not known any more.
        """
        record = self.find(id).record
        if record.paused:
            wall = now + self._state.wall_offset
            passed = self._timetable.between(record.timing, record.created_at, record.last_tick, wall, 1)
            self._keep(record._replace(paused=False, last_tick=passed[-1] if passed else record.last_tick), now)

    def find(self, id: str) -> Schedule:
        """The schedule of that id. Raises ``NotFound``."""
        schedule = self._state.schedules.get(id)
        if schedule is None:
            raise NotFound(f"there is no schedule {id!r}: `poolmgr schedule list` shows all")
        return schedule

    def info(self, schedule: Schedule, upcoming: int) -> ScheduleInfo:
        """What is known of a schedule, with so many of its next ticks."""
        record = schedule.record
        ticks: list[float] = []
        tick = None if schedule.record.paused else schedule.next_tick
        while tick is not None and len(ticks) < upcoming:
            ticks.append(tick)
            tick = self._timetable.after(record.timing, record.created_at, tick)
        has_ticked = record.last_tick > record.created_at
        return ScheduleInfo(
            record.id, record.name, *record.timing, record.paused, record.id.startswith(DECLARED), record.created_at,
            record.last_tick if has_ticked else None, task_id(record, record.last_tick).hex() if has_ticked else None,
            tuple(ticks), schedule.trouble,
        )  # fmt: skip

    def _keep(self, record: ScheduleRecord, now: float) -> None:
        schedule = self._state.schedules.get(record.id)
        if schedule is not None and schedule.record == record:
            return
        schedule = self._state.schedules[record.id] = Schedule(record)
        self._state.fact(ScheduleSet(record), True)
        self._arm(schedule, now)

    # ------------------------------------------------------------------------------------------ when it is time

    def _arm(self, schedule: Schedule, now: float) -> None:
        """Wait for the next tick; one that has passed is due now."""
        record = schedule.record
        schedule.next_tick = None
        if record.paused:
            return
        try:
            schedule.next_tick = self._timetable.after(record.timing, record.created_at, record.last_tick)
        except BadOption as error:  # it was fine once: the system has lost its time zones, say
            self._hold_back(schedule, str(error))
            return
        self._wait(schedule, now)

    def _wait(self, schedule: Schedule, now: float) -> None:
        if schedule.next_tick is not None:
            schedule.due_at = schedule.next_tick - self._state.wall_offset
            self._state.deadlines.add(max(now, schedule.due_at), "schedule", schedule)

    def clock_changed(self, now: float) -> None:
        """The wall clock was set, and the ticks with it."""
        for schedule in self._state.schedules.values():
            self._wait(schedule, now)

    def all_due(self, schedules: list[Schedule], now: float) -> None:
        """The time of these has come. Whose last turn is longest ago comes first: else one that has much to make up for
        could take all the room of a full queue, each time there is some, and another would never have any."""
        for schedule in sorted(schedules, key=_turn_at):
            self._due(schedule, now)

    def _due(self, schedule: Schedule, now: float) -> None:
        """A schedule's time has come, or has been moved, and its own entry will come."""
        record, tick = schedule.record, schedule.next_tick
        state = self._state
        current = state.schedules.get(record.id) is schedule
        if not current or tick is None or schedule.due_at > now or state.shutting_down:
            return
        try:
            self._turn(schedule, max(tick, now + state.wall_offset), now)
        except PoolError as error:
            self._hold_back(schedule, str(error))
            state.deadlines.add(now + RETRY_S, "schedule", schedule)
            return
        schedule.trouble = ""
        self._arm(schedule, now)

    def _ticks(self, schedule: Schedule, wall: float) -> list[float]:
        """Those that are due: nearly always one."""
        record, tick = schedule.record, schedule.next_tick
        if tick is not None and tick > record.last_tick:
            following = self._timetable.after(record.timing, record.created_at, tick)
            if following is None or following > wall:
                return [tick]
        most = _COUNTED.get(record.timing.missed, _COUNTED_ELSE)
        return self._timetable.between(record.timing, record.created_at, record.last_tick, wall, most)

    def _turn(self, schedule: Schedule, wall: float, now: float) -> None:
        """The ticks that are due have their turn.

        Raises:
            PoolError: not all of them could; those that did have had it.
        """
        if self._state.store_trouble:
            raise StoreUnavailable(f"the store refuses to write: {self._state.store_trouble}")
        record = schedule.record
        options = self._options_of(record.name, record.options)
        if not options.durable:
            options = options._replace(durable=True)  # else it would not be in the commit that says that it was made
        ticks = self._ticks(schedule, wall)
        if not ticks:  # those that were due have had their turn, and others could not; then the clock was set back
            return
        chosen = _chosen(record.timing.missed, ticks, wall)
        last_tick = record.last_tick
        try:
            for tick in chosen:
                if options.key is None or not self._intake.holds_key(options.key, now):
                    self._intake.submit(
                        now, task_id(record, tick), record.name, record.payload, options, 0, False,
                        origin=ORIGIN + record.id,
                    )  # fmt: skip
                last_tick = tick
            last_tick = ticks[-1]
        finally:
            if last_tick > record.last_tick:
                schedule.record = record._replace(last_tick=last_tick)
                schedule.turn_at = now
                self._state.fact(ScheduleTicked(record.id, last_tick), True)
                self._tell_missed(record, bisect_right(ticks, last_tick), bisect_right(chosen, last_tick))

    def _tell_missed(self, record: ScheduleRecord, ticks: int, tasks: int) -> None:
        """So many ticks have had their turn together. Those that could not have it are told when they have."""
        if ticks > 1 or not tasks:
            fields = {
                "schedule": record.id, "name": record.name, "missed": record.timing.missed, "ticks": ticks,
                "tasks": tasks,
            }  # fmt: skip
            self._state.emit("schedule-missed", fields)

    def _hold_back(self, schedule: Schedule, why: str) -> None:
        if not schedule.trouble:
            record = schedule.record
            self._state.emit("schedule-held", {"schedule": record.id, "name": record.name, "error": why})
        schedule.trouble = why


def _turn_at(schedule: Schedule) -> float:
    return schedule.turn_at


def _chosen(missed: str, ticks: list[float], wall: float) -> list[float]:
    """Those of ``ticks``, all that are due, which have a task."""
    if missed == "all":
        return ticks[-ALL_AT_MOST:]
    if missed == "skip" and wall - ticks[-1] > ON_TIME_S:
        return []
    return ticks[-1:]

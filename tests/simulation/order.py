"""Is what was started what should have been, and no more? Checked after every flush, exactly.

1. Within a row (one name, demand, priority and group) tasks start in the order of their submits: none starts while an
   older one waits. Retries keep their old place, so nothing is exempt; which *worker* a retry avoids is another matter.
2. Among tasks of one demand (what they need of a worker) none starts while one of a smaller priority number waits,
   unless that one's name is held back: paused, at its limit, or by its circuit breaker. With ageing: while one waits
   that is first in a row, and by its priority has waited longer than that which was started, and than all others of its
   row.
3. No task waits that could run: no idle worker fits a waiting task whose name is not held back. That
   holds for prefetched tasks too: nothing is put behind another task while a fitting worker is idle. Of those that were
   twice interrupted only one is to run at a time.
   What is held for want of memory, by its priority, need not run, and may not: but for one now and then.
4. While the store refuses to write, nothing durable starts, and it stands in nobody's way.
5. In no window of a rate limit's length are there more starts than it allows, since that limit was set; and a start
   never makes more tasks of a name run than its limit of concurrency.

The turns of groups are left to tests/unit: which group is next depends on who was idle when.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from poolmgr.core.ageing import Ageing
from poolmgr.core.effects import Start
from poolmgr.core.scheduler import Scheduler
from poolmgr.core.slot import Slot
from poolmgr.core.state import State
from poolmgr.core.task import Task
from poolmgr.model import WorkerState

LATE_S = 0.05  # that a timer may be late
_ROUNDING_S = 1e-6


class OrderCheck:
    """Watches the starts of one epoch."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._state = scheduler.state
        self._starts: defaultdict[str, list[float]] = defaultdict(list)
        self._limits: dict[str, tuple[int, float]] = {}
        self._before: dict[str, int] = {}  # how many starts there had been when a name's limit was set
        self._just_woken = False
        # With a limit on the queue a submit may start what came before it in the same turn: that did not overtake it.
        self._starts_early = scheduler.state.settings.max_queue_depth > 0
        aging_s = scheduler.state.settings.aging_s
        self._ageing = Ageing(aging_s, scheduler.state.offset_of) if aging_s else None

    def limits_may_have_changed(self) -> None:
        """After each submit."""
        for name, limits in self._state.limits.items():
            found = (limits.starts, limits.per_s)
            if self._limits.get(name) != found:
                self._limits[name] = found
                self._before[name] = len(self._starts[name])

    def check(self, starts: Sequence[Start], now: float, just_woken: bool) -> None:
        """Raise ``AssertionError`` with what is wrong with these starts of one flush.

        A name stays held by its rate until a timer says otherwise, and that may be late: most so where the daemon was
        blocked, and has ``just_woken``.
        """
        self._just_woken = just_woken
        state = self._state
        for start in starts:
            assert start.name not in state.paused, f"{start.name} is paused, and starts"
            kept = state.tasks[start.task_id].options.durable
            assert not kept or not state.store_trouble, f"{start.name} starts, and that cannot be kept"
            self._check_limits(start, now)
        held_from = state.queue.held_from
        held = [start for start in starts if state.tasks[start.task_id].options.priority >= held_from]
        assert self._starts_early or len(held) <= 1, f"{len(held)} tasks start that are held for want of memory"
        if state.shutting_down or not len(state.queue):
            return
        idle = [slot for slot in state.slots.values() if slot.state is WorkerState.READY and not slot.retiring]
        if starts or idle:
            self._check_waiting([state.tasks[start.task_id] for start in starts], idle, now)

    def _check_waiting(self, started: list[Task], idle: list[Slot], now: float) -> None:
        blocked: dict[str, bool] = {}
        aged = None if self._ageing is None else _Aged(self._ageing, started, self._state)
        for waiting in self._state.queue.tasks():
            if self._state.store_trouble and waiting.options.durable:
                continue
            if waiting.options.priority >= self._state.queue.held_from:
                continue
            name = waiting.name
            if name not in blocked:
                blocked[name] = self._blocked(name, now)
            for task in started:
                if _demand(task) != _demand(waiting):
                    continue
                same_row = _row(task) == _row(waiting)
                assert not same_row or task.order < waiting.order, f"{_of(task)} started before {_of(waiting)}"
                came_later = self._starts_early and task.order < waiting.order
                if aged is not None:
                    overtaken = aged.overtakes(task, waiting)
                else:
                    overtaken = task.options.priority > waiting.options.priority
                assert blocked[name] or came_later or not overtaken, (
                    f"{_of(task)} of priority {task.options.priority} started before {_of(waiting)} "
                    f"of priority {waiting.options.priority}"
                )
            if not blocked[name] and not (waiting.runs_alone and self._one_runs_alone()):
                for slot in idle:
                    fits = slot.fits(waiting.options.requires)
                    assert not fits or (waiting.options.ephemeral and slot.executed), (
                        f"{_of(waiting)} waits, and {slot.id} is idle"
                    )

    def _one_runs_alone(self) -> bool:
        return any(task.runs_alone for slot in self._state.slots.values() for task in slot.in_flight)

    def _blocked(self, name: str, now: float) -> bool:
        breaker = self._state.breakers.get(name)
        if name in self._state.paused or (breaker is not None and breaker.holds):
            return True
        limits = self._state.limits.get(name)
        if limits is None:
            return False
        recent = sum(1 for at in self._starts[name] if at > now - limits.per_s - LATE_S)
        return limits.full or (bool(limits.starts) and (self._just_woken or recent >= limits.starts))

    def _check_limits(self, start: Start, now: float) -> None:
        limits = self._state.limits.get(start.name)
        if limits is None:
            return
        if limits.starts:
            times = self._starts[start.name]
            times.append(now)
            since = now - limits.per_s + _ROUNDING_S
            recent = sum(1 for at in times[self._before[start.name] :] if at >= since)
            assert recent <= limits.starts, f"{recent} starts of {start.name} in {limits.per_s} s"
        running = sum(task.name == start.name for slot in self._state.slots.values() for task in slot.in_flight)
        assert not limits.max_concurrency or running <= limits.max_concurrency, f"{running} of {start.name} run"


class _Aged:
    """Who goes before whom, with ageing, in one flush."""

    def __init__(self, ageing: Ageing, started: list[Task], state: State) -> None:
        self._ageing = ageing
        waiting = list(state.queue.tasks())
        self._moved = {_row(task) for task in started}  # their first task was another when the others started
        self._oldest: dict[tuple[object, ...], float] = {}
        self._first: dict[tuple[object, ...], Task] = {}
        for task in [*started, *waiting]:
            row, place = _row(task), self._place(task)
            if state.queue.row_of(task).shelf is not None:  # what is there came later, and may have waited longer
                since = task.submitted_at - state.offset_of(task.order)
                if task.order <= state.recovered_to:  # by how much, if the clock was set back then, nobody knows now
                    since = float("-inf")
                place = min(place, since + self._steps(task))
            self._oldest[row] = min(self._oldest.get(row, place), place)
        for task in waiting:
            first = self._first.setdefault(_row(task), task)
            if task.order < first.order:
                self._first[_row(task)] = task

    def _place(self, task: Task) -> float:
        return self._ageing.waits_since(task) + self._steps(task)

    def _steps(self, task: Task) -> float:
        return task.options.priority * self._ageing.aging_s

    def overtakes(self, started: Task, waiting: Task) -> bool:
        """Whether it started out of its turn."""
        row = _row(waiting)
        if row in self._moved or self._first[row] is not waiting:
            return False
        return self._oldest[_row(started)] > self._place(waiting) + _ROUNDING_S


def _row(task: Task) -> tuple[object, ...]:
    return task.name, _demand(task), task.options.durable, task.options.priority, task.group


def _demand(task: Task) -> tuple[frozenset[str], bool, bool]:
    return task.options.requires, task.options.ephemeral, task.runs_alone


def _of(task: Task) -> str:
    return f"{task.name} {task.id.hex()[-6:]}"

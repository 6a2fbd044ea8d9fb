"""Ageing: with it on nothing waits for ever, whatever comes before it; with it off priorities are strict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolmgr.core.ageing import Ageing
from poolmgr.core.allotment import Allotment
from poolmgr.core.changes import TaskRecord
from poolmgr.core.ready_queue import ReadyQueue
from poolmgr.core.row import Row
from poolmgr.core.task import Task
from poolmgr.model import TaskOptions, TaskState
from tests.unit.driver import WALL_OFFSET, Pool

AGING_S = 2.0
SLACK_S = 1e-5  # wall times are kept to some 0.2 microseconds


# ------------------------------------------------------------------------------------- the queue, against a naive one


class Aged:
    """A ready queue with a clock, a counter for orders, and each task that waits."""

    def __init__(self, aging_s: float) -> None:
        self.now = 0.0
        ageing = Ageing(aging_s, lambda order: 0.0) if aging_s else None
        self.queue = ReadyQueue(window=1000, payloads=Allotment(1 << 20), ageing=ageing)
        self.ageing = Ageing(aging_s, lambda order: 0.0)
        self.waiting: list[Task] = []
        self.later: list[Task] = []  # wait for their time
        self.gone: list[Task] = []
        self.blocked: set[str] = set()
        self._orders = iter(range(1, 1_000_000))

    def submit(self, group: str, name: str, **options: Any) -> Task:
        task = self._made(group, name, **options)
        if task.options.delay_s:
            self.later.append(task)
        else:
            self.enter(task)
        return task

    def submit_many(self, group: str, name: str, count: int, **options: Any) -> None:
        """In one frame."""
        tasks = [self._made(group, name, **options) for _ in range(count)]
        assert self.queue.push_many(tasks, 0)
        self.waiting += tasks

    def _made(self, group: str, name: str, **options: Any) -> Task:
        order = next(self._orders)
        return Task(order.to_bytes(16, "big"), name, b"", TaskOptions(**options), group, order, 0, self.now, self.now)

    def enter(self, task: Task) -> None:
        self.queue.push(task)
        self.waiting.append(task)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for task in sorted(self.later, key=self.ageing.waits_since):
            if self.ageing.waits_since(task) <= self.now:
                self.later.remove(task)
                self.enter(task)

    def take(self) -> Task | None:
        best: Row | None = None
        for demand in self.queue.demands:
            row = self.queue.head(demand)
            if row is not None and (best is None or row.entry < best.entry):  # type: ignore[operator]
                best = row
        if best is None:
            return None
        [task] = self.queue.pop(best)
        self.waiting.remove(task)
        self.gone.append(task)
        return task

    def rest(self) -> Iterator[Task]:
        while (task := self.take()) is not None:
            yield task

    def fit(self) -> list[Task]:
        return [task for task in self.waiting if task.name not in self.blocked]

    def place(self, task: Task) -> float:
        """Where it stands on its own: the smallest is next."""
        return self.ageing.waits_since(task) + task.options.priority * self.ageing.aging_s


_KINDS = ["submit"] * 4 + ["take"] * 4 + ["pass", "pass", "back", "back", "discard", "block", "unblock"]
_STEPS = st.lists(st.tuples(st.sampled_from(_KINDS), st.integers(0, 10_000)), min_size=20, max_size=100)
_REST = [("take", 0)] * 100


def _do(aged: Aged, step: tuple[str, int]) -> None:
    """All steps but ``submit`` and ``take``."""
    match step:
        case ("pass", number):
            aged.pass_time(number / 100)
        case ("back", number) if aged.gone:
            aged.enter(aged.gone.pop(number % len(aged.gone)))
        case ("discard", number) if aged.waiting:
            aged.queue.discard(aged.waiting.pop(number % len(aged.waiting)))
        case ("block", number):
            aged.blocked.add("xyz"[number % 3])
            aged.queue.block("xyz"[number % 3], "paused")
        case ("unblock", number):
            aged.blocked.discard("xyz"[number % 3])
            aged.queue.unblock("xyz"[number % 3], "paused")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(_STEPS, st.sampled_from([0.0, 0.001, AGING_S, 1000.0]))
def test_whoever_is_next_has_waited_longest_by_its_priority(steps: list[tuple[str, int]], aging_s: float) -> None:
    """Without ageing: whoever is most urgent; first in, first out in each group, in both cases."""
    aged = Aged(aging_s)
    for step in [*steps, *_REST]:
        match step:
            case ("submit", number):
                group, name, priority, rest = _chosen(number)
                requires = frozenset({"gpu"} if rest % 4 else ())
                if rest % 3:
                    aged.submit(group, name, priority=priority, requires=requires)
                else:
                    aged.submit_many(group, name, 1 + rest % 2, priority=priority, requires=requires)
            case ("take", _):
                fit = aged.fit()
                task = aged.take()
                assert (task is None) == (not fit)
                if task is None:
                    continue
                if aging_s:
                    assert aged.place(task) <= min(map(aged.place, fit)) + SLACK_S
                else:
                    assert task.options.priority == min(each.options.priority for each in fit)
                key = (task.group, task.name, task.options.priority, task.options.requires)
                same = (t.order for t in fit if (t.group, t.name, t.options.priority, t.options.requires) == key)
                assert task.order == min(same)
            case _:
                _do(aged, step)
        assert len(aged.queue) == len(aged.waiting)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(_STEPS, st.lists(st.floats(0.0, 200.0), min_size=1, max_size=5))
def test_what_waited_for_its_time_has_waited_since_then(steps: list[tuple[str, int]], delays: list[float]) -> None:
    """Nobody goes before the first of another line that has waited longer, unless one of its own line has."""
    aged = Aged(AGING_S)
    for step in [*steps, *_REST]:
        match step:
            case ("submit", number):
                group, name, priority, rest = _chosen(number)
                aged.submit(group, name, priority=priority, delay_s=(0.0, *delays)[rest % (1 + len(delays))])
            case ("take", _):
                fit = aged.fit()
                task = aged.take()
                if task is not None:
                    own = min(aged.place(each) for each in fit if _line(each) == _line(task))
                    assert all(own <= aged.place(first) + SLACK_S for first in _firsts(fit))
            case _:
                _do(aged, step)


def _chosen(number: int) -> tuple[str, str, int, int]:
    """A group, a name, a priority, and a number for the rest."""
    number, group = divmod(number, 2)
    number, name = divmod(number, 2)
    rest, priority = divmod(number, 3)
    return "ab"[group], "xy"[name], (0, 10, 50)[priority], rest


def _line(task: Task) -> tuple[str, str, int]:
    return task.name, task.group, task.options.priority


def _firsts(tasks: list[Task]) -> list[Task]:
    firsts: dict[tuple[str, str, int], Task] = {}
    for task in sorted(tasks, key=lambda task: task.order):
        firsts.setdefault(_line(task), task)
    return list(firsts.values())


def test_one_that_is_due_in_front_of_others_does_not_make_them_wait() -> None:
    aged = Aged(AGING_S)
    delayed = aged.submit("g", "work", priority=50, delay_s=1000.0)
    waits = aged.submit("g", "work", priority=50)
    aged.pass_time(1000.0)
    aged.submit("other", "work", priority=0)
    assert [aged.take(), aged.take()] == [delayed, waits]  # both of them by the age of the second


def test_a_line_from_whose_front_a_young_one_is_taken_is_as_old_as_what_is_left() -> None:
    aged = Aged(AGING_S)
    delayed = aged.submit("g", "work", priority=50, delay_s=1000.0)
    tried_again = aged.submit("g", "work", priority=50)
    assert aged.take() is tried_again
    aged.pass_time(1000.0)
    aged.enter(tried_again)  # behind the other, although it is older
    aged.submit("other", "work", priority=0)
    aged.waiting.remove(delayed)
    aged.queue.discard(delayed)
    assert aged.take() is tried_again


def test_one_that_has_had_its_turn_uncovers_an_older_one() -> None:
    aged = Aged(AGING_S)
    delayed = aged.submit("g", "work", priority=50, delay_s=1000.0)
    tried_again = aged.submit("g", "work", priority=50)
    assert aged.take() is tried_again
    aged.pass_time(999.0)
    aged.submit("g", "work", priority=50)
    aged.pass_time(1.0)
    aged.enter(tried_again)
    assert aged.take() is delayed
    aged.submit("other", "work", priority=0)
    assert aged.take() is tried_again


def test_a_line_whose_older_head_is_cancelled_is_as_young_as_the_other() -> None:
    aged = Aged(AGING_S)
    delayed = aged.submit("g", "work", priority=50, delay_s=1000.0)
    waits = aged.submit("g", "work", priority=50)
    aged.pass_time(1000.0)
    other = aged.submit("other", "work", priority=0)
    aged.waiting.remove(waits)
    aged.queue.discard(waits)
    assert [aged.take(), aged.take()] == [other, delayed]


@pytest.mark.parametrize("together", [False, True])
def test_one_that_comes_after_all_others_of_its_line_were_cancelled_is_young(together: bool) -> None:
    aged = Aged(AGING_S)
    old = aged.submit("g", "work")
    aged.pass_time(10.0)
    other = aged.submit("other", "work")
    aged.waiting.remove(old)
    aged.queue.discard(old)
    aged.pass_time(1.0)
    if together:
        aged.submit_many("g", "work", 2)
    else:
        aged.submit("g", "work")
    assert aged.take() is other


def test_groups_do_not_take_turns_where_ages_differ() -> None:
    aged = Aged(AGING_S)
    for _ in range(3):
        aged.submit("a", "work")
    aged.pass_time(0.1)
    aged.submit("b", "work")
    assert [task.group for task in aged.rest()] == list("aaab")


def test_groups_take_turns_where_ages_do_not_differ() -> None:
    aged = Aged(AGING_S)
    for _ in range(3):
        aged.submit("a", "work")
    aged.submit("b", "work")
    assert [task.group for task in aged.rest()] == list("abaa")


# ------------------------------------------------------------------------------------- floods


def _flooded(workers: int, runs_s: list[float], low: int, flood_s: float, **settings: Any) -> float | None:
    """How long a task of priority ``low`` waits while there is never less CRITICAL work than workers; None: for as long
    as the flood lasts."""
    pool = Pool(workers=workers, **settings)
    pool.submit_many(2 * workers, "flood", priority=0)
    waits = pool.submit("low", priority=low)
    began = pool.now
    turn = 0
    while pool.now - began < flood_s:
        if pool.state(waits) != "queued":
            return pool.now - began
        runs = pool.running()[0]
        run_s = runs_s[turn % len(runs_s)]
        turn += 1
        pool.advance(run_s)
        pool.done(runs, run_s=run_s)
        pool.submit("flood", priority=0)
    return None


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 3),
    st.lists(st.floats(0.2, 3.0), min_size=1, max_size=6),
    st.sampled_from([1, 10, 50, 100]),
    st.floats(0.01, 0.5),
)
def test_a_flood_of_critical_work_starves_nothing_with_ageing(
    workers: int, runs_s: list[float], low: int, aging_s: float
) -> None:
    """It begins once it has waited longer by its priority times ``aging_s``, and whoever came before that has gone."""
    backlog = 2 * workers + 1
    bound_s = low * aging_s + (backlog + 2) * max(runs_s) * 2
    waited_s = _flooded(workers, runs_s, low, bound_s + max(runs_s), aging_s=aging_s)
    assert waited_s is not None
    assert waited_s <= bound_s


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.lists(st.floats(0.2, 3.0), min_size=1, max_size=6), st.sampled_from([1, 10, 50, 100]))
def test_without_ageing_the_order_is_strict(workers: int, runs_s: list[float], low: int) -> None:
    assert _flooded(workers, runs_s, low, 60.0) is None


# ------------------------------------------------------------------------------------- ages


def _old(priority: int, waited_s: float, **options: Any) -> TaskRecord:
    submitted_at = 1000.0 + WALL_OFFSET - waited_s
    made = TaskOptions(priority=priority, **options)
    return TaskRecord(b"o" * 16, "work", b"x", made, "client-4", 7, TaskState.QUEUED, submitted_at)


@pytest.mark.parametrize(("waited_s", "first"), [(90.0, False), (110.0, True)])
def test_an_age_survives_a_restart(waited_s: float, first: bool) -> None:
    pool = Pool(begin=False, aging_s=AGING_S)
    pool.scheduler.recovery.recover([_old(50, waited_s)], lambda name: True, pool.now)
    urgent = pool.submit(priority=0)
    pool.begin()
    assert pool.running() == ([b"o" * 16] if first else [urgent])


@pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
def test_the_wall_clock_makes_nobody_older(seconds: float) -> None:
    pool = Pool(aging_s=AGING_S)
    runs = pool.submit()
    low = pool.submit(priority=50)
    pool.advance(99.0)
    pool.scheduler.clock_changed(WALL_OFFSET + seconds, pool.now)
    younger, older = pool.submit(priority=0), pool.submit(priority=1)
    pool.done(runs)
    assert pool.running() == [younger]
    pool.done(younger)
    assert pool.running() == [low]
    pool.done(low)
    assert pool.running() == [older]


def test_a_retry_is_as_old_as_its_task() -> None:
    pool = Pool(aging_s=AGING_S)
    low = pool.submit(priority=50, max_retries=1, retry_backoff_s=1.0)
    pool.advance(100.0)
    pool.fail(low)
    runs = pool.submit(priority=0)
    pool.submit(priority=0)
    pool.advance(1.1)
    pool.done(runs)
    assert pool.running() == [low]

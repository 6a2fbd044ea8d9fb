"""The ready queue: priorities, groups in turn, FIFO in a group, and lanes that block without hiding anybody."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolmgr.core.allotment import Allotment
from poolmgr.core.ready_queue import ReadyQueue
from poolmgr.core.row import Row
from poolmgr.core.task import Task
from poolmgr.model import TaskOptions


class Queue:
    """A ready queue and a counter for orders; ``take`` is what a dispatcher with idle workers for all does."""

    def __init__(self) -> None:
        self.queue = ReadyQueue(window=1000, payloads=Allotment(1 << 20))
        self._orders = iter(range(1, 1_000_000))

    def push(self, group: str = "g", name: str = "work", **options: Any) -> Task:
        order = next(self._orders)
        task = Task(order.to_bytes(16, "big"), name, b"", TaskOptions(**options), group, order, 0, 0.0, 0.0)
        self.queue.push(task)
        return task

    def take(self, requires: frozenset[str] | None = None) -> Task | None:
        best: Row | None = None
        for demand in self.queue.demands:
            row = self.queue.head(demand) if requires is None or demand.requires <= requires else None
            if row is not None and (best is None or row.entry < best.entry):  # type: ignore[operator]
                best = row
        return self.queue.pop(best)[0] if best is not None else None

    def rest(self) -> Iterator[Task]:
        while (task := self.take()) is not None:
            yield task

    def groups(self, count: int) -> str:
        """The groups of the next ``count`` tasks, as one word."""
        taken = [self.take() for _ in range(count)]
        return "".join(task.group for task in taken if task is not None)


@pytest.fixture
def queue() -> Queue:
    return Queue()


def test_of_those_that_are_held_one_may_go_and_not_those_that_follow_it(queue: Queue) -> None:
    options = TaskOptions(priority=70)
    for order in range(1, 4):
        queue.queue.push(Task(bytes(16), "work", b"", options, "g", order, 0, 0.0, 0.0))
    queue.queue.held_from, queue.queue.lets_one = 60, True
    row = queue.queue.head(queue.queue.demands[0])
    assert row is not None
    assert [task.order for task in queue.queue.pop(row, 3)] == [1]
    assert queue.take() is None


def test_those_that_are_alike_are_taken_together(queue: Queue) -> None:
    options = TaskOptions()
    tasks = [Task(bytes(16), "work", b"abc", options, "g", order, 0, 0.0, 0.0) for order in range(8)]
    tasks[5].attempt = 1
    for task in tasks:
        queue.queue.push(task)
    tasks[2].in_queue = True
    queue.queue.discard(tasks[2])
    taken = []
    while (row := queue.queue.head(queue.queue.demands[0])) is not None:
        taken.append([task.order for task in queue.queue.pop(row, 3)])
        assert len(queue.queue) == row.waiting == 7 - sum(map(len, taken))
        assert row.weight == 3 * row.waiting
    assert taken == [[0, 1, 3], [4], [5], [6, 7]]


def test_an_empty_queue_gives_nothing(queue: Queue) -> None:
    assert queue.take() is None
    assert len(queue.queue) == 0


def test_a_lower_priority_number_runs_first(queue: Queue) -> None:
    for priority in (50, 0, 10, 100, 5):
        queue.push(priority=priority)
    assert [task.options.priority for task in queue.rest()] == [0, 5, 10, 50, 100]


def test_within_a_group_first_in_is_first_out_across_names(queue: Queue) -> None:
    pushed = [queue.push(name=name) for name in "abacb"]
    assert list(queue.rest()) == pushed


def test_a_cancelled_first_task_gives_its_place_to_nobody() -> None:
    queue = Queue()
    first, second, third = queue.push(name="a"), queue.push(name="b"), queue.push(name="a")
    queue.queue.discard(first)
    assert list(queue.rest()) == [second, third]


def test_a_task_that_comes_back_keeps_its_old_place(queue: Queue) -> None:
    first, second, third = queue.push(), queue.push(), queue.push()
    assert queue.take() is first
    assert queue.take() is second
    queue.queue.push(second)
    queue.queue.push(first)
    assert list(queue.rest()) == [first, second, third]


def test_groups_take_turns_so_that_a_million_does_not_stand_before_one(queue: Queue) -> None:
    for _ in range(1000):
        queue.push("a")
    queue.push("b")
    assert queue.groups(3) == "aba"


def test_turns_are_counted_over_all_names_of_a_group(queue: Queue) -> None:
    for name in ("x", "y", "z"):
        queue.push("a", name)
    queue.push("b")
    queue.push("b")
    assert queue.groups(5) == "ababa"


def test_a_group_that_comes_back_has_saved_no_turns_up(queue: Queue) -> None:
    queue.push("b")
    assert queue.groups(1) == "b"
    for _ in range(20):
        queue.push("a")
    assert queue.groups(10) == "a" * 10
    for _ in range(5):
        queue.push("b")
    assert sorted(queue.groups(4)) == list("aabb")


def test_a_group_that_comes_back_is_not_starved_for_what_it_had(queue: Queue) -> None:
    for _ in range(100):
        queue.push("a")
    queue.groups(100)
    for _ in range(10):
        queue.push("a")
        queue.push("b")
    assert sorted(queue.groups(4)) == list("aabb")


def test_what_a_rare_capability_waited_for_lets_no_newcomer_jump_ahead(queue: Queue) -> None:
    queue.push("rare", requires=frozenset({"gpu"}))
    for _ in range(60):
        queue.push("busy")
    for _ in range(50):
        queue.take(requires=frozenset())
    queue.take()  # the rare one, at last: it stood at the first turn
    for _ in range(20):
        queue.push("new")
    assert queue.groups(8).count("busy") in (3, 4)


def test_turns_of_one_priority_are_none_of_another(queue: Queue) -> None:
    for _ in range(10):
        queue.push("a", priority=1)
    queue.groups(10)
    for _ in range(4):
        queue.push("a", priority=2)
        queue.push("b", priority=2)
    assert queue.groups(4) == "abab"


def test_a_blocked_name_hides_nobody_and_comes_back_in_its_place(queue: Queue) -> None:
    held = [queue.push(name="held", priority=0) for _ in range(3)]
    free = queue.push(name="free", priority=9)
    queue.queue.block("held", "paused")
    assert list(queue.rest()) == [free]
    assert len(queue.queue) == 3
    queue.queue.unblock("held", "paused")
    assert list(queue.rest()) == held


def test_a_name_is_held_until_its_last_reason_goes(queue: Queue) -> None:
    queue.push(name="held")
    queue.queue.block("held", "paused")
    queue.queue.block("held", "rate")
    queue.queue.unblock("held", "paused")
    assert queue.take() is None
    queue.queue.unblock("held", "concurrency")  # never was one
    assert queue.take() is None
    queue.queue.unblock("held", "rate")
    assert queue.take() is not None


def test_a_block_holds_what_comes_later_and_lanes_that_do_not_exist_yet(queue: Queue) -> None:
    queue.queue.block("held", "paused")
    queue.push(name="held")
    assert queue.take() is None
    queue.push(name="held", requires=frozenset({"gpu"}))
    queue.push(name="held")
    assert queue.take() is None
    queue.queue.unblock("held", "paused")
    assert len(list(queue.rest())) == 3


def test_a_blocked_lane_costs_nothing_once_it_is_parked(queue: Queue) -> None:
    for _ in range(100):
        queue.push("a", name="held")
    queue.queue.block("held", "paused")
    assert queue.take() is None
    for _ in range(100):
        queue.push("a", name="held")
    [demand] = queue.queue.demands
    assert demand.heads == []


def test_a_blocked_group_saves_no_turns_up(queue: Queue) -> None:
    for _ in range(10):
        queue.push("a", name="held")
        queue.push("b")
        queue.push("b")
    queue.queue.block("held", "paused")
    assert queue.groups(10) == "b" * 10
    queue.queue.unblock("held", "paused")
    assert queue.groups(6).count("b") >= 2


def test_cancelled_tasks_leave(queue: Queue) -> None:
    tasks = [queue.push() for _ in range(5)]
    for task in (tasks[0], tasks[2], tasks[4]):
        queue.queue.discard(task)
    assert len(queue.queue) == 2
    assert list(queue.rest()) == [tasks[1], tasks[3]]


def test_many_cancelled_tasks_are_not_kept_in_memory(queue: Queue) -> None:
    tasks = [queue.push() for _ in range(1000)]
    for task in tasks[1:]:
        queue.queue.discard(task)
    [row] = [row for lane in queue.queue.lanes for row in lane.rows.values()]
    assert len(row) < 100
    assert list(queue.rest()) == [tasks[0]]


def test_a_row_whose_tasks_were_all_cancelled_takes_new_ones(queue: Queue) -> None:
    for task in [queue.push() for _ in range(100)]:
        queue.queue.discard(task)
    assert queue.take() is None
    again = queue.push()
    assert queue.take() is again


def test_cancelled_while_blocked_then_unblocked(queue: Queue) -> None:
    tasks = [queue.push() for _ in range(100)]
    queue.queue.block("work", "paused")
    assert queue.take() is None
    for task in tasks:
        queue.queue.discard(task)
    later = queue.push()
    assert queue.take() is None
    queue.queue.unblock("work", "paused")
    assert list(queue.rest()) == [later]


def test_thousands_of_groups_take_turns_and_are_forgotten_when_idle(queue: Queue) -> None:
    for _ in range(3):
        for group in range(1000):
            queue.push(str(group))
    taken = [task.group for task in queue.rest()]
    assert [sorted(taken[n : n + 1000]) for n in (0, 1000, 2000)] == [sorted(map(str, range(1000)))] * 3
    for group in range(5000):  # a client that connects, asks one thing and goes
        queue.push(f"client-{group}")
        queue.take()
    rows = sum(len(lane.rows) for lane in queue.queue.lanes)
    assert rows <= 100
    assert len(queue.queue._turns) <= 2500


def test_tasks_gives_every_queued_one(queue: Queue) -> None:
    tasks = [queue.push(name=name, priority=priority) for name in "ab" for priority in (1, 2)]
    queue.queue.discard(tasks[1])
    queue.take()
    assert {task.id for task in queue.queue.tasks()} == {tasks[2].id, tasks[3].id}


# ------------------------------------------------------------------------------------- against a naive model


class Naive:
    """The same promises in the slowest way: look at every task each time."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.blocked: set[str] = set()

    def fit(self) -> list[Task]:
        return [task for task in self.tasks if task.name not in self.blocked]

    def may_be_next(self, task: Task | None) -> bool:
        """Of the best priority, and the first of its group there: whose turn it is, the turns tests say."""
        fit = self.fit()
        if task is None or not fit:
            return task is None and not fit
        best = min(each.options.priority for each in fit)
        first = min(each.order for each in fit if (each.options.priority, each.group) == (best, task.group))
        return task.options.priority == best and task.order == first


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 2), st.booleans()),
        st.tuples(st.sampled_from(["take", "take", "back", "discard", "block", "unblock"]), st.integers(0, 99)),
    ),
    max_size=80,
)


@settings(max_examples=60, derandomize=True)
@given(_STEPS)
def test_it_does_what_a_naive_queue_does(steps: list[tuple[object, ...]]) -> None:
    queue, naive, gone = Queue(), Naive(), []
    for step in steps:
        match step:
            case ("push", str(group), str(name), int(priority), bool(gpu)):
                requires = frozenset({"gpu"}) if gpu else frozenset()
                naive.tasks.append(queue.push(group, name, priority=priority, requires=requires))
            case ("take", _):
                task = queue.take()
                assert naive.may_be_next(task)
                if task is not None:
                    naive.tasks.remove(task)
                    gone.append(task)
            case ("back", int(number)) if gone:
                task = gone.pop(number % len(gone))
                queue.queue.push(task)
                naive.tasks.append(task)
            case ("discard", int(number)) if naive.tasks:
                queue.queue.discard(naive.tasks.pop(number % len(naive.tasks)))
            case ("block", int(number)):
                naive.blocked.add("xyz"[number % 3])
                queue.queue.block("xyz"[number % 3], "paused")
            case ("unblock", int(number)):
                naive.blocked.discard("xyz"[number % 3])
                queue.queue.unblock("xyz"[number % 3], "paused")
        assert len(queue.queue) == len(naive.tasks)
    for name in "xyz":
        queue.queue.unblock(name, "paused")
    assert sorted(task.order for task in queue.rest()) == sorted(task.order for task in naive.tasks)


@pytest.mark.parametrize("seed", range(5))
def test_groups_that_always_have_work_get_equal_shares(seed: int) -> None:
    queue, chance = Queue(), random.Random(seed)
    waiting = dict.fromkeys("abcd", 0)
    served = dict.fromkeys("abcd", 0)
    for _ in range(400):
        for group in waiting:
            while waiting[group] < 1 + chance.randrange(5):
                queue.push(group, chance.choice("xyz"))
                waiting[group] += 1
        task = queue.take()
        assert task is not None
        waiting[task.group] -= 1
        served[task.group] += 1
        assert max(served.values()) - min(served.values()) <= 1


def test_lanes_and_demands_in_which_nothing_waits_are_forgotten_in_time() -> None:
    queue = Queue()
    waits = queue.push(requires=frozenset({"gpu"}))
    for number in range(5000):
        queue.push(requires=frozenset({f"node-{number}"}))
        while queue.take(frozenset({f"node-{number}"})) is not None:
            pass
    assert len(queue.queue.lanes) <= 300
    assert len(queue.queue.demands) <= 300
    assert queue.take() is waits


def test_a_forgotten_lane_of_a_paused_name_is_still_paused() -> None:
    queue = Queue()
    queue.queue.block("work", "paused")
    for number in range(300):
        queue.queue.lane("work", frozenset({str(number)}), False)
    task = queue.push()
    assert queue.take() is None
    queue.queue.unblock("work", "paused")
    assert queue.take() is task

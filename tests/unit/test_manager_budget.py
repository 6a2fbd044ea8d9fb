"""How much of what a worker prints is logged, and what of it is kept."""

from __future__ import annotations

from poolmgr.manager.budget import LINES, WINDOW_S, Budget
from poolmgr.manager.capture import Capture
from poolmgr.manager.tail import Tail
from poolmgr.post_mortem import OUTPUT_LIMIT


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_beyond_the_budget_is_counted_until_its_time_is_over() -> None:
    clock = Clock()
    budget = Budget(clock)
    assert [budget.spend(10) for _ in range(LINES + 3)] == [True] * LINES + [False] * 3
    assert budget.suppressed == 3
    assert budget.renewed() == 0
    clock.now += WINDOW_S
    assert budget.renewed() == 3
    assert budget.spend(10)


def test_few_long_lines_spend_it_too() -> None:
    budget = Budget(Clock())
    assert sum(budget.spend(16 * 1024) for _ in range(100)) == 16


def test_suppressed_lines_are_counted_unseen_and_their_end_is_kept() -> None:
    told: list[str] = []
    budget, tail = Budget(Clock()), Tail()
    capture = Capture(lambda _, text: told.append(text), budget, tail)
    for _ in range(100):
        capture.feed(b"x\n" * 1000 + b"unfin", 7)
        capture.feed(b"ished\n", 7)
    assert len(told) == LINES
    assert budget.suppressed == 100 * 1001 - LINES
    assert tail.of(7).endswith("x\nunfinished\n")
    assert len(tail.of(7)) == OUTPUT_LIMIT


def test_a_tail_is_of_one_task_alone() -> None:
    tail = Tail()
    tail.add(1, b"one\0")
    assert tail.of(1) == "one\\0"
    tail.add(0, b"nobody's")
    assert (tail.of(1), tail.of(0)) == ("one\\0", "")
    tail.add(2, b"two")
    assert (tail.of(1), tail.of(2)) == ("", "two")

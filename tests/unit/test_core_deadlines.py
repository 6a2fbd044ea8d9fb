"""The heap of what is to happen later."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from poolmgr.core.deadlines import NEVER, Deadlines


def test_an_empty_heap_never_wakes() -> None:
    deadlines = Deadlines()
    assert deadlines.next == NEVER
    assert deadlines.pop_due(1e12) is None


def test_nothing_comes_early_and_all_comes_in_time() -> None:
    deadlines = Deadlines()
    deadlines.add(5.0, "due", "a")
    assert deadlines.next == 5.0
    assert deadlines.pop_due(4.999) is None
    assert deadlines.pop_due(5.0) == ("due", "a")
    assert deadlines.pop_due(5.0) is None


def test_equal_times_come_in_the_order_they_went_in_whatever_they_are() -> None:
    deadlines = Deadlines()
    subjects = [object() for _ in range(20)]  # not comparable
    for subject in subjects:
        deadlines.add(1.0, "due", subject)
    assert [deadlines.pop_due(1.0) for _ in subjects] == [("due", subject) for subject in subjects]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 20)))
def test_it_is_a_stable_sort(times: list[int]) -> None:
    deadlines = Deadlines()
    for number, time in enumerate(times):
        deadlines.add(time, "due", (time, number))
    found = []
    while (due := deadlines.pop_due(1e9)) is not None:
        found.append(due[1])
    assert found == sorted(found)
    assert len(found) == len(times)

"""Which ids are surely new: nothing that was taken ever is, whatever the clock does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from poolmgr.manager.recent_ids import AHEAD_S, KEPT_S, RecentIds
from poolmgr.model import last_id_of

NOW = 1_700_000_000.0


def made_at(wall: float, number: int = 0) -> bytes:
    """An id as a client makes it."""
    return last_id_of(wall)[:6] + number.to_bytes(10, "big")


def test_an_id_that_is_made_now_is_new_until_it_is_taken() -> None:
    recent = RecentIds(NOW)
    assert recent.is_new(made_at(NOW))
    recent.take([made_at(NOW)])
    assert not recent.is_new(made_at(NOW))
    assert recent.is_new(made_at(NOW, 1))


def test_what_is_older_than_is_known_here_is_not_surely_new() -> None:
    recent = RecentIds(NOW)
    recent.advance(NOW + 1)
    recent.advance(NOW + 2)
    assert recent.is_new(made_at(NOW + 1 - KEPT_S + 0.1))
    assert not recent.is_new(made_at(NOW + 1 - KEPT_S - 0.1))


def test_what_comes_late_after_a_stall_is_still_new() -> None:
    recent = RecentIds(NOW)
    recent.advance(NOW + 30)
    assert recent.is_new(made_at(NOW + 1))


def test_what_an_earlier_epoch_had_is_not_new() -> None:
    recent = RecentIds(NOW)
    recent.begin(made_at(NOW + 3), [made_at(NOW + AHEAD_S + 5)])
    assert not recent.is_new(made_at(NOW + 2))
    recent.advance(NOW + 10)
    assert not recent.is_new(made_at(NOW + AHEAD_S + 5))
    assert recent.is_new(made_at(NOW + 9))


def test_an_id_of_no_known_time_is_not_surely_new_until_that_has_come() -> None:
    recent = RecentIds(NOW)
    early = made_at(NOW + AHEAD_S + 5)
    assert not recent.is_new(early)
    recent.take([early])
    recent.advance(NOW + 10)
    assert not recent.is_new(early)


def test_of_many_no_two_may_be_the_same() -> None:
    recent = RecentIds(NOW)
    first, second = made_at(NOW, 1), made_at(NOW, 2)
    assert recent.are_new([second, first])
    assert not recent.are_new([first, second, first])
    recent.take([second])
    assert not recent.are_new([first, second])


@given(st.lists(st.tuples(st.floats(-100.0, 100.0), st.floats(-90.0, 90.0)), max_size=40))
def test_nothing_that_was_taken_is_ever_new(steps: list[tuple[float, float]]) -> None:
    recent, wall, taken = RecentIds(NOW), NOW, []
    for number, (passed, ahead) in enumerate(steps):
        wall += passed  # the clock may be set back
        recent.advance(wall)
        taken.append(made_at(wall + ahead, number))
        recent.take(taken[-1:])
        assert not any(map(recent.is_new, taken))
        assert len(recent._taken) <= len(taken)

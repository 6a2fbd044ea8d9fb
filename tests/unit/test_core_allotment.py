"""Bytes for holders of whom nobody knows how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from poolmgr.core.allotment import Allotment, first_of, that_fit, weight


class Thing(NamedTuple):
    payload: bytes


def _things(*sizes: int) -> list[Thing]:
    return [Thing(bytes(size)) for size in sizes]


@pytest.mark.parametrize(("holders", "each"), [(1, 300), (2, 200), (5, 100)])
def test_each_has_half_of_what_the_others_leave(holders: int, each: int) -> None:
    allotment = Allotment(600)
    allotment.held = holders * each
    assert allotment.share(each) == each


def test_however_many_come_together_they_stay_below_the_whole() -> None:
    allotment = Allotment(1000)
    for _ in range(50):
        allotment.held += allotment.share(0)
    assert 900 < allotment.held <= 1000


def test_where_more_is_held_than_there_is_nothing_is_left() -> None:
    allotment = Allotment(100)
    allotment.held = 250
    assert allotment.share(0) == 0
    assert allotment.share(50) == 0
    assert allotment.share(200) == 25


def test_the_first_of_many_end_with_the_one_that_makes_the_weight() -> None:
    things = _things(3, 3, 3, 3)
    assert first_of(things, 10, 6) == things[:2]
    assert first_of(things, 10, 5) == things[:2]
    assert first_of(things, 1, 100) == things[:1]
    assert first_of(things, 10, 0) == things[:1]
    assert first_of([], 10, 10) == []


def test_no_more_is_taken_than_comes_of_it() -> None:
    def each() -> Iterator[Thing]:
        yield from _things(2, 2)
        raise AssertionError("one too many")

    assert len(first_of(each(), 10, 4)) == 2


def test_those_that_fit_do_not_exceed_it_but_for_a_single_one() -> None:
    things = _things(3, 3, 3)
    assert that_fit(things, 10, 6) == things[:2]
    assert that_fit(things, 10, 8) == things[:2]
    assert that_fit(things, 10, 2) == things[:1]
    assert that_fit([], 10, 2) == []
    assert weight(things) == 9

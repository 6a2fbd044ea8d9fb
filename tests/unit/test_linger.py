"""When a commit waits for its companion, and for how long."""

from __future__ import annotations

import pytest

from poolmgr.store.linger import MOST_S, Linger


def test_at_first_nothing_waits() -> None:
    assert Linger().wait_s == 0.0


def test_a_companion_that_came_soon_is_waited_for() -> None:
    linger = Linger()
    linger.did_not_wait(took_s=0.004, next_after_s=0.0002)
    assert linger.wait_s == pytest.approx(0.0004)
    linger.waited(companion=True)
    assert linger.wait_s == pytest.approx(0.0004)


@pytest.mark.parametrize("next_after_s", [None, 0.004, 0.0021])
def test_one_that_did_not_come_within_half_of_the_commit_is_not(next_after_s: float | None) -> None:
    linger = Linger()
    linger.did_not_wait(took_s=0.004, next_after_s=0.0002)
    linger.did_not_wait(took_s=0.004, next_after_s=next_after_s)
    assert linger.wait_s == 0.0


def test_one_that_stays_away_is_waited_for_once() -> None:
    linger = Linger()
    linger.did_not_wait(took_s=0.004, next_after_s=0.0002)
    linger.waited(companion=False)
    assert linger.wait_s == 0.0


def test_what_was_handed_over_before_the_commit_began_is_no_reason_to_wait() -> None:
    linger = Linger()
    linger.did_not_wait(took_s=0.004, next_after_s=-0.0001)
    assert linger.wait_s == 0.0


def test_however_slow_the_disk_nothing_waits_long() -> None:
    linger = Linger()
    linger.did_not_wait(took_s=1.0, next_after_s=0.2)
    assert linger.wait_s == MOST_S

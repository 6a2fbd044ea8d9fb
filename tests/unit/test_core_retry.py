"""Whether a failed attempt is tried again, and after how long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolmgr.core.retry import ExponentialBackoff, is_retried
from poolmgr.model import TaskOptions

ALL = ("ValueError", "Exception")


@pytest.mark.parametrize(("failures", "delay_s"), [(1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (6, 30.0), (5000, 30.0)])
def test_the_backoff_doubles_up_to_its_cap(failures: int, delay_s: float) -> None:
    assert ExponentialBackoff(lambda: 0.0).delay_s(TaskOptions(), failures) == delay_s


def test_the_backoff_is_the_tasks_own() -> None:
    options = TaskOptions(retry_backoff_s=0.5, max_backoff_s=1.5)
    policy = ExponentialBackoff(lambda: 0.0, "none")
    assert [policy.delay_s(options, failures) for failures in (1, 2, 3, 4)] == [0.5, 1.0, 1.5, 1.5]


def test_no_backoff_is_no_delay() -> None:
    assert ExponentialBackoff(lambda: 0.9).delay_s(TaskOptions(retry_backoff_s=0.0), 3) == 0.0


@pytest.mark.parametrize(
    ("jitter", "random", "delay_s"),
    [("none", 0.5, 4.0), ("ten-percent", 0.0, 4.0), ("ten-percent", 0.5, 4.2), ("full", 0.5, 2.0), ("full", 0.0, 0.0)],
)
def test_jitter(jitter: str, random: float, delay_s: float) -> None:
    assert ExponentialBackoff(lambda: random, jitter).delay_s(TaskOptions(), 3) == pytest.approx(delay_s)


@settings(max_examples=50)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 100), st.floats(0, 100), st.floats(0, 100))
def test_the_default_jitter_adds_at_most_a_tenth(random: float, failures: int, backoff_s: float, cap_s: float) -> None:
    options = TaskOptions(retry_backoff_s=backoff_s, max_backoff_s=cap_s)
    plain = ExponentialBackoff(lambda: 0.0, "none").delay_s(options, failures)
    assert plain <= cap_s
    assert plain <= ExponentialBackoff(lambda: random).delay_s(options, failures) <= plain * 1.1


@pytest.mark.parametrize(
    ("options", "failures", "types", "retried"),
    [
        ({}, 1, ALL, True),
        ({}, 3, ALL, True),
        ({}, 4, ALL, False),
        ({"max_retries": 0}, 1, ALL, False),
        ({"no_retry_on": frozenset({"ValueError"})}, 1, ALL, False),
        ({"no_retry_on": frozenset({"Exception"})}, 1, ALL, False),
        ({"no_retry_on": frozenset({"KeyError"})}, 1, ALL, True),
        ({"retry_on": frozenset({"ValueError"})}, 1, ALL, True),
        ({"retry_on": frozenset({"Exception"})}, 1, ALL, True),
        ({"retry_on": frozenset({"KeyError"})}, 1, ALL, False),
        ({"retry_on": frozenset()}, 1, ALL, False),
        ({"retry_on": frozenset({"Exception"}), "no_retry_on": frozenset({"ValueError"})}, 1, ALL, False),
        ({"retry_on": frozenset({"KeyError"})}, 1, (), True),
        ({"retry_on": frozenset({"KeyError"})}, 4, (), False),
    ],
)
def test_the_policy_per_exception(
    options: dict[str, Any], failures: int, types: tuple[str, ...], retried: bool
) -> None:
    assert is_retried(TaskOptions(**options), failures, types) is retried

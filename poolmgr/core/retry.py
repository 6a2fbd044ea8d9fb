"""Whether a failed attempt is tried again, and when.

``retry_backoff_s * 2**(n-1)`` before the n-th retry, capped at ``max_backoff_s``. Jitter spreads retries that failed
together: by default it adds at most a tenth, so that the back-off stays what was asked for; ``full`` draws from the
whole range (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from poolmgr.model import TaskOptions


class RetryPolicy(Protocol):
    """How long to wait before a retry."""

    def delay_s(self, options: TaskOptions, failures: int) -> float:
        """Seconds before the next attempt, after ``failures`` (at least 1) failed ones."""
        ...


class ExponentialBackoff:
    """The default policy. ``random`` gives floats in [0, 1); ``jitter`` is none, ten-percent or full."""

    def __init__(self, random: Callable[[], float], jitter: str = "ten-percent") -> None:
        self._random = random
        self._jitter = jitter

    def delay_s(self, options: TaskOptions, failures: int) -> float:
        delay = min(options.retry_backoff_s * 2.0 ** min(failures - 1, 64), options.max_backoff_s)
        if self._jitter == "full":
            return delay * self._random()
        if self._jitter == "ten-percent":
            return delay * (1.0 + 0.1 * self._random())
        return delay


def is_retried(options: TaskOptions, failures: int, types: Iterable[str]) -> bool:
    """Whether a task is tried again after its ``failures``-th failure with an exception of these ``types``.

    ``types`` are the names of the exception and its bases; none for a time-out or a death, to which the per-exception
    policy does not apply.
    """
    if failures > options.max_retries:
        return False
    names = list(types)
    if any(name in options.no_retry_on for name in names):
        return False
    return not names or options.retry_on is None or any(name in options.retry_on for name in names)

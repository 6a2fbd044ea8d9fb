"""Limits of a name, over all workers: starts in a span of time, runs at once, and being paused."""

from __future__ import annotations

from collections import deque

from poolmgr.model import TaskOptions


class NameLimits:
    """What holds the tasks of one name back. A submit that brings other limits for the name replaces them.

    The rate is a sliding log: the times of the last ``starts``. In no span of ``seconds`` are there more starts than
    that, wherever it begins; a token bucket would allow twice as many around its refill.
    """

    __slots__ = ("max_concurrency", "per_s", "running", "starts", "times")

    def __init__(self) -> None:
        self.starts = 0
        self.per_s = 0.0
        self.times: deque[float] = deque()
        self.max_concurrency = 0
        self.running = 0

    def update(self, options: TaskOptions) -> None:
        """Take over the limits that these options carry."""
        self.starts, self.per_s = options.rate_limit or (0, 0.0)
        self.max_concurrency = options.max_concurrency

    def rate_free_at(self, now: float) -> float:
        """When the next start is allowed: ``now`` or later."""
        times = self.times
        while times and times[0] <= now - self.per_s:
            times.popleft()
        if not self.starts or len(times) < self.starts:
            return now
        return times[len(times) - self.starts] + self.per_s

    @property
    def full(self) -> bool:
        """No more may run at once."""
        return bool(self.max_concurrency) and self.running >= self.max_concurrency

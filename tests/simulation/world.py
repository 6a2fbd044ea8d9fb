"""Virtual time: one clock, one heap of what is to happen, one source of chance."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any


class World:
    """Where a simulation takes place. ``now`` is boot time, in seconds; it moves from one happening to the next."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 1_000.0
        self.wall_offset = 1_700_000_000.0  # wall time less boot time
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Let ``action(*arguments)`` happen at ``when``, after what was arranged for that time before."""
        self._count += 1
        heappush(self._heap, (max(when, self.now), self._count, action, arguments))

    def after(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Let ``action(*arguments)`` happen in ``delay_s``."""
        self.at(self.now + delay_s, action, *arguments)

    def step(self) -> bool:
        """Let the next thing happen; False if nothing will."""
        if not self._heap:
            return False
        self.now, _, action, arguments = heappop(self._heap)
        action(*arguments)
        return True

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random.random() < probability

    def between(self, low: float, high: float) -> float:
        """A number in this range: near its lower end more often than not."""
        return low + (high - low) * self.random.random() ** 2

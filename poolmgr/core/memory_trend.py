"""Whether what a worker holds at rest grows from task to task, and will pass its limit soon.

A worker that takes more with its first tasks (a cache, a model) and then no more is left alone; so is one that takes
much while it works and gives it back. What is looked at is what it holds between two tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, pairwise
from typing import Final

POINTS: Final = 12  # kept, at most
_FEW: Final = 3  # with so many, two steps up in a row are believed, if the next such step goes too far
_MANY: Final = 8  # ... and with so many, the median of all slopes: one step alone does not move that
_SHARE: Final = 0.9  # of the limit: a task takes something itself, which is gone when it has ended
_LEVEL: Final = 0.5  # of the limit: below that nothing is hurried
_LEAST: Final = 0.002  # of the limit: a growth that is less is noise,
_STEP: Final = 0.05  # and so are two steps alone that are less
_AHEAD: Final = 2  # points


class MemoryTrend:
    """Of one worker process. However long it lives, it keeps a few points of its whole life, and the latest: what grows
    slowly is seen only from afar."""

    __slots__ = ("_points", "_since", "_stride")

    def __init__(self) -> None:
        self._points: list[tuple[int, float]] = []
        self._stride = 1  # figures a point
        self._since = 0  # figures since the last point but one

    def add(self, executed: int, used_mb: float) -> None:
        """What it holds at rest after so many tasks. Of two figures after the same task the later one counts."""
        points, latest = self._points, (executed, used_mb)
        if points and points[-1][0] == executed:
            points[-1] = latest
        elif len(points) > 1 and self._since < self._stride:
            points[-1] = latest
            self._since += 1
        else:
            points.append(latest)
            self._since = 1
        if len(points) > POINTS:
            del points[1::2]
            self._stride *= 2

    def crosses(self, limit_mb: float) -> bool:
        """Whether it is going to hold nearly ``limit_mb`` soon, and more after that."""
        points = self._points
        if len(points) < _FEW or points[-1][1] < _LEVEL * limit_mb:
            return False
        used_mb = points[-1][1]
        steps = [after - before for (_, before), (_, after) in pairwise(points)]
        step_mb = min(steps[-2:])
        if step_mb >= _STEP * limit_mb and _goes_too_far(used_mb, step_mb, limit_mb):
            return True
        if len(points) < _MANY:
            return False
        # The slope of Theil (1950) and Sen (1968): nearly a third of the points may be anything.
        slope = _median((y - x) / (n - m) for (m, x), (n, y) in combinations(points, 2))
        return _goes_too_far(used_mb, slope * _AHEAD * (points[-1][0] - points[0][0]) / (len(points) - 1), limit_mb)


def _goes_too_far(used_mb: float, growth_mb: float, limit_mb: float) -> bool:
    return growth_mb >= _LEAST * limit_mb and used_mb + growth_mb > _SHARE * limit_mb


def _median(values: Iterable[float]) -> float:
    """As ``statistics.median``, whose import takes 2.5 ms of a start and 0.4 MB of the daemon."""
    found = sorted(values)
    middle = len(found) // 2
    return found[middle] if len(found) % 2 else (found[middle - 1] + found[middle]) / 2

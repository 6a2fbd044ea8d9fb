"""The arithmetic: pairs of runs, their ratios, medians and spreads. Pure, and tested in milliseconds.

Machines drift: another program starts, the disk is busy, the clock changes. So a peer and poolmgr take turns, and a
ratio is that of two runs that stood beside each other. What is told is the median of the ratios, which is not the ratio
of the medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Spread(NamedTuple):
    """The middle and both ends of some values."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Raises ``ValueError`` where there are none."""
    if not values:
        raise ValueError("a spread of no values")
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Pair:
    """A run of a peer, and the run of poolmgr beside it."""

    theirs: float
    ours: float

    def ratio(self, *, more_is_better: bool) -> float:
        """How many times as good poolmgr is: above 1 it is better, whichever way better is."""
        over, under = (self.ours, self.theirs) if more_is_better else (self.theirs, self.ours)
        return over / under if under else float("inf")


def ratios(pairs: Sequence[Pair], *, more_is_better: bool) -> Spread:
    """The spread of the pairs' ratios."""
    return spread([pair.ratio(more_is_better=more_is_better) for pair in pairs])


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many per cent of all values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("a percentile of no values")
    ranked = sorted(values)
    return ranked[max(0, -int(-len(ranked) * percent // 100) - 1)]


def tasks_for(seconds: float, *, tried: int, took_s: float, most: int) -> int:
    """How many tasks take about so long, by a first try; at least as many as were tried, and not more than ``most``."""
    return max(min(tried, most), min(most, int(tried / max(took_s, 1e-6) * seconds)))

"""What was found: of each figure of each axis, the runs at each point, in rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.growth.axes import Axis
from benchmarks.growth.daemon import Sample
from benchmarks.pairs import Spread, spread
from benchmarks.scenarios import Figure

FLAT: Final = 1.25  # times: what grows less is within what the machine's noise makes of nothing


@dataclass
class Row:
    """One figure, as something grows.

    Attributes:
        points: those that were reached, in order.
        runs: of each round, the value at each point.
    """

    axis: Axis
    figure: Figure
    points: list[int] = field(default_factory=list)
    runs: list[list[float]] = field(default_factory=list)

    @property
    def is_cost(self) -> bool:
        """Whether it is processor time: that is promised not to grow."""
        return self.figure.key.startswith("CPU")

    def at(self, place: int) -> Spread:
        """The runs at one point."""
        return spread([each[place] for each in self.runs])

    def growth(self, place: int) -> Spread:
        """How many times the value at the first point: of rounds, as both stand beside each other there."""
        return spread([each[place] / each[0] for each in self.runs])

    def as_json(self) -> dict[str, Any]:
        """All of it, the runs themselves included."""
        return {
            "axis": self.axis.name,
            "text": self.axis.text,
            "what grows": self.axis.unit,
            "figure": self.figure.key,
            "unit": self.figure.unit,
            "more_is_better": self.figure.more_is_better,
            "points": self.points,
            "runs": self.runs,
        }


def rows_of(axis: Axis, points: Sequence[int], rounds: Sequence[Sequence[Sample]]) -> list[Row]:
    """One for each figure; ``rounds`` has a sample for each point, again and again."""
    return [
        Row(axis, figure, list(points), [[sample[figure.key] for sample in each] for each in rounds])
        for figure in axis.figures
    ]


def most_growth(row: Row) -> float:
    """The median growth at the point where that is the most."""
    return max((row.growth(place).median for place in range(1, len(row.points))), default=1.0)

"""What was found: one row for each figure and peer, with poolmgr's runs beside the peer's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.pairs import Pair, Spread, ratios, spread
from benchmarks.peer import COMPILED, OURS
from benchmarks.scenarios import ABOVE_FDATASYNC_US, Figure, Kind, Scenario


@dataclass
class Row:
    """A figure of one peer, and of poolmgr beside it.

    Attributes:
        pairs: none where it failed, or cannot.
        fdatasync_us: what a sync took before each pair, where what is measured is durable.
        failed: why there are no pairs, or fewer than planned.
    """

    scenario: Scenario
    figure: Figure
    peer: str
    pairs: list[Pair] = field(default_factory=list)
    fdatasync_us: list[float] = field(default_factory=list)
    failed: str = ""

    @property
    def durable(self) -> bool:
        return self.scenario.kind is Kind.DURABLE

    @property
    def title(self) -> str:
        return f"{self.scenario.name}: {self.figure.key}"

    @property
    def theirs(self) -> Spread:
        return spread([pair.theirs for pair in self.pairs])

    @property
    def ours(self) -> Spread:
        return spread([pair.ours for pair in self.pairs])

    @property
    def ratios(self) -> Spread:
        """How many times as good poolmgr is."""
        return ratios(self.pairs, more_is_better=self.figure.more_is_better)

    def as_json(self) -> dict[str, Any]:
        """All of it, the runs themselves included."""
        found: dict[str, Any] = {
            "scenario": self.scenario.name,
            "figure": self.figure.key,
            "unit": self.figure.unit,
            "more_is_better": self.figure.more_is_better,
            "durable": self.durable,
            "peer": self.peer,
            "theirs": [pair.theirs for pair in self.pairs],
            "poolmgr": [pair.ours for pair in self.pairs],
            "fdatasync_us": self.fdatasync_us,
            "failed": self.failed,
        }
        if self.pairs:
            found["ratio"] = self.ratios._asdict()
        return found


class Reached(NamedTuple):
    """What poolmgr reached in one figure, over the pairs with all peers.

    Attributes:
        compiled: the same of the compiled build, where that ran. It is no peer, and what holds does so without it.
        ratio: the pairs with the best peer: the one against which poolmgr looks worst.
        within: whether every aim holds; None where there is none, or nobody to compare with.
    """

    row: Row
    ours: Spread
    compiled: Spread | None
    runs: int
    best: str
    ratio: Spread | None
    aim: str
    within: bool | None


def reached(rows: Sequence[Row]) -> list[Reached]:
    """One for each figure that was measured, in the order of the rows."""
    by_title: dict[str, list[Row]] = {}
    for row in rows:
        if row.pairs:
            by_title.setdefault(row.title, []).append(row)
    return [_reached(each) for each in by_title.values()]


def _reached(rows: Sequence[Row]) -> Reached:
    figure = rows[0].figure
    runs = [pair.ours for row in rows for pair in row.pairs]
    ours = spread(runs)
    compiled = next((row.theirs for row in rows if row.peer == COMPILED), None)
    peers = [row for row in rows if row.peer not in (OURS, COMPILED)]
    best = min(peers, key=lambda row: row.ratios.median, default=None)
    aims, held = [], []
    aim = figure.aim
    if rows[0].durable and figure.key == "p50":
        aim = statistics.median(each for row in rows for each in row.fdatasync_us) + ABOVE_FDATASYNC_US
    if aim is not None:
        aims.append(f"{'>=' if figure.more_is_better else '<='} {number(aim)} {figure.unit}")
        held.append(ours.median >= aim if figure.more_is_better else ours.median <= aim)
    if figure.aim_ratio is not None and best is not None:
        aims.append(f"{number(figure.aim_ratio)}x the best peer")
        held.append(best.ratios.median >= figure.aim_ratio)
    return Reached(
        rows[0],
        ours,
        compiled,
        len(runs),
        best.peer if best else "",
        best.ratios if best else None,
        ", ".join(aims),
        all(held) if held else None,
    )


def told(row: Row) -> str:
    """A row in a line."""
    line = f"{row.title:<24} {row.peer:<16}"
    if not row.pairs:
        return f"{line} {row.failed}"
    ratio = row.ratios
    line += f" {number(row.theirs.median):>10} {row.figure.unit:<8} poolmgr {number(row.ours.median):>10}"
    line += f"   {number(ratio.median)} times as good ({number(ratio.least)} to {number(ratio.most)})"
    return f"{line}   {row.failed}".rstrip()


def number(value: float) -> str:
    """With three digits that count, at least."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def shown(values: Spread) -> str:
    """As it is shown in tables."""
    return f"{number(values.median)} ({number(values.least)} to {number(values.most)})"

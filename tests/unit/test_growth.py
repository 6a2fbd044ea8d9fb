"""How the growth of cost is told. What runs is tests/integration/test_benchmarks.py's matter."""

from __future__ import annotations

import pytest

from benchmarks.growth.axes import AXES, NAMES
from benchmarks.growth.report import Report, told
from benchmarks.growth.rows import Row, most_growth, rows_of
from benchmarks.pairs import Spread
from benchmarks.scenarios import Figure

AXIS = next(axis for axis in AXES if axis.name == "active-clients")
CPU, RATE = AXIS.figures


def row(figure: Figure, *rounds: tuple[float, ...]) -> Row:
    points = AXIS.points[: len(rounds[0])]
    return rows_of(AXIS, points, [[{CPU.key: each, RATE.key: each} for each in values] for values in rounds])[
        AXIS.figures.index(figure)
    ]


def test_growth_is_told_by_rounds_and_not_by_medians() -> None:
    drifting = row(CPU, (1, 2), (10, 20), (100, 150))
    assert drifting.growth(1) == Spread(2, 1.5, 2)
    assert drifting.at(0) == Spread(10, 1, 100)


def test_the_most_growth_may_be_in_the_middle() -> None:
    assert most_growth(row(CPU, (10, 40, 20))) == 4
    assert most_growth(row(CPU, (10,))) == 1


@pytest.mark.parametrize(("last", "verdict"), [(12.4, "flat"), (12.6, "grows")])
def test_a_cost_that_grows_is_told_and_throughput_is_not_judged(last: float, verdict: str) -> None:
    report = Report("today", {"processors": "2"})
    report.rows = [row(CPU, (10, last)), row(RATE, (10, 1000))]
    lines = report.table().splitlines()
    first = next(line for line in lines if line.startswith("| active-clients | 1 | 10 | CPU of a task "))
    assert first.endswith(f"| {verdict} |")
    assert next(line for line in lines if line.startswith("| active-clients | 1 | 10 | calls ")).endswith("|  |")
    assert any(line.startswith("| 10 | ") for line in lines)
    assert told(report.rows[1]).endswith("growth 100")


def test_what_failed_is_in_the_table() -> None:
    report = Report("today", {})
    report.failed["line"] = "TimeoutError: it hung"
    assert "- line: TimeoutError: it hung" in report.table()
    assert report.as_json()["failed"] == report.failed


def test_every_axis_has_a_name_of_its_own_and_grows() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for axis in AXES:
        assert list(axis.points) == sorted(axis.points)
        assert any(figure.key.startswith("CPU") for figure in axis.figures)

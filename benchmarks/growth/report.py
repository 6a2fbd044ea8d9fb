"""Writes what was found: all of it as JSON, the medians as tables in Markdown, and, where matplotlib is, a plot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.growth.rows import FLAT, Row, most_growth
from benchmarks.markdown import heading, lines_of
from benchmarks.peer import PEERS_PYTHON, ROOT
from benchmarks.rows import number, shown

JSON: Final = "growth.json"
TABLE: Final = "growth.md"
PLOT: Final = "growth.svg"


class Report:
    """What a run has found so far. It may be written again and again, as it grows.

    Attributes:
        settings: how it was called, and where: in words.
        rows: what was found.
        failed: of axes that could not be measured, or not all of it, the reason.
    """

    def __init__(self, began: str, settings: Mapping[str, str]) -> None:
        self.began = began
        self.settings = dict(settings)
        self.rows: list[Row] = []
        self.failed: dict[str, str] = {}

    def write(self, directory: Path) -> list[Path]:
        """Write JSON and tables there; the files that were written."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / JSON).write_text(json.dumps(self.as_json(), indent=1) + "\n")
        (directory / TABLE).write_text(self.table())
        return [directory / JSON, directory / TABLE]

    def draw(self, directory: Path) -> list[Path]:
        """Draw what was written, with the Python that has matplotlib."""
        python = str(PEERS_PYTHON if PEERS_PYTHON.exists() else sys.executable)
        files = [str(directory / JSON), str(directory / PLOT)]
        done = subprocess.run([python, "-m", "benchmarks.growth.plot", *files], cwd=ROOT, check=False)
        return [directory / PLOT] if done.returncode == 0 and (directory / PLOT).exists() else []

    def as_json(self) -> dict[str, Any]:
        """Every single run."""
        return {
            "began": self.began,
            "settings": self.settings,
            "failed": self.failed,
            "rows": [row.as_json() for row in self.rows],
        }

    def table(self) -> str:
        """The whole report, in Markdown."""
        return "\n".join(self._sections()) + "\n"

    def _sections(self) -> Iterator[str]:
        yield f"# How cost grows: benchmark of {self.began}"
        yield ""
        yield ", ".join(f"{name} {value}" for name, value in self.settings.items()) + "."
        yield ""
        yield from (
            "CPU is processor time of the daemon's process, user and system, without its workers and clients.",
            "Medians, with the least and the most of all runs. Growth is how many times the value at the first point",
            f"it is, the median of rounds in which all points took turns. What grows less than {FLAT} times is flat.",
        )
        yield from heading("All at a glance")
        columns: tuple[str, ...] = (
            "what grows",
            "from",
            "to",
            "figure",
            "unit",
            "at first",
            "at last",
            "growth at most",
            "",
        )
        yield from lines_of(columns, [_glance(row) for row in self.rows])
        for name in dict.fromkeys(row.axis.name for row in self.rows):
            rows = [row for row in self.rows if row.axis.name == name]
            yield from heading(name)
            yield f"{rows[0].axis.text[0].upper()}{rows[0].axis.text[1:]}."
            yield ""
            columns = (rows[0].axis.unit, *(f"{row.figure.key}, {row.figure.unit}" for row in rows))
            yield from lines_of(columns, list(_points(rows)))
        if self.failed:
            yield from heading("What failed")
            yield from (f"- {name}: {why}" for name, why in self.failed.items())


def _glance(row: Row) -> tuple[str, ...]:
    growth = most_growth(row)
    verdict = ("flat" if growth < FLAT else "grows") if row.is_cost else ""
    first, last = row.points[0], row.points[-1]
    return (
        row.axis.name, f"{first:,}", f"{last:,}", row.figure.key, row.figure.unit, number(row.at(0).median),
        number(row.at(len(row.points) - 1).median), number(growth), verdict,
    )  # fmt: skip


def _points(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    for place, point in enumerate(rows[0].points):
        yield (f"{point:,}", *(shown(row.at(place)) for row in rows))


def told(row: Row) -> str:
    """A row in a line."""
    values = " ".join(f"{number(row.at(place).median):>9}" for place in range(len(row.points)))
    return f"{row.axis.name:<16} {row.figure.key:<26} {row.figure.unit:<8} {values}   growth {number(most_growth(row))}"

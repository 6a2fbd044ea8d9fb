"""Writes what was found: all of it as JSON, the medians as a table in Markdown, and, where matplotlib is, a plot."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.limits import Limit
from benchmarks.markdown import heading, in_a_line, lines_of
from benchmarks.peer import OURS, PEERS_PYTHON, ROOT
from benchmarks.rows import Reached, Row, number, reached, shown

JSON: Final = "results.json"
TABLE: Final = "results.md"
PLOT: Final = "results.svg"


@dataclass(frozen=True)
class Run:
    """One run of the driver.

    Attributes:
        settings: how it was called, and where: in words.
        missing: peers that were left out, with the reason.
    """

    began: str
    settings: Mapping[str, str]
    limits: Sequence[Limit]
    about: Mapping[str, str]
    missing: Mapping[str, str]
    rows: Sequence[Row]


def machine() -> dict[str, str]:
    """What the figures depend on."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return {
        "processors": str(os.cpu_count()),
        "Python": platform.python_version(),
        "kernel": platform.release(),
        "load average before": load,
    }


def write(run: Run, directory: Path) -> list[Path]:
    """Write all that there is so far as JSON and tables; the files that were written."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / JSON).write_text(json.dumps(as_json(run), indent=1) + "\n")
    (directory / TABLE).write_text(table(run))
    return [directory / JSON, directory / TABLE]


def draw(directory: Path) -> list[Path]:
    """Draw what was written, with the Python that has matplotlib: the peers', as poolmgr itself has no use for it."""
    python = str(PEERS_PYTHON if PEERS_PYTHON.exists() else sys.executable)
    files = [str(directory / JSON), str(directory / PLOT)]
    done = subprocess.run([python, "-m", "benchmarks.plot", *files], cwd=ROOT, check=False)
    return [directory / PLOT] if done.returncode == 0 and (directory / PLOT).exists() else []


def as_json(run: Run) -> dict[str, object]:
    """Every single run, and all that a reader needs to judge it."""
    return {
        "began": run.began,
        "settings": dict(run.settings),
        "limits": [each._asdict() for each in run.limits],
        "about": dict(run.about),
        "missing": dict(run.missing),
        "rows": [row.as_json() for row in run.rows],
    }


def table(run: Run) -> str:
    """The whole report, in Markdown."""
    return "\n".join(_sections(run)) + "\n"


def _sections(run: Run) -> Iterator[str]:
    yield f"# Benchmark of {run.began}"
    yield ""
    yield ", ".join(f"{name} {value}" for name, value in run.settings.items()) + "."
    yield ""
    yield "Medians, with the least and the most of all runs. A ratio is that of two runs that stood beside each other,"
    yield "a peer's and poolmgr's; above 1 poolmgr is better, whatever is measured."
    yield from heading("What the machine can do")
    yield from lines_of(("limit", "", ""), [(each.name, number(each.value), each.unit) for each in run.limits])
    yield from heading("What poolmgr reached")
    figures = ("figure", "durable", "poolmgr", "compiled", "unit", "runs", "best peer", "times as good", "aim", "")
    yield from lines_of(figures, [_reached_cells(each) for each in reached(run.rows)])
    for name in dict.fromkeys(row.scenario.name for row in run.rows):
        rows = [row for row in run.rows if row.scenario.name == name]
        yield from heading(name)
        yield f"{rows[0].scenario.text[0].upper()}{rows[0].scenario.text[1:]}."
        yield ""
        columns = ("peer", "figure", "durable", "peer's", "poolmgr's", "unit", "times as good", "pairs", "")
        yield from lines_of(columns, [_row_cells(row) for row in rows])
    yield from heading("Who ran, and how")
    yield from (f"- {name}: {about}" for name, about in sorted(run.about.items(), key=lambda each: each[0] != OURS))
    yield from (f"- {name}: left out: {in_a_line(why)}" for name, why in run.missing.items())


def _durable(row: Row) -> str:
    return f"yes; {_sync(row)}" if row.durable and row.fdatasync_us else "yes" if row.durable else "no"


def _sync(row: Row) -> str:
    return f"a sync took {number(sorted(row.fdatasync_us)[len(row.fdatasync_us) // 2])} us"


def _reached_cells(each: Reached) -> tuple[str, ...]:
    verdict = {True: "reached", False: "short", None: ""}[each.within]
    ratio = shown(each.ratio) if each.ratio else ""
    row, compiled = each.row, shown(each.compiled) if each.compiled else ""
    return (
        row.title, _durable(row), shown(each.ours), compiled, row.figure.unit, str(each.runs), each.best, ratio,
        each.aim, verdict,
    )  # fmt: skip


def _row_cells(row: Row) -> tuple[str, ...]:
    if not row.pairs:
        return (row.peer, row.figure.key, _durable(row), "", "", row.figure.unit, "", "0", row.failed)
    return (
        row.peer, row.figure.key, _durable(row), shown(row.theirs), shown(row.ours), row.figure.unit,
        shown(row.ratios), str(len(row.pairs)), row.failed,
    )  # fmt: skip

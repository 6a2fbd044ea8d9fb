"""Draws how cost grows: ``python -m benchmarks.growth.plot GROWTH.json PLOT.svg``, by a Python that has matplotlib.

A line of panels for each thing of which there is more and more: processor time, throughput, latency. Each has the
median of its runs, and a band from the least to the most. Scales begin at zero, so that what is flat looks flat.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c")
_PANEL_INCHES: Final = (3.5, 2.4)
_KINDS: Final[tuple[tuple[str, Callable[[str], bool]], ...]] = (  # the columns, and which figures are in them
    ("daemon's CPU a task", lambda figure: figure.startswith("CPU") and "by itself" not in figure),
    ("daemon's CPU a call", lambda figure: figure.startswith("CPU") and "by itself" in figure),
    ("throughput", lambda figure: not figure.startswith("CPU") and "p50" not in figure),
    ("latency", lambda figure: not figure.startswith("CPU") and "p50" in figure),
)


def draw(found: dict[str, Any], file: Path) -> None:
    """Raises ``ImportError`` where there is no matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row["axis"] for row in found["rows"]))
    if not names:
        return
    columns, (wide, high) = len(_KINDS), _PANEL_INCHES
    figure, axes = plt.subplots(len(names), columns, figsize=(columns * wide, len(names) * high + 0.5), squeeze=False)
    for name, line in zip(names, axes, strict=True):
        rows = [row for row in found["rows"] if row["axis"] == name]
        for axis, (kind, belongs) in zip(line, _KINDS, strict=True):
            _draw_panel(axis, kind, [row for row in rows if belongs(row["figure"])])
        line[0].set_title(f"{name}: {rows[0]['text']}", fontsize=9, loc="left", fontweight="bold")
    figure.suptitle(f"poolmgr: how cost grows, {found['began']}", fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    figure.savefig(file, dpi=80)


def _draw_panel(axis: Any, kind: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        axis.set_visible(False)
        return
    for row, colour in zip(rows, _COLOURS, strict=False):
        places = range(len(row["points"]))
        by_point = list(zip(*row["runs"], strict=True))
        axis.plot(places, [statistics.median(runs) for runs in by_point], "o-", ms=4, color=colour, label=row["figure"])
        axis.fill_between(places, list(map(min, by_point)), list(map(max, by_point)), color=colour, alpha=0.15)
    axis.set_xticks(list(range(len(rows[0]["points"]))), [_short(point) for point in rows[0]["points"]])
    axis.set_ylim(bottom=0, top=1.15 * axis.get_ylim()[1])
    axis.set_xlabel(rows[0]["what grows"], fontsize=8, labelpad=1)
    axis.set_ylabel(f"{kind}, {rows[0]['unit']}", fontsize=7)
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=7, loc="lower left", framealpha=0.6)


def _short(point: int) -> str:
    if point >= 1_000_000:
        return f"{point // 1_000_000}M"
    return f"{point // 1000}k" if point >= 1000 else str(point)


if __name__ == "__main__":
    try:
        draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
    except ImportError as error:
        sys.exit(f"no plot: {error}")

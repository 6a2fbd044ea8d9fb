"""Draws what was found: ``python -m benchmarks.plot RESULTS.json PLOT.svg``, by a Python that has matplotlib.

One panel a figure, one bar a peer: the median, with a line from the least to the most. The scale begins at
zero, unless the peers are so far apart that it has to be logarithmic.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.rows import number

_COLUMNS: Final = 2
_COLOURS: Final = {"poolmgr": "#1f77b4", "compiled": "#7fb2d9"}
_PEER: Final = "#b8b8b8"
_LINE: Final = "#404040"
_BAR_INCHES: Final = 0.26
_WIDTH_INCHES: Final = 12.0
_FAR_APART: Final = 20  # bars that can no longer be told apart from zero on a common scale


def draw(found: dict[str, Any], file: Path) -> None:
    """Raises ``ImportError`` where there is no matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [(title, bars) for title, bars in _panels(found["rows"]).items() if bars]
    if not panels:
        return
    lines = -(-len(panels) // _COLUMNS)
    height = lines * (max(len(bars) for _, bars in panels) * _BAR_INCHES + 1.0)
    figure, axes = plt.subplots(lines, _COLUMNS, figsize=(_WIDTH_INCHES, height), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, bars) in zip(axes.flat, panels, strict=False):
        _draw_panel(axis, title, bars)
    figure.suptitle(f"poolmgr and its peers, {found['began']}")
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    figure.savefig(file)


def _panels(rows: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """The runs by panel and bar; poolmgr's are those of its pairs with all peers."""
    panels: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        better = "more is better" if row["more_is_better"] else "less is better"
        durable = ", durable" if row["durable"] else ""
        bars = panels.setdefault(f"{row['scenario']}: {row['figure']}, {row['unit']}{durable} ({better})", {})
        if row["theirs"]:
            bars.setdefault("poolmgr", []).extend(row["poolmgr"])
            bars.setdefault(row["peer"], []).extend(row["theirs"])
    return panels


def _draw_panel(axis: Any, title: str, bars: dict[str, list[float]]) -> None:
    names = list(bars)
    medians = [statistics.median(bars[name]) for name in names]
    ends = [
        [median - min(bars[name]) for name, median in zip(names, medians, strict=True)],
        [max(bars[name]) - median for name, median in zip(names, medians, strict=True)],
    ]
    colours = [_COLOURS.get(name, _PEER) for name in names]
    axis.barh(names, medians, xerr=ends, color=colours, ecolor=_LINE, capsize=2)
    if max(medians) > _FAR_APART * min(medians):
        axis.set_xscale("log")
    axis.invert_yaxis()
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=8)
    for place, median in enumerate(medians):
        axis.annotate(f" {number(median)}", (median, place), fontsize=7, va="bottom")


if __name__ == "__main__":
    try:
        draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
    except ImportError as error:
        sys.exit(f"no plot: {error}")

"""Tables and headings in Markdown, as lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_CELL: int = 200  # characters


def heading(text: str) -> list[str]:
    """With the empty lines around it."""
    return ["", f"## {text}", ""]


def lines_of(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table."""
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(in_a_line(cell) for cell in row)} |"


def in_a_line(text: str) -> str:
    """What fits into a cell, whatever it is."""
    return " ".join(text.replace("|", "/").split())[:_CELL]

"""Plain-text tables and amounts, for a terminal 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

WIDTH: Final = 80
_GAP: Final = "  "
_LABEL: Final = 9  # columns of an entry's label


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "", flexible: str = "") -> str:
    """``rows`` under ``head``, each column as wide as its widest cell.

    Args:
        right: the names of the columns that are aligned right, separated by spaces.
        flexible: the name of the column that is cut where the whole would be wider than 80 columns.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    if flexible:
        index = head.index(flexible)
        spare = WIDTH - sum(widths) - len(_GAP) * (len(widths) - 1)
        widths[index] = max(widths[index] + min(spare, 0), len(flexible))
    aligned_right = [name in right.split() for name in head]
    return "\n".join(_line(row, widths, aligned_right) for row in [head, *cells])


def entry(label: str, parts: Iterable[str], *, separator: str = ", ") -> str:
    """``parts`` after a label, on as many lines of 80 columns as it takes. A longer part has a line of its own."""
    lines, current = [], label.ljust(_LABEL)
    for number, part in enumerate(parts):
        piece = printable(part)
        # A line that is not the last also ends with what shows of a separator.
        if number and len(current + separator + piece + separator.rstrip()) > WIDTH:
            lines.append(current + separator.rstrip())
            current = " " * _LABEL + piece
        else:
            current += (separator if number else "") + piece
    return "\n".join([*lines, current])


def printable(text: str) -> str:
    """``text`` on one line, without characters that a terminal would obey."""
    return visible(text.strip())


def visible(line: str) -> str:
    """``line`` with a blank for each character that a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in line)


def cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` columns; what is cut off is marked."""
    return text if len(text) <= width else text[: width - 1] + "…"


def duration(seconds: float) -> str:
    """A long time in its two largest units: ``42s``, ``3m 20s``, ``2h 5m``, ``12d 3h``."""
    whole = int(seconds)
    for unit, size, lesser, lesser_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // lesser_size}{lesser}"
    return f"{whole}s"


def span(seconds: float | None) -> str:
    """A short time to three digits: ``85.0 us``, ``1.20 ms``, ``2.50 s``; ``-`` for None."""
    if seconds is None:
        return "-"
    for unit, size in (("us", 1e-6), ("ms", 1e-3)):
        if seconds < size * 999.5:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds)} s"


def short(count: int) -> str:
    """A count in at most five columns: ``12345``, ``1.2M``."""
    for unit, size in (("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)):
        if count >= size * 100 or (unit != "k" and count >= size):
            return f"{count / size:.1f}{unit}" if count < size * 100 else f"{count // size}{unit}"
    return str(count)


def _three_digits(number: float) -> str:
    return f"{number:.{0 if number >= 99.95 else 1 if number >= 9.995 else 2}f}"


def _line(row: Sequence[str], widths: Sequence[int], aligned_right: Sequence[bool]) -> str:
    cells = (
        cut(cell, width).rjust(width) if to_right else cut(cell, width).ljust(width)
        for cell, width, to_right in zip(row, widths, aligned_right, strict=True)
    )
    return _GAP.join(cells).rstrip()

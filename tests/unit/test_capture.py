"""A worker's output, split into lines, each with the task that wrote it."""

from __future__ import annotations

import pytest

from poolmgr.manager.budget import Budget
from poolmgr.manager.capture import LINE_LIMIT, Capture
from poolmgr.manager.tail import Tail

Lines = list[tuple[int, str]]


def captured(*chunks: bytes, page: int = 0, end: bool = False) -> Lines:
    lines: Lines = []
    capture = Capture(lambda fence, text: lines.append((fence, text)), Budget(lambda: 0.0), Tail())
    for chunk in chunks:
        capture.feed(chunk, page)
    if end:
        capture.end()
    return lines


def test_lines_are_taken_as_they_become_whole() -> None:
    assert captured(b"one\ntw", b"o\r\n\nthree") == [(0, "one"), (0, "two"), (0, "")]


def test_the_end_lets_an_unfinished_line_go() -> None:
    assert captured(b"one\ntwo", end=True) == [(0, "one"), (0, "two")]
    assert captured(b"one\n", end=True) == [(0, "one")]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_a_mark_says_whose_the_next_lines_are(size: int) -> None:
    data = b"\x007\0a\nb\x000\0c\n\x0012\0d\n\x000\0"
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    assert captured(*chunks, page=99) == [(7, "a"), (7, "b"), (99, "c"), (12, "d")]


def test_without_a_mark_the_page_says_whose_it_is() -> None:
    assert captured(b"native\n", page=5) == [(5, "native")]


def test_a_marked_tasks_output_stays_its_own_when_the_page_has_moved_on() -> None:
    lines: Lines = []
    capture = Capture(lambda fence, text: lines.append((fence, text)), Budget(lambda: 0.0), Tail())
    capture.feed(b"\x007\0first\n", 7)
    capture.feed(b"second\n\x000\0", 8)
    capture.feed(b"native\n", 8)
    assert lines == [(7, "first"), (7, "second"), (8, "native")]


def test_nul_in_a_tasks_own_output_is_no_mark() -> None:
    assert captured(b"\x007\0a\0b\n\0", b"c\n", b"\x00123456789012345678901\0\n") == [
        (7, "a\\0b"),
        (7, "\\0c"),
        (7, "\\0123456789012345678901\\0"),
    ]


def test_a_stream_without_ends_of_lines_is_not_kept() -> None:
    for junk in (b"x", b"\0"):
        lines = captured(*[junk * 1000] * 100)
        assert sum(len(text.replace("\\0", "0")) for _, text in lines) > 100_000 - LINE_LIMIT - 1000


def test_a_long_line_is_told_in_pieces() -> None:
    assert captured(b"x" * (2 * LINE_LIMIT + 1) + b"\n") == [(0, "x" * LINE_LIMIT)] * 2 + [(0, "x")]


def test_what_is_no_utf8_is_shown() -> None:
    assert captured(b"\xff\xfe\n") == [(0, "\\xff\\xfe")]

"""A worker's stdout or stderr, line by line, each with the task that wrote it (worker/output.py sets the marks)."""

from __future__ import annotations

import re
from collections.abc import Callable

from poolmgr.manager.budget import Budget
from poolmgr.manager.tail import Tail

LINE_LIMIT = 16 * 1024  # bytes; a longer line is logged in pieces
_MARK = re.compile(rb"\0(\d{1,20})\0")
_HALF_A_MARK = re.compile(rb"\0\d{0,20}\Z")


class Capture:
    """Splits one stream. ``line(fence, text)`` is called for every line within the ``budget``, fence 0 is no task's;
    the ``tail`` gets everything."""

    def __init__(self, line: Callable[[int, str], None], budget: Budget, tail: Tail) -> None:
        self._line = line
        self._budget = budget
        self._tail = tail
        self._rest = b""  # an unfinished line
        self._half = b""  # an unfinished mark behind it
        self._marked = 0

    def feed(self, data: bytes, page_fence: int) -> None:
        """``data`` has been read while the worker's page showed ``page_fence``."""
        data = self._half + data
        self._half = b""
        if b"\0" not in data:
            self._take(data, page_fence)
            return
        text, *marks = _MARK.split(data)
        for at in range(0, len(marks), 2):
            self._take(text, page_fence)
            self._finish(page_fence)
            self._marked, text = int(marks[at]), marks[at + 1]
        half = _HALF_A_MARK.search(text)
        if half is not None:
            text, self._half = text[: half.start()], half[0]
        self._take(text, page_fence)

    def end(self) -> None:
        """The stream has ended: let an unfinished line go."""
        self._take(self._half, 0)
        self._half = b""
        self._finish(0)

    def _take(self, data: bytes, page_fence: int) -> None:
        if not data:
            return
        fence = self._marked or page_fence
        self._tail.add(fence, data)
        if self._budget.spent:
            self._skip(data)
            return
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for each in lines:
            self._tell(fence, each)
        if len(self._rest) > LINE_LIMIT:
            self._finish(page_fence)

    def _skip(self, data: bytes) -> None:
        """Nothing of it is logged: how many lines there were is enough."""
        ends = data.count(b"\n")
        self._budget.suppressed += ends
        self._rest = data.rpartition(b"\n")[2] if ends else self._rest + data
        if len(self._rest) > LINE_LIMIT:
            self._budget.suppressed += 1
            self._rest = b""

    def _finish(self, page_fence: int) -> None:
        """Nothing more of this line follows."""
        if self._rest:
            rest, self._rest = self._rest, b""
            self._tell(self._marked or page_fence, rest)

    def _tell(self, fence: int, line: bytes) -> None:
        for at in range(0, len(line) or 1, LINE_LIMIT):
            piece = line[at : at + LINE_LIMIT]
            if self._budget.spend(len(piece)):
                self._line(fence, _text(piece))


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace").replace("\0", "\\0").rstrip("\r")

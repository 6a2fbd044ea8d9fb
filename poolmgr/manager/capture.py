"""A worker's stdout or stderr, line by line, each with the task that wrote it (worker/output.py sets the marks)."""

from __future__ import annotations

import re
from collections.abc import Callable

LINE_LIMIT = 16 * 1024  # bytes; a longer line is logged in pieces
_MARK = re.compile(rb"\0(\d{1,20})\0")
_HALF_A_MARK = re.compile(rb"\0\d{0,20}\Z")


class Capture:
    """Splits one stream. ``line(fence, text)`` is called for every line; fence 0 is no task's."""

    def __init__(self, line: Callable[[int, str], None]) -> None:
        self._line = line
        self._rest = b""  # an unfinished line, or an unfinished mark behind it
        self._marked = 0

    def feed(self, data: bytes, page_fence: int) -> None:
        """``data`` has been read while the worker's page showed ``page_fence``."""
        data = self._rest + data
        if b"\0" not in data:
            self._take(data, page_fence)
            return
        text, *marks = _MARK.split(data)
        for at in range(0, len(marks), 2):
            self._take(text, page_fence, whole=True)
            self._marked, text = int(marks[at]), marks[at + 1]
        half = _HALF_A_MARK.search(text)
        if half is None:
            self._take(text, page_fence)
        else:
            self._take(text[: half.start()], page_fence)
            self._rest += half[0]

    def end(self) -> None:
        """The stream has ended: let an unfinished line go."""
        self._take(self._rest, 0, whole=True)

    def _take(self, data: bytes, page_fence: int, whole: bool = False) -> None:
        """``whole``: nothing more of this task follows, so that an unfinished line is finished."""
        lines = data.split(b"\n")
        self._rest = lines.pop()
        if self._rest and (whole or len(self._rest) > LINE_LIMIT):
            lines.append(self._rest)
            self._rest = b""
        fence = self._marked or page_fence
        for each in lines:
            for at in range(0, len(each) or 1, LINE_LIMIT):
                self._line(fence, _text(each[at : at + LINE_LIMIT]))


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace").replace("\0", "\\0").rstrip("\r")

"""A worker's stdout or stderr, line by line, each with the task that wrote it (worker/output.py sets the marks)."""

from __future__ import annotations

from collections.abc import Callable

LINE_LIMIT = 16 * 1024  # bytes; a longer line is logged in pieces


class Capture:
    """Splits one stream. ``line(fence, text)`` is called for every line; fence 0 is no task's."""

    def __init__(self, line: Callable[[int, str], None]) -> None:
        self._line = line
        self._rest = b""
        self._marked = 0

    def feed(self, data: bytes, page_fence: int) -> None:
        """``data`` has been read while the worker's page showed ``page_fence``."""
        data = self._rest + data
        self._rest = b""
        if b"\0" not in data:
            self._lines(data, page_fence)
            return
        first, *marks = data.split(b"\0")
        self._lines(first, self._marked or page_fence, whole=bool(marks))
        while marks:
            fence = marks.pop(0)
            if not marks:  # a mark that has not come whole
                self._rest = b"\0" + fence
                return
            if fence.isdigit():
                self._marked = int(fence)
            self._lines(marks.pop(0), self._marked, whole=bool(marks))

    def end(self) -> None:
        """The stream has ended: let an unfinished line go."""
        if self._rest and not self._rest.startswith(b"\0"):
            self._line(self._marked, _text(self._rest))
        self._rest = b""

    def _lines(self, data: bytes, fence: int, whole: bool = False) -> None:
        """``whole``: another task's output follows, so that an unfinished line is finished."""
        lines = data.split(b"\n")
        last = lines.pop()
        for each in lines:
            self._line(fence, _text(each))
        if last and (whole or len(last) > LINE_LIMIT):
            self._line(fence, _text(last))
        else:
            self._rest = last


def _text(line: bytes) -> str:
    return line[:LINE_LIMIT].decode("utf-8", "backslashreplace").rstrip("\r")

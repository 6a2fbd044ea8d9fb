"""A worker's stdout and stderr: pipes to the manager, in which a mark tells whose the next lines are.

A mark is NUL, the task's fence in decimal, NUL. It is written before the first output of each task, and with fence 0
after its last. Output of native code and of child processes bypasses this; where it has no mark before it, the manager
goes by the shared page.
"""

from __future__ import annotations

import io
from os import write


class Writer:
    """Whose output is written now. ``used``: something was, since the last ``end``."""

    __slots__ = ("fence", "streams", "used")

    def __init__(self) -> None:
        self.fence = 0
        self.used = False
        self.streams: list[Output] = []

    def end(self) -> None:
        """The task has ended: let an unfinished line go."""
        self.used = False
        for stream in self.streams:
            try:
                stream.end()
            except (OSError, ValueError):
                pass  # the task has closed it: surroundings.py finds that, and it is not to cost the result


class Output(io.TextIOWrapper):
    """``sys.stdout`` or ``sys.stderr`` of a worker."""

    def __init__(self, fd: int, writer: Writer) -> None:
        self._writer = writer
        writer.streams.append(self)
        self._raw = _Marked(fd, writer)
        buffer = io.BufferedWriter(self._raw, 8192)
        super().__init__(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)

    def write(self, text: str) -> int:
        self._writer.used = True
        return super().write(text)

    def close(self) -> None:
        """A worker's output stays open: other tasks use it, too."""
        self.flush()

    def end(self) -> None:
        """What comes next is not this task's."""
        self.flush()
        self._raw.end()


class _Marked(io.FileIO):
    def __init__(self, fd: int, writer: Writer) -> None:
        super().__init__(fd, "wb", closefd=False)
        self._owner = writer
        self._marked = 0

    def write(self, data: io.ReadableBuffer) -> int:  # type: ignore[name-defined]
        if self._marked != self._owner.fence:
            self._marked = self._owner.fence
            write(self.fileno(), b"\0%d\0" % self._marked)
        return super().write(data) or 0

    def end(self) -> None:
        if self._marked:
            self._marked = 0
            write(self.fileno(), b"\0%d\0" % 0)

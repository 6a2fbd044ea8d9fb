"""A worker's stdout and stderr: pipes to the manager, in which a mark tells whose the next lines are.

A mark is NUL, the task's fence in decimal, NUL. It is written before the first output of each task. Output of native
code and of child processes bypasses this and has no mark; the manager then goes by the shared page.
"""

from __future__ import annotations

import io
import os


class Output(io.TextIOWrapper):
    """``sys.stdout`` or ``sys.stderr`` of a worker."""

    def __init__(self, fd: int) -> None:
        self._raw = _Marked(fd)
        self.used = False
        super().__init__(
            io.BufferedWriter(self._raw, 8192), encoding="utf-8", errors="backslashreplace", line_buffering=True
        )

    def write(self, text: str) -> int:
        self.used = True
        return super().write(text)

    def begin(self, fence: int) -> None:
        """What is written from now on belongs to this task."""
        self._raw.fence = fence

    def end(self) -> None:
        """The task has ended: let an unfinished line go."""
        self.used = False
        self.flush()


class _Marked(io.FileIO):
    fence = 0
    marked = 0

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "wb", closefd=False)

    def write(self, data: io.ReadableBuffer) -> int:  # type: ignore[name-defined]
        if self.marked != self.fence:
            self.marked = self.fence
            os.write(self.fileno(), b"\0%d\0" % self.fence)
        return super().write(data) or 0

"""What the workers of a private daemon print: it is passed on to the program's own standard output and error.

By a thread: whoever reads the program's output may be slow, or never read, and the daemon's loop waits for nobody.
"""

from __future__ import annotations

import os
import threading
from queue import Full, Queue
from typing import Final

_MOST: Final = 10_000  # lines that wait; of a reader who is slower than that, what comes then is dropped
_PATIENCE_S: Final = 1.0  # at the end
_DESCRIPTORS: Final = {"stdout": 1, "stderr": 2}


class PassingOn:
    """Use ``line`` as ``Shell.printed``."""

    def __init__(self) -> None:
        self._lines: Queue[tuple[int, bytes] | None] = Queue(_MOST)
        self._thread = threading.Thread(target=self._write, name="output", daemon=True)
        self._thread.start()

    def line(self, worker: str, task_id: str, stream: str, line: str) -> None:
        """Pass a line on. Never waits."""
        try:
            self._lines.put_nowait((_DESCRIPTORS.get(stream, 2), f"{line}\n".encode("utf-8", "backslashreplace")))
        except Full:
            pass

    def close(self) -> None:
        """Let out what waits, as far as it is taken."""
        try:
            self._lines.put(None, timeout=_PATIENCE_S)
        except Full:
            return
        self._thread.join(_PATIENCE_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            fd, data = line
            try:
                while data:
                    data = data[os.write(fd, data) :]
            except OSError:
                pass  # the program has closed it, or whoever read it has gone

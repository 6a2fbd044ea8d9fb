"""What one worker process prints: read from its two pipes, logged within a budget, and its end kept.

A task that prints without end must not cost the others the daemon's time. Once the budget is spent, the
pipes are read 50 times a second, whatever is in them; a worker that prints more than they hold then waits for us.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Mapping
from functools import partial

from poolmgr.manager.budget import WINDOW_S, Budget
from poolmgr.manager.capture import Capture
from poolmgr.manager.tail import Tail
from poolmgr.worker.page import Page

CHUNK_BYTES = 512  # taken in at once: each line is logged, and meanwhile all others wait
SKIM_BYTES = 8192  # ... of what is not logged
PAUSE_S = 0.02  # between two reads of a worker that has spent its budget
TURN_S = 0.001  # for one of these reads
LAST_WORDS_S = 0.05  # for all that a process has left in its pipes at its end


class Console:
    """The output of one process.

    Args:
        streams: the non-blocking pipes of its stdout and stderr, by these names; their owner closes them.
        page: its page, which tells whose output without a mark is.
        log: called as ``log(stream, fence, line)``.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        streams: Mapping[str, int],
        page: Page,
        log: Callable[[str, int, str], None],
    ) -> None:
        self.budget = Budget(loop.time)
        self._loop = loop
        self._page = page
        self._log = log
        self._tail = Tail()
        self._open = dict(streams)
        self._captures = {name: Capture(partial(log, name), self.budget, self._tail) for name in streams}
        self._pause: asyncio.TimerHandle | None = None

    def listen(self) -> None:
        """Read what comes, from now on."""
        for stream, fd in self._open.items():
            self._loop.add_reader(fd, self._read, stream)

    def _read(self, stream: str) -> None:
        self._take(stream, CHUNK_BYTES)
        self.rest()

    def rest(self) -> None:
        """Where the budget is spent, look away for a moment."""
        if self.budget.spent and self._pause is None:
            for fd in self._open.values():
                self._loop.remove_reader(fd)
            self._pause = self._loop.call_later(PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self.catch_up(TURN_S)
        self._tell_suppressed(self.budget.renewed())
        if self.budget.spent:
            self.rest()
        else:
            self.listen()

    def catch_up(self, patience_s: float) -> None:
        """Take in what is in the pipes now: no more than these hold, and for no longer than ``patience_s``. Some
        process may write to them for ever."""
        give_up_at = time.monotonic() + patience_s
        for stream, fd in list(self._open.items()):
            left = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
            while left > 0 and (taken := self._take(stream, SKIM_BYTES)) and time.monotonic() < give_up_at:
                left -= taken

    def _take(self, stream: str, size: int) -> int:
        """Read once; how much there was."""
        try:
            data = os.read(self._open[stream], size)
        except BlockingIOError:
            return 0
        if data:
            self._captures[stream].feed(data, self._page.read()[0])
        else:
            self._loop.remove_reader(self._open.pop(stream))
        return len(data)

    def _tell_suppressed(self, lines: int) -> None:
        if lines:
            self._log("stdout", 0, f"[... {lines:,} lines suppressed: too many in {WINDOW_S:g} s]")

    def of(self, fence: int) -> str:
        """The last that this task has printed, if it was the last that printed."""
        return self._tail.of(fence)

    def end(self) -> None:
        """The process has ended: take in its last words, and let go of the pipes. Safe to call twice."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self.catch_up(LAST_WORDS_S)
        for capture in self._captures.values():
            capture.end()
        self._tell_suppressed(self.budget.renewed(anyway=True))
        for fd in self._open.values():
            self._loop.remove_reader(fd)
        self._open.clear()
        # They hold the process that holds this, with its buffers. It goes now, not when garbage is collected next.
        self._captures.clear()
        self._log = _unheard


def _unheard(stream: str, fence: int, line: str) -> None:
    """Of a process that has ended, nothing is left to be told."""

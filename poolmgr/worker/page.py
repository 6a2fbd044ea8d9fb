"""The memory that a worker shares with the manager. It tells what the worker has begun, and where it was when it ended;
also once it is dead.

On the first page, word 0 (unsigned, 64 bits) is the fence of the task begun last, 0 before the first. Word 1 (a double)
is the boot time at which that was. Both are in the machine's order, and each is written in one piece. The worker writes
word 1 first. The rest of that page is zero.

Behind it is room for stacks: ``faulthandler`` writes them there, through the descriptor, when the process crashes, or
when ``DUMP_SIGNAL`` ends it. It does so in C, in a signal handler, so that it needs neither the GIL nor memory.
"""

from __future__ import annotations

import mmap
import signal
from typing import Final

from poolmgr.post_mortem import STACKS_LIMIT

PAGE_BYTES: Final = mmap.PAGESIZE
FILE_BYTES: Final = PAGE_BYTES + STACKS_LIMIT
# Dump the stacks of all threads, and die. One that no application has a use for, and whose default action is death.
DUMP_SIGNAL: Final = int(signal.SIGRTMAX) - 2
_READS: Final = 8


class Page:
    """One end's view of a shared page. The manager's (``size`` FILE_BYTES) shows the stacks, too."""

    __slots__ = ("_map", "begun_at", "fence")

    def __init__(self, fd: int, size: int = PAGE_BYTES) -> None:
        self._map = mmap.mmap(fd, size)
        self.fence = memoryview(self._map).cast("Q")
        self.begun_at = memoryview(self._map).cast("d")

    def publish(self, fence: int, begun_at: float) -> None:
        """The worker begins ``fence``."""
        self.begun_at[1] = begun_at
        self.fence[0] = fence

    def read(self) -> tuple[int, float]:
        """(fence, begun at). Read again where the worker wrote in between; a hostile one may do that without end."""
        fence, begun_at = self.fence[0], self.begun_at[1]
        for _ in range(_READS):
            if fence == self.fence[0]:
                break
            fence, begun_at = self.fence[0], self.begun_at[1]
        return fence, begun_at

    def stacks(self) -> str:
        """The stacks, in the order in which they were dumped; '' where there are none."""
        end = self._map.find(b"\0", PAGE_BYTES)
        return self._map[PAGE_BYTES : end if end >= 0 else FILE_BYTES].decode("utf-8", "backslashreplace")

    def close(self) -> None:
        self.fence.release()
        self.begun_at.release()
        self._map.close()

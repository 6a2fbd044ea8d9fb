"""The page of memory that a worker shares with the manager. It tells what the worker has begun, also once it is dead.

Word 0 (unsigned, 64 bits) is the fence of the task begun last, 0 before the first. Word 1 (a double) is the boot time
at which that was. Both are in the machine's order, and each is written in one piece. The worker writes word 1 first.
"""

from __future__ import annotations

import mmap

PAGE_BYTES = mmap.PAGESIZE


class Page:
    """One end's view of a shared page."""

    __slots__ = ("_map", "begun_at", "fence")

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, PAGE_BYTES)
        self.fence = memoryview(self._map).cast("Q")
        self.begun_at = memoryview(self._map).cast("d")

    def publish(self, fence: int, begun_at: float) -> None:
        """The worker begins ``fence``."""
        self.begun_at[1] = begun_at
        self.fence[0] = fence

    def read(self) -> tuple[int, float]:
        """(fence, begun at). Read twice where the worker wrote in between."""
        while True:
            fence = self.fence[0]
            begun_at = self.begun_at[1]
            if fence == self.fence[0]:
                return fence, begun_at

    def close(self) -> None:
        self.fence.release()
        self.begun_at.release()
        self._map.close()

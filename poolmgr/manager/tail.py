"""The end of what one attempt has printed, for its post-mortem."""

from __future__ import annotations

from poolmgr.post_mortem import OUTPUT_LIMIT


class Tail:
    """The last 64 KB of one task's output: that of the task that has printed last. Of nothing it costs nothing."""

    def __init__(self) -> None:
        self._fence = 0
        self._data = bytearray()

    def add(self, fence: int, data: bytes) -> None:
        """``fence`` has printed this; fence 0 is no task's, and is not kept."""
        if not fence:
            return
        if fence != self._fence:
            self._fence = fence
            self._data.clear()
        self._data += data
        if len(self._data) > 2 * OUTPUT_LIMIT:
            del self._data[:-OUTPUT_LIMIT]

    def of(self, fence: int) -> str:
        """What ``fence`` has printed last; '' if that was nothing. What is no UTF-8 is escaped."""
        if fence != self._fence:
            return ""
        start = max(0, len(self._data) - OUTPUT_LIMIT)
        while start and start < len(self._data) and self._data[start] & 0xC0 == 0x80:  # the rest of a cut character
            start += 1
        return self._data[start:].decode("utf-8", "backslashreplace").replace("\0", "\\0")[-OUTPUT_LIMIT:]

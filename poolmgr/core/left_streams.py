"""The streams of calls that have ended: held for their readers, and for a while for those who may still come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from poolmgr.core.stream import Stream

_MOST: Final = 10_000
_MOST_BYTES: Final = 64 << 20


class LeftStreams:
    """By their tasks, as these have ended. Beyond what may be held, those that ended first lose their chunks; a reader
    that comes for them is told so."""

    def __init__(self) -> None:
        self._streams: dict[bytes, Stream] = {}
        self.held = 0  # bytes of their chunks

    def __len__(self) -> int:
        return len(self._streams)

    def items(self) -> Iterable[tuple[bytes, Stream]]:
        """Tasks, and what they have left."""
        return self._streams.items()

    def get(self, task_id: bytes) -> Stream | None:
        """The stream of that task."""
        return self._streams.get(task_id)

    def add(self, task_id: bytes, stream: Stream) -> int:
        """Its task has ended. Returns how many bytes were let go of."""
        stream.ended = True
        self._streams[task_id] = stream
        self.held += stream.bytes
        return self.trim()

    def trim(self) -> int:
        """Let go of what is too much, but for what is read now; how many bytes."""
        before = self.held
        over = len(self._streams) - _MOST
        if over > 0 or self.held > _MOST_BYTES:
            for id, stream in list(self._streams.items()):
                if stream.readers:
                    continue
                if over > 0:
                    del self._streams[id]
                    over -= 1
                elif self.held <= _MOST_BYTES:
                    break
                self.held -= stream.bytes
                stream.let_go()
        return before - self.held

"""The streams of calls that have ended: held for their readers, and for a while for those who may still come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from poolmgr.core.stream import Stream

_MOST: Final = 10_000
_MOST_BYTES: Final = 64 << 20
_NUMBERS_MOST: Final = 100_000


class LeftStreams:
    """By their tasks, as these have ended. Beyond what may be held, those that ended first lose their chunks; a reader
    that comes for them is told so. Of many more it is known how many chunks they had: a stream that was lost is not to
    look like an empty one."""

    def __init__(self) -> None:
        self._streams: dict[bytes, Stream] = {}
        self._numbers: dict[bytes, int] = {}  # of chunks, of those that are held no more and had any
        self.held = 0  # bytes of their chunks

    def __len__(self) -> int:
        return len(self._streams)

    def items(self) -> Iterable[tuple[bytes, Stream]]:
        """Tasks, and what they have left."""
        return self._streams.items()

    def get(self, task_id: bytes) -> Stream | None:
        """The stream of that task; of one that is held no more, an image of it."""
        stream = self._streams.get(task_id)
        if stream is None and (kept := self._numbers.get(task_id)):
            stream = Stream.lost(kept)
        return stream

    def add(self, task_id: bytes, stream: Stream) -> int:
        """Its task has ended. Returns how many bytes were let go of."""
        stream.end()
        if not stream.kept and not stream.readers:
            return 0  # of checkpoints alone
        self._numbers.pop(task_id, None)
        self._streams[task_id] = stream
        self.held += stream.bytes
        return self.trim()

    def remove(self, task_id: bytes) -> int:
        """Forget the stream of that task; how many bytes were let go of."""
        self._numbers.pop(task_id, None)
        stream = self._streams.pop(task_id, None)
        if stream is None:
            return 0
        self.held -= stream.bytes
        return stream.bytes

    def trim(self) -> int:
        """Let go of what is too much, but for what is read now; how many bytes."""
        before = self.held
        over = len(self._streams) - _MOST
        if over > 0 or self.held > _MOST_BYTES:
            for id, stream in list(self._streams.items()):
                if stream.readers:
                    continue
                if over > 0:
                    self._forget(id, stream)
                    over -= 1
                elif self.held <= _MOST_BYTES:
                    break
                self.held -= stream.bytes
                stream.let_go()
        return before - self.held

    def _forget(self, id: bytes, stream: Stream) -> None:
        del self._streams[id]
        if stream.kept:
            self._numbers[id] = stream.kept
            if len(self._numbers) > _NUMBERS_MOST:
                del self._numbers[next(iter(self._numbers))]

"""The streams that there are: of tasks that have not ended, and, of calls that have, what they have left."""

from __future__ import annotations

from typing import Final

from poolmgr.core.changes import Change
from poolmgr.core.left_streams import LeftStreams
from poolmgr.core.stream import Stream

HELD_BYTES: Final = 256 << 20  # of all streams that are not durable, but for one chunk of each


class LiveStreams(dict[bytes, Stream]):
    """By their tasks: those that have sent something of one, or are read.

    Attributes:
        left: those of calls that have ended.
        held: bytes of the chunks of all that are not durable.
        changes: what is to be kept of the others, and was not handed over.
    """

    def __init__(self, limit_mb: int) -> None:
        super().__init__()
        self.left = LeftStreams()
        self.held = 0
        self.changes: list[Change] = []
        self._limit = limit_mb << 20

    def limit_of(self, stream: Stream) -> int:
        """The limit in bytes that its methods are told (core/stream.py)."""
        return self._limit if stream.durable else max(0, HELD_BYTES - self.held)

    def end(self, task_id: bytes) -> None:
        """The task has ended. What was a call's is left here for its readers."""
        stream = self.pop(task_id)
        if not stream.durable:
            self.held -= self.left.add(task_id, stream)

    def weight(self, task_id: bytes) -> int:
        """Bytes of the stream of that task, if there is one."""
        stream = self.get(task_id)
        return 0 if stream is None else stream.weight

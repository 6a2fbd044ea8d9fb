"""The stream of one task in the memory store."""

from __future__ import annotations

from typing import Final, NamedTuple

from poolmgr.core.changes import ChunkAdded, ChunksDropped, StreamRecord
from poolmgr.core.stream import ROW_BYTES
from poolmgr.payload import Payload, inline
from poolmgr.store.base import Chunks


class MemoryStream(NamedTuple):
    """How far it has come. ``chunks`` are those from ``dropped`` on."""

    dropped: int = 0
    chunks: tuple[bytes, ...] = ()
    first: int = 0
    checkpoint: bytes | None = None

    @property
    def kept(self) -> int:
        """How many it has had."""
        return self.dropped + len(self.chunks)

    def after(self, change: ChunkAdded | ChunksDropped) -> MemoryStream:
        """What becomes of it."""
        if isinstance(change, ChunksDropped):
            below = min(change.below, self.kept)
            return (
                self
                if below <= self.dropped
                else self._replace(dropped=below, chunks=self.chunks[below - self.dropped :])
            )
        _, seq, payload, checkpoint = change
        stream = self
        if payload is not None and seq == self.kept:
            stream = stream._replace(chunks=(*self.chunks, inline(payload)))
            seq += 1
        elif payload is not None or not self.first <= seq <= self.kept:
            return self
        return stream if checkpoint is None else stream._replace(first=seq, checkpoint=checkpoint)

    def record(self, id: bytes) -> StreamRecord:
        """As a store tells of it."""
        size = sum(len(each) + ROW_BYTES for each in self.chunks)
        return StreamRecord(id, self.kept, self.dropped, size, self.first, self.checkpoint)

    def page(self, offset: int, limit: int, limit_bytes: int, *, final: bool) -> Chunks:
        """What ``Store.chunks`` gives."""
        found: list[Payload] = []
        weighs = 0
        begin = offset - self.dropped
        for payload in self.chunks[begin : begin + limit] if begin >= 0 else ():
            found.append(payload)
            weighs += len(payload)
            if weighs >= limit_bytes:
                break
        return Chunks(found, self.kept, self.dropped, final)


NO_STREAM: Final = MemoryStream()

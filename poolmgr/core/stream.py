"""One task's stream: the chunks that its handler has yielded, what it can go on from, and who reads it.

A chunk has a number, 0, 1, ..., over all attempts of its task. Readers see it once it is *committed*; what is not
durable is committed at once. The chunks of a durable stream are the store's. Those of any other are held here.

How far the worker may go is said in chunks and in bytes. Both are counted from the slowest reader, and from what is
committed: what lies between is in memory, or on somebody's way. Methods that need it are told the *limit* in bytes: of
a durable stream, what may be kept of it while nobody reads it (0: as much as it likes); of any other, what may still be
held of all those together, but for one chunk of each. A durable stream that is read never waits for its limit: of what
all its readers have passed, the oldest goes.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from poolmgr.core.changes import StreamRecord
from poolmgr.payload import Payload

WINDOW: Final = 10  # chunks ahead of the slowest reader
WINDOW_BYTES: Final = 50 << 20  # ... and what they weigh; the one that exceeds it is sent as well
CHUNK_LIMIT: Final = 50 << 20  # bytes of one chunk
CHECKPOINT_LIMIT: Final = 8 << 20  # bytes of one checkpoint
ROW_BYTES: Final = 100  # what a chunk weighs beside its content
_SEGMENTS: Final = 64  # in which what may be kept is dropped
_SEGMENT_CHUNKS: Final = 1000

Reader = tuple[int, int]  # a client, and the number by which it knows this reader


class Resume(NamedTuple):
    """What a worker is told of the stream of a task that it starts: the handler's next chunk has the number ``first``,
    those below ``kept`` are not to be sent again, and it goes on from ``checkpoint``. Chunks below ``credit`` may be
    sent, while those that were sent in this attempt weigh less than ``credit_bytes``."""

    first: int
    kept: int
    checkpoint: bytes | None
    credit: int = WINDOW
    credit_bytes: int = WINDOW_BYTES


FRESH: Final = Resume(0, 0, None)


class Stream:
    """Only ``core`` changes it.

    Attributes:
        kept: chunks below have come.
        committed: ... and may be seen.
        dropped: ... and are gone.
        bytes: what those between ``dropped`` and ``kept`` weigh.
        first, checkpoint: as ``Resume`` has them.
        readers: up to which chunk each has passed.
        held: where it is not durable, the chunks from ``dropped`` on.
        ended: its task has, and it is left here for its readers.
        fence: the attempt that was started last, of which is known:
        was_heard: it has sent something of the stream.
        sent: bytes of its chunks.
        credit, credit_bytes: what it was told.
    """

    __slots__ = (
        "_paused_at", "_paused_s", "_pending", "_segments", "_sizes", "bytes", "checkpoint", "committed", "credit",
        "credit_bytes", "dropped", "durable", "ended", "fence", "first", "held", "kept", "readers", "sent",
        "unkept_checkpoint", "was_heard",
    )  # fmt: skip

    def __init__(self, durable: bool) -> None:
        self.durable = durable
        self.kept = self.committed = self.dropped = self.bytes = self.first = 0
        self.checkpoint: bytes | None = None
        self.unkept_checkpoint = False  # it is newer than the last that the store was told of
        self.readers: dict[Reader, int] = {}
        self.held: deque[Payload] = deque()
        self.ended = False
        self.fence = self.sent = 0
        self.was_heard = False
        self.credit, self.credit_bytes = WINDOW, WINDOW_BYTES
        self._sizes: deque[int] = deque(maxlen=WINDOW)  # of the last chunks
        self._segments: deque[tuple[int, int]] = deque()  # up to which chunk, and what they weigh, from ``dropped`` on
        self._pending: deque[tuple[int, int]] = deque()  # commits that are not made, and ``kept`` after each
        self._paused_at: float | None = None
        self._paused_s = 0.0

    @classmethod
    def restored(cls, record: StreamRecord) -> Stream:
        """The stream of a task of an earlier epoch."""
        stream = cls(True)
        _, stream.kept, stream.dropped, stream.bytes, stream.first, stream.checkpoint = record
        stream.committed = stream.kept
        count = stream.kept - stream.dropped
        for begin in range(0, count, _SEGMENT_CHUNKS):  # as if all had the same size
            end = min(begin + _SEGMENT_CHUNKS, count)
            size = stream.bytes * end // count - stream.bytes * begin // count
            stream._segments.append((stream.dropped + end, size))
        return stream

    @classmethod
    def lost(cls, kept: int) -> Stream:
        """That of a task that has ended, and was not durable: it had so many chunks, and they are gone."""
        stream = cls(False)
        stream.kept = stream.committed = stream.dropped = kept
        stream.ended = True
        return stream

    @property
    def resumable(self) -> bool:
        """Whether anything was sent that another attempt need not do again."""
        return self.kept > 0 or self.checkpoint is not None

    @property
    def weight(self) -> int:
        """Bytes that it holds, wherever they are."""
        return self.bytes + (0 if self.checkpoint is None else len(self.checkpoint))

    @property
    def waits_for_reader(self) -> bool:
        """Whether its worker has to wait, and not because something is being kept."""
        return self.is_out_of_credit and self.committed == self.kept

    @property
    def slowest(self) -> int | None:
        """Up to which chunk all readers have passed; None: there is none."""
        return min(self.readers.values()) if self.readers else None

    # ------------------------------------------------------------------------------------------ attempts

    def begin(self, fence: int, limit_bytes: int, now: float) -> Resume:
        """Another attempt starts; what its worker is to know."""
        self.begin_unknown(fence)
        self.credit, self.credit_bytes = self._window(limit_bytes)
        self.pause(now)
        return Resume(self.first, self.kept, self.checkpoint, self.credit, self.credit_bytes)

    def begin_unknown(self, fence: int) -> None:
        """An attempt goes on that was started when there was no stream."""
        self.fence, self.sent, self.was_heard = fence, 0, False
        self.credit, self.credit_bytes = WINDOW, WINDOW_BYTES
        self._paused_at, self._paused_s = None, 0.0

    def objection(self, seq: int, payload: Payload | None, checkpoint: bytes | None) -> str:
        """What is wrong with what the worker has sent; '' for nothing."""
        if checkpoint is not None and len(checkpoint) > CHECKPOINT_LIMIT:
            return f"a checkpoint of {len(checkpoint)} bytes"
        if payload is None:
            return "" if 0 <= seq <= self.kept else f"a checkpoint before chunk {seq}, and the next one is {self.kept}"
        if seq != self.kept:
            return f"chunk {seq}, and the next one is {self.kept}"
        if len(payload) > CHUNK_LIMIT:
            return f"a chunk of {len(payload)} bytes"
        if seq >= self.credit or self.sent >= self.credit_bytes:
            return f"chunk {seq}, and it was to wait"
        return ""

    def add(self, payload: Payload, limit_bytes: int) -> None:
        """The next chunk."""
        size = len(payload) + ROW_BYTES
        self.kept += 1
        self.sent += len(payload)
        self.bytes += size
        self._sizes.append(size)
        if self.durable:
            self._add_to_segment(size, limit_bytes)
        else:
            self.held.append(payload)
            self.committed = self.kept

    def _add_to_segment(self, size: int, limit_bytes: int) -> None:
        segments = self._segments
        is_full = not segments or self.kept % _SEGMENT_CHUNKS == 0
        if is_full or (limit_bytes and segments[-1][1] * _SEGMENTS >= limit_bytes):
            segments.append((self.kept, size))
        else:
            segments[-1] = (self.kept, segments[-1][1] + size)

    def in_commit(self, number: int) -> bool:
        """All that has come is part of this commit. False: that was known."""
        pending = self._pending
        if pending and pending[-1][0] == number:
            pending[-1] = (number, self.kept)
            return False
        pending.append((number, self.kept))
        return True

    @property
    def is_pending(self) -> bool:
        """Whether a commit is to be made."""
        return bool(self._pending)

    def commit_made(self, number: int) -> None:
        """This commit is made, and all before it."""
        while self._pending and self._pending[0][0] <= number:
            _, self.committed = self._pending.popleft()

    # ------------------------------------------------------------------------------------------ credit

    def _window(self, limit_bytes: int) -> tuple[int, int]:
        """Up to which chunk its worker may go, and how many bytes it may have sent before one."""
        slowest = self.slowest
        behind = self.committed if self.durable else self.dropped
        if slowest is not None:
            behind = min(behind, slowest)
        most = max(0, WINDOW_BYTES - self._weight_from(behind))
        if not self.durable:
            most = min(most, limit_bytes) if behind < self.kept else max(1, min(most, limit_bytes))
        elif slowest is None and limit_bytes:
            if self.bytes >= limit_bytes:
                return self.kept, self.sent
            most = min(most, limit_bytes - self.bytes)
        return behind + WINDOW, self.sent + most

    def _weight_from(self, seq: int) -> int:
        """Of the chunks from this one on, as far as is known: of the last ones."""
        count = self.kept - seq
        sizes = self._sizes
        return sum(sizes) if count >= len(sizes) else sum([sizes[-1 - each] for each in range(count)])

    def more_credit(self, limit_bytes: int) -> bool:
        """Whether the worker is to be told of more. While it has half of all, and would not wait, it is not."""
        if self.credit - self.kept >= WINDOW // 2 and self.credit_bytes - self.sent >= WINDOW_BYTES // 2:
            return False
        up_to, most = self._window(limit_bytes)
        before = self.credit, self.credit_bytes
        self.credit, self.credit_bytes = max(self.credit, up_to), max(self.credit_bytes, most)
        return (self.credit, self.credit_bytes) != before

    @property
    def is_out_of_credit(self) -> bool:
        """Whether its worker has to wait before it sends another chunk."""
        return self.kept >= self.credit or self.sent >= self.credit_bytes

    def is_owed(self, limit_bytes: int) -> bool:
        """Whether its worker has to wait, and could be told of more."""
        up_to, most = self._window(limit_bytes)
        return self.is_out_of_credit and self.kept < up_to and self.sent < most

    def pause(self, now: float) -> None:
        """If its worker has to wait, time stands still for it from now on."""
        if self._paused_at is None and self.is_out_of_credit:
            self._paused_at = now

    def go_on(self, now: float, begun_at: float) -> bool:
        """It was told of more; whether it has waited. Before it was begun, no time counts."""
        if self._paused_at is None or self.is_out_of_credit:
            return False
        self._paused_s += max(0.0, now - max(self._paused_at, begun_at))
        self._paused_at = None
        return True

    @property
    def is_paused(self) -> bool:
        """Whether time stands still for its attempt."""
        return self._paused_at is not None

    @property
    def paused_s(self) -> float:
        """For how long that was so, before it went on."""
        return self._paused_s

    # ------------------------------------------------------------------------------------------ what goes

    def drop_passed(self, limit_bytes: int) -> bool:
        """Let go of what all readers have passed: of a durable stream, of as much as is over the limit. Whether."""
        slowest = self.slowest
        if slowest is None:
            return False
        before = self.dropped
        if self.durable:
            passed = min(slowest, self.committed)
            segments = self._segments
            while limit_bytes and self.bytes > limit_bytes and segments and segments[0][0] <= passed:
                self.dropped, size = segments.popleft()
                self.bytes -= size
        else:
            while self.held and self.dropped < slowest:
                self.bytes -= len(self.held.popleft()) + ROW_BYTES
                self.dropped += 1
        return self.dropped != before

    def end(self) -> None:
        """Its task has ended: nothing goes on from its checkpoint."""
        self.ended = True
        self.first, self.checkpoint = 0, None

    def let_go(self) -> None:
        """Of all that is held."""
        self.held.clear()
        self.dropped, self.bytes = self.kept, 0

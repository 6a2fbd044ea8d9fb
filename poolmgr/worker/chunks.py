"""What one attempt says ahead of its end: chunks, and checkpoints.

Chunks are numbered over all attempts of a task. An attempt goes on where the last checkpoint was made, and what it
yields again that is kept already is left out. A chunk is written before its generator is advanced further, if there is
credit for it: the manager says up to which number, and how many bytes. A chunk without credit is held back, and so is
all behind it.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

from poolmgr.wire.framing import encode, in_parts
from poolmgr.wire.messages import CHUNK, CREDIT_BY_DEFAULT, CREDIT_BYTES_BY_DEFAULT
from poolmgr.wire.parts import LARGE_BYTES, Part
from poolmgr.worker.context import Chunk
from poolmgr.worker.run import encode_checkpoint, encode_chunk
from poolmgr.worker.voice import Voice

_RESUME, _CREDIT, _BYTES = 8, 9, 10  # where START has them
_AT_PAYLOAD: Final = 3  # where CHUNK has it


class Released(Exception):
    """The attempt is given up, as asked: the task is to be resumed."""


class _Held(NamedTuple):
    chunks: int  # 1, or 0 for a checkpoint alone
    payload: list[Part] | None  # None: a checkpoint alone, or the chunk is kept already
    checkpoint: bytes | None


class Chunks:
    """Those of one attempt.

    Attributes:
        fence: the attempt's.
        closing: its generator is being closed: a checkpoint need not tell it to end.
        lost: a chunk of it could not be carried: what it says behind that does not count.
    """

    def __init__(self, start: list[Any], credits: dict[int, tuple[int, int]], voice: Voice) -> None:
        self.fence: int = start[1]
        self.closing = self.lost = False
        resume = resume_of(start)
        self._kept: int = resume[1] if resume is not None else 0
        self._written: int = resume[0] if resume is not None else 0  # the number of the next chunk to be written
        self._next = self._written  # ... and to be yielded
        self._credit: int = start[_CREDIT] if len(start) > _CREDIT else CREDIT_BY_DEFAULT
        self._credit_bytes: int = start[_BYTES] if len(start) > _BYTES else CREDIT_BYTES_BY_DEFAULT
        self._sent = 0  # bytes of chunks
        self._credits = credits  # what the manager has said since, by fences
        self._voice = voice
        self._held: deque[_Held] = deque()

    def add(self, item: Any) -> None:
        """The generator has yielded this. Nothing is written yet. Raises ``Failed``."""
        seq = self._next
        value, state = (item.value, item.checkpoint) if isinstance(item, Chunk) else (item, None)
        self.lost = True  # until it is not
        payload = encode_chunk(value, seq) if seq >= self._kept else None
        checkpoint = None if state is None else encode_checkpoint(state, seq)
        self.lost = False
        self._held.append(_Held(1, payload, checkpoint))
        self._next = seq + 1

    def write(self) -> bool:
        """Write what there is credit for. Whether that is all."""
        held = self._held
        while held:
            if not self.may_write():
                return False
            chunks, payload, checkpoint = held[0]
            with self._voice.lock:
                if payload is not None:
                    self._put(self._written, payload, checkpoint)
                elif checkpoint is not None:
                    self._put(self._written + chunks, None, checkpoint)
                self._written += chunks
                held.popleft()
        return True

    def may_write(self) -> bool:
        """Whether there is credit for the first that is held back."""
        if self._held[0].payload is None:
            return True
        credit, size = self._credits.get(self.fence, (0, 0))
        return self._written < max(self._credit, credit) and self._sent < max(self._credit_bytes, size)

    def keep(self, checkpoint: bytes) -> None:
        """A checkpoint behind all chunks so far; also from another thread."""
        with self._voice.lock:
            if self._held:
                self._held.append(_Held(0, None, checkpoint))
            elif not self.lost:
                self._put(self._written, None, checkpoint)

    def _put(self, seq: int, payload: list[Part] | None, checkpoint: bytes | None) -> None:
        size = 0 if payload is None else sum(map(len, payload))
        self._sent += size
        if payload is not None and size >= LARGE_BYTES:
            self._voice.put_locked(in_parts((CHUNK, self.fence, seq, None, checkpoint), _AT_PAYLOAD, payload))
        else:
            whole = None if payload is None else b"".join(payload)
            self._voice.put_locked([encode((CHUNK, self.fence, seq, whole, checkpoint))])


def resume_of(start: list[Any]) -> list[Any] | None:
    """What a START says of earlier attempts: [first, kept, checkpoint | nil], or None."""
    return start[_RESUME] if len(start) > _RESUME else None

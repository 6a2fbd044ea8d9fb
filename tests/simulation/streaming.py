"""What a modelled handler that is a generator does: so many chunks, and now and then a checkpoint.

Whoever runs it again, a chunk looks different each time. So one that is sent twice, or lost and made again, does not go
unnoticed.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from zlib import crc32

from poolmgr.core.effects import Start
from poolmgr.core.stream import FRESH
from poolmgr.payload import inline
from tests.simulation.world import World

_MOST: Final = 31
_LARGE: Final = 300_000  # bytes of a chunk of some streams: a few of those are over the limit


class Chunk(NamedTuple):
    """A message of a worker."""

    fence: int
    seq: int
    payload: bytes | None
    checkpoint: bytes | None


def total_of(payload: bytes) -> int:
    """How many chunks a stream with these arguments has, if it comes to its end."""
    return crc32(payload) % _MOST


def state_at(seq: int) -> bytes:
    """The checkpoint from which chunk ``seq`` is the next."""
    return b"state before %d" % seq


class Streaming:
    """One attempt."""

    def __init__(self, world: World, start: Start, credits: dict[int, tuple[int, int]]) -> None:
        resume = start.resume or FRESH
        arguments = inline(start.payload)
        self.fence = start.fence
        self.total = total_of(arguments)
        self.gives_way = False  # it was asked to
        self.trouble_in = world.random.randrange(12)  # chunks, until what is to go wrong does
        self._world = world
        self._large = crc32(arguments[::-1]) % 7 == 0
        self._credits = credits
        self._credit, self._bytes = resume.credit, resume.credit_bytes
        self._sent = 0
        self._kept = resume.kept
        self.next = resume.first
        if resume.checkpoint is None:
            assert resume.first == 0, f"it goes on from {resume.first}, and nothing was kept of where it was"
        else:
            assert resume.checkpoint == state_at(resume.first), f"at {resume.first} it is to be {resume.checkpoint!r}"

    def messages(self) -> list[Chunk] | None:
        """What it sends next; None: it has to wait."""
        seq, chance = self.next, self._world.chance
        found = []
        if chance(0.1):
            found.append(Chunk(self.fence, seq, None, state_at(seq)))
        if seq >= self._kept and not self._may_send():
            return None
        self.next += 1
        checkpoint = state_at(self.next) if chance(0.3) else None
        if seq < self._kept:
            return found if checkpoint is None else [*found, Chunk(self.fence, self.next, None, checkpoint)]
        payload = b"%d of attempt %d" % (seq, self.fence) + b"." * (_LARGE if self._large else 0)
        self._sent += len(payload)
        return [*found, Chunk(self.fence, seq, payload, checkpoint)]

    def _may_send(self) -> bool:
        credit, size = self._credits.get(self.fence, (0, 0))
        return self.next < max(credit, self._credit) and self._sent < max(size, self._bytes)

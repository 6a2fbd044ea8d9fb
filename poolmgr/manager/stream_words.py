"""What a worker says of a stream, checked, as ``hearing`` checks the rest."""

from __future__ import annotations

from typing import Any

from poolmgr.wire.messages import CHECKPOINT_LIMIT, CHUNK_LIMIT

# fence, number, payload or None, checkpoint or None
Said = tuple[int, int, bytes | None, bytes | None]


def chunk_of(message: list[Any]) -> Said:
    """What a CHUNK says. Raises ``ValueError`` where it is not as docs/protocol.md says."""
    _, fence, seq, payload, checkpoint = message
    if type(fence) is not int or type(seq) is not int or seq < 0:
        raise ValueError("a fence or number of the wrong type")
    if payload is None and checkpoint is None:
        raise ValueError("neither a chunk nor a checkpoint")
    for part, limit in ((payload, CHUNK_LIMIT), (checkpoint, CHECKPOINT_LIMIT)):
        if part is not None and (type(part) is not bytes or len(part) > limit):
            raise ValueError(f"a chunk or checkpoint that is no bin of at most {limit} bytes")
    return fence, seq, payload, checkpoint

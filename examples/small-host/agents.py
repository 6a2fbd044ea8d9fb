"""What the small host runs: agents, which need much memory, and a heartbeat, which can wait."""

from __future__ import annotations

import time
from collections.abc import Iterator

from poolmgr import Chunk, current_task, task

_MB = 1 << 20


@task(priority=10, max_queued=4)
def agent_run(prompt: bytes, context_mb: int, seconds: float) -> int:
    """Stands for an agent: it has a context of so many megabytes, and works with it for a while. How many it had."""
    context = _context(context_mb)
    time.sleep(seconds)
    return (len(context) + len(prompt)) // _MB


@task(priority=10, max_queued=4)
def agent_in_chunks(
    prompt: bytes, context_mb: int, chunks: int, chunk_mb: int, seconds: float
) -> Iterator[Chunk[bytes]]:
    """The same in steps: it needs the context for one of them at a time, and goes on behind the last that was kept."""
    for number in range(current_task().restored or 0, chunks):
        yield Chunk(_step(context_mb, chunk_mb, seconds), checkpoint=number + 1)


def _step(context_mb: int, chunk_mb: int, seconds: float) -> bytes:
    context = _context(context_mb)
    time.sleep(seconds)
    return bytes(context[: chunk_mb * _MB])  # the context goes with this call


def _context(mb: int) -> bytearray:
    context = bytearray(mb * _MB)
    context[::4096] = b"." * (len(context) // 4096)  # memory counts once it is written to
    return context


@task(priority=60, sheddable=True)
def heartbeat() -> float:
    """LOW, and of no use later: where memory is short it is left out."""
    return time.time()

"""What the small host runs: agents, which need much memory, and a heartbeat, which can wait."""

from __future__ import annotations

import time

from poolmgr import task

_MB = 1 << 20


@task(priority=10, max_queued=4)
def agent_run(prompt: bytes, context_mb: int, seconds: float) -> int:
    """Stands for an agent: it has a context of so many megabytes, and works with it for a while. How many it had."""
    context = bytearray(context_mb * _MB)
    context[::4096] = b"." * (len(context) // 4096)  # memory counts once it is written to
    time.sleep(seconds)
    return (len(context) + len(prompt)) // _MB


@task(priority=60, sheddable=True)
def heartbeat() -> float:
    """LOW, and of no use later: where memory is short it is left out."""
    return time.time()

"""What is left of ``handlers`` in its next version."""

from __future__ import annotations

from poolmgr import task


@task
def add(a: int, b: int = 0) -> int:
    return a + b

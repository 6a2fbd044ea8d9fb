"""A program beside the pool that holds as much memory as it is told to."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import Self

from scripts.proofs.memory_group import Ground

_HOLDS = """
import mmap, sys
held, each = [], 4 << 20
for line in sys.stdin:
    wanted = int(line) * (1 << 20) // each
    while len(held) > wanted:
        held.pop().close()
    while len(held) < wanted:
        held.append(mmap.mmap(-1, each, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        held[-1].write(b"x" * each)
    print("done", flush=True)
"""


class Ballast:
    """It is part of the ``ground``, and none of the pool."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._megabytes = 0
        self._process = subprocess.Popen(
            ground.command([sys.executable, "-c", _HOLDS]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def hold(self, megabytes: int) -> None:
        """So much, from now on."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._megabytes = megabytes
        self._process.stdin.write(f"{megabytes}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n", "it is gone"

    def fill_to(self, percent: float) -> None:
        """So much that this percentage of the ground is in use, or a little more."""
        step = max(4, self._ground.total_mb // 100)
        while self._ground.in_use().percent <= percent:
            self.hold(self._megabytes + step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

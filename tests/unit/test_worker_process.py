"""What the manager keeps of a process that has ended: nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from poolmgr.config import Group
from poolmgr.manager.process import WorkerProcess
from poolmgr.parcels.parcel import Allowance


class Ears:
    """Lets go of each process that has ended, as the manager does."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def worker_says(self, process: WorkerProcess, messages: list[list[Any]]) -> None: ...
    def worker_told(self, process: WorkerProcess, message: list[Any]) -> None: ...
    def worker_printed(self, process: WorkerProcess, stream: str, fence: int, line: str) -> None: ...
    def worker_babbled(self, process: WorkerProcess, error: str) -> None: ...

    def worker_ended(self, process: WorkerProcess, how: str) -> None:
        process.close()
        self.ended.set_result(how)


def begun() -> int:
    return os.posix_spawn("/bin/true", ["true"], {})


async def life() -> Callable[[], WorkerProcess | None]:
    """A process from its beginning to its end; whether it is still there."""
    ears = Ears()
    loop, buffer = asyncio.get_running_loop(), memoryview(bytearray(4096))
    process = WorkerProcess("worker-0", 1, 1, Group(), loop, ears, Allowance(16), buffer)
    pid = begun()
    process.handed_over()
    process.begin(pid)
    await asyncio.wait_for(ears.ended, 20)
    return weakref.ref(process)


@pytest.mark.parametrize("lives", [3])
def test_a_process_that_has_ended_is_gone_at_once(lives: int) -> None:
    """Each has buffers of 40 KB, and thousands may come and go before garbage is next collected."""

    async def all_lives() -> list[Callable[[], WorkerProcess | None]]:
        found = [await life() for _ in range(lives)]
        await asyncio.sleep(0)  # what was asked of the loop for the last of them
        return found

    gc.collect()
    gc.disable()
    try:
        assert [left() for left in asyncio.run(all_lives())] == [None] * lives
    finally:
        gc.enable()

"""Who waits for the next chunk of a stream."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Readers:
    """Those that wait now, by the tasks whose streams they read."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[bytes, asyncio.Future[None]] = {}

    async def wait(self, task_id: bytes, timeout_s: float | None = None) -> None:
        """Return when this stream has gone on, or has ended; or after ``timeout_s``."""
        stirred = self._waiting.get(task_id)
        if stirred is None:
            stirred = self._waiting[task_id] = self._loop.create_future()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(stirred)

    def wake(self, task_id: bytes) -> None:
        """It has."""
        stirred = self._waiting.pop(task_id, None)
        if stirred is not None:
            stirred.set_result(None)

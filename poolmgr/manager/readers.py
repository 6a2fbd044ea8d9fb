"""Who waits for the next chunk of a stream."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from poolmgr.core.streams import READERS_MOST
from poolmgr.errors import BadOption


class Turn:
    """One question of a reader. ``is_over``: it has put another one since, and nobody waits for this answer."""

    __slots__ = ("is_over",)

    def __init__(self) -> None:
        self.is_over = False


class Readers:
    """Those that wait now, by the tasks whose streams they read."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self._asking: Counter[int] = Counter()
        self._turns: dict[tuple[int, bytes, int], Turn] = {}  # the latest of each reader that waits

    @contextmanager
    def asks(self, client: int, task_id: bytes, reader: int) -> Iterator[Turn]:
        """This reader waits for an answer, and no more for the one to what it has asked before.

        Raises:
            BadOption: its client waits for too many.
        """
        if self._asking[client] >= READERS_MOST:
            raise BadOption(f"a connection may wait for the chunks of {READERS_MOST} streams at a time")
        self._asking[client] += 1
        key, turn = (client, task_id, reader), Turn()
        if (before := self._turns.get(key)) is not None:
            before.is_over = True
            self.wake(task_id)
        self._turns[key] = turn
        try:
            yield turn
        finally:
            if self._turns.get(key) is turn:
                del self._turns[key]
            self._asking[client] -= 1
            if not self._asking[client]:
                del self._asking[client]

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

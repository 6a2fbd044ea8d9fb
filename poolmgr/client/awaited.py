"""Something owed that a coroutine can wait for, any number of times, in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar

from poolmgr.client.pending import Outcome, Pending

R = TypeVar("R")


class Awaited(Pending[R]):
    """``await`` gives its value, or raises as ``Pending.value`` does. A wait that is cancelled leaves it as it was."""

    __slots__ = ("_waiters",)

    observed = True

    def __init__(self, durable: bool = False) -> None:
        super().__init__(durable)
        self._waiters: list[asyncio.Future[None]] | None = None

    def settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    async def settled(self) -> None:
        """Wait for the outcome, whatever it is."""
        while self.outcome is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters = [*(self._waiters or ()), waiter]
            await waiter

    def __await__(self) -> Generator[Any, None, R]:
        if self.outcome is None:
            yield from self.settled().__await__()
        return self.value()

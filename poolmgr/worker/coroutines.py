"""Async handlers: run on an event loop of the worker's own, which lives as long as the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from poolmgr.worker.context import SoftTimeout


class Coroutines:
    """Runs one coroutine at a time. asyncio is imported with the first."""

    def __init__(self) -> None:
        self._loop: Any = None
        self._task: Any = None
        self._reasons: set[str] = set()  # for which the coroutine that runs was cancelled

    def run(self, coroutine: Any, is_cancelled: Callable[[], bool]) -> Any:
        """What it returns. Raises what it raises; ``SoftTimeout`` where that has ended it. ``is_cancelled`` tells of
        the time before it could be interrupted."""
        import asyncio

        self._reasons = set()
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        self._task = task = self._loop.create_task(coroutine)
        if is_cancelled() and "cancelled" not in self._reasons:
            self._reasons.add("cancelled")
            task.cancel()  # before its first step
        try:
            return self._loop.run_until_complete(task)
        except asyncio.CancelledError:
            if "soft_timeout" in self._reasons:
                raise SoftTimeout from None
            raise
        finally:
            self._task = None
            if not task.done():  # the handler has stopped the loop under itself
                task.cancel()

    def interrupt(self, reason: str) -> bool:
        """Cancel the coroutine that runs, once for each reason; from a signal handler, too. Whether there is one."""
        if self._task is None:
            return False
        if reason not in self._reasons:
            self._reasons.add(reason)
            self._loop.call_soon_threadsafe(self._task.cancel)
        return True

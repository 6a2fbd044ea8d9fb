"""Async handlers: run on an event loop of the worker's own, which lives as long as the worker."""

from __future__ import annotations

from typing import Any

from poolmgr.worker.context import SoftTimeout


class Coroutines:
    """Runs one coroutine at a time. asyncio is imported with the first."""

    def __init__(self) -> None:
        self._loop: Any = None
        self._task: Any = None
        self._timed_out = False  # the coroutine that runs was cancelled for its soft time-out

    def run(self, coroutine: Any) -> Any:
        """What it returns. Raises what it raises; ``SoftTimeout`` where that has ended it."""
        import asyncio

        self._timed_out = False
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        self._task = task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except asyncio.CancelledError:
            if self._timed_out:
                raise SoftTimeout from None
            raise
        finally:
            self._task = None
            if not task.done():  # the handler has stopped the loop under itself
                task.cancel()

    def interrupt(self, *, timed_out: bool) -> bool:
        """Cancel the coroutine that runs, from a signal handler. Whether there is one."""
        if self._task is None:
            return False
        self._timed_out = timed_out
        self._loop.call_soon_threadsafe(self._task.cancel)
        return True

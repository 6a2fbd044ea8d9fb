"""``current_task()``: what a handler may know of its task, and say about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class SoftTimeout(Exception):
    """Raised in a handler that has run longer than its ``soft_timeout_s``. Let it pass, or clean up and return."""


class Retry(Exception):
    """Raise it in a handler to have the task tried again (within ``max_retries``).

    Args:
        reason: for the task's history.
        delay_s: seconds until then; by default the back-off decides.

    Raises:
        ValueError: ``delay_s`` is no number of seconds.
    """

    def __init__(self, reason: str = "", *, delay_s: float | None = None) -> None:
        super().__init__(reason)
        if delay_s is not None:
            if type(delay_s) not in (int, float) or not 0 <= delay_s < float("inf"):
                raise ValueError(f"Retry(delay_s=) takes seconds, at least 0, got {delay_s!r}")
            delay_s = float(delay_s)
        self.delay_s = delay_s


class CurrentTask:
    """The task that runs now. Outside of a worker it stands for nothing, and everything it is told is ignored.

    Attributes:
        id: 32 hex digits, '' outside of a worker.
        name: the task's name.
        attempt: which dispatch this is, from 1.
        worker: the slot, such as ``worker-3``.
        cancelled: whether somebody has asked to cancel it since it began, or its caller has gone. A long handler may
            look, and return: what it returns is its result. An async one is cancelled in the way of asyncio.
    """

    __slots__ = ("_deadline", "_emit", "_fence", "attempt", "cancelled", "id", "name", "worker")

    def __init__(
        self,
        id: str = "",
        name: str = "",
        attempt: int = 1,
        worker: str = "",
        fence: int = 0,
        deadline: float | None = None,
        emit: Callable[[str, int, Any, Any], None] | None = None,
    ) -> None:
        self.id = id
        self.name = name
        self.attempt = attempt
        self.worker = worker
        self.cancelled = False
        self._fence = fence
        self._deadline = deadline
        self._emit = emit

    @property
    def deadline(self) -> float | None:
        """When the task will be killed, in ``time.monotonic()`` seconds; None: never."""
        left = self.remaining_s
        return None if left is None else time.monotonic() + left

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the task will be killed; None: never."""
        if self._deadline is None:
            return None
        return self._deadline - time.clock_gettime(time.CLOCK_BOOTTIME)

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how far the task is: ``fraction`` from 0 to 1. It reaches ``future.progress`` and those who watch."""
        if self._emit is not None:
            self._emit("progress", self._fence, float(fraction), str(message))

    @property
    def log(self) -> TaskLog:
        """A log whose lines reach the daemon's with the worker's and the task's id."""
        return TaskLog(self._fence, self._emit)


class TaskLog:
    """``debug``, ``info``, ``warning``, ``error``: as of a ``logging.Logger``, with ``%`` arguments."""

    __slots__ = ("_emit", "_fence")

    def __init__(self, fence: int, emit: Callable[[str, int, Any, Any], None] | None) -> None:
        self._fence = fence
        self._emit = emit

    def debug(self, text: str, *args: Any) -> None:
        self._write("debug", text, args)

    def info(self, text: str, *args: Any) -> None:
        self._write("info", text, args)

    def warning(self, text: str, *args: Any) -> None:
        self._write("warning", text, args)

    def error(self, text: str, *args: Any) -> None:
        self._write("error", text, args)

    def _write(self, level: str, text: str, args: tuple[Any, ...]) -> None:
        if self._emit is not None:
            self._emit("log", self._fence, level, text % args if args else text)


_NOBODY = CurrentTask()
_ask: Callable[[], CurrentTask | None] | None = None


def current_task() -> CurrentTask:
    """The task that the calling handler runs."""
    return (_ask() if _ask is not None else None) or _NOBODY


def answer_current_task(ask: Callable[[], CurrentTask | None]) -> None:
    """For the worker's main loop alone: ``ask`` knows the current task. Most handlers never want to."""
    global _ask
    _ask = ask

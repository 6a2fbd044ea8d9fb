"""``current_task()``: what a handler may know of its task, and say about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")
_NOT_READ: Final = object()


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


class Preempted(BaseException):
    """Raised by ``current_task().checkpoint(state)`` where the task is to give its worker away. Let it pass: the task
    goes back to the queue, free of charge, and is resumed from there. A handler may raise it by itself, too, once
    ``current_task().preempted`` is true."""


class Chunk(Generic[T]):
    """What a generator handler may yield: a chunk, and the state from which it can go on behind it.

    The two are kept together, or not at all.

    Args:
        value: the chunk: what the stream's readers get.
        checkpoint: as of ``current_task().checkpoint``; None: there is none here.
    """

    __slots__ = ("checkpoint", "value")

    def __init__(self, value: T, checkpoint: Any = None) -> None:
        self.value = value
        self.checkpoint = checkpoint

    def __repr__(self) -> str:
        return f"Chunk({self.value!r}, checkpoint={self.checkpoint!r})"


class CurrentTask:
    """The task that runs now. Outside of a worker it stands for nothing, and everything it is told is ignored.

    Attributes:
        id: 32 hex digits, '' outside of a worker.
        name: the task's name.
        attempt: which dispatch this is, from 1.
        worker: the slot, such as ``worker-3``.
        preempted: whether the task is to give its worker away, at its next chunk or checkpoint.
    """

    __slots__ = (
        "_checkpoint", "_deadline", "_emit", "_fence", "_keep", "_looks", "_restored",
        "attempt", "id", "is_cancelled", "name", "preempted", "worker",
    )  # fmt: skip

    def __init__(
        self,
        id: str = "",
        name: str = "",
        attempt: int = 1,
        worker: str = "",
        fence: int = 0,
        deadline: float | None = None,
        emit: Callable[[str, int, Any, Any], None] | None = None,
        keep: Callable[[int, Any], None] | None = None,
        checkpoint: bytes | None = None,
    ) -> None:
        self.id = id
        self.name = name
        self.attempt = attempt
        self.worker = worker
        self.preempted = False
        self.is_cancelled = False  # for the worker alone: a handler asks ``cancelled``
        self._looks = False  # whether the handler sees to its cancellation by itself
        self._fence = fence
        self._deadline = deadline
        self._emit = emit
        self._keep = keep
        self._checkpoint = checkpoint
        self._restored: Any = _NOT_READ

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked to cancel it since it began, or its caller has gone.

        A long handler may look, and return: what it returns is its result. A generator that has never looked is closed
        at its next chunk. An async handler is cancelled in the way of asyncio.
        """
        self._looks = True
        return self.is_cancelled

    @property
    def to_be_closed(self) -> bool:
        """For the worker alone: whether its generator is cancelled, and does not see to that by itself."""
        return self.is_cancelled and not self._looks

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

    def checkpoint(self, state: Any) -> None:
        """Keep ``state``: from here, behind all chunks so far, the handler could go on with it.

        Where an attempt ends too early (preempted, failed, its worker or the daemon died), the next one finds the last
        state in ``restored``. It takes at most 8 MB: put large data into a file, and keep its path.

        Raises:
            Preempted: it is kept, and the task is to give its worker away. Only on the main thread.
            BadValue, PayloadTooLarge: the state cannot be carried.
            ValueError: it is None, which stands for no checkpoint.
        """
        if state is None:
            raise ValueError("None is no checkpoint: `restored` is None where there is none")
        if self._keep is not None:
            self._keep(self._fence, state)

    @property
    def restored(self) -> Any:
        """The last checkpoint that earlier attempts have made; None: begin at the beginning.

        Raises:
            BadValue: it cannot be read: a class in it may have gone since.
        """
        if self._restored is _NOT_READ:
            self._restored = None
            if self._checkpoint is not None:
                from poolmgr.wire.values import unpack

                self._restored = unpack(self._checkpoint)
        return self._restored

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

"""The future of a submitted task.

A ``concurrent.futures.Future`` makes a Condition when it is born, which costs more than all the rest of a submit. Here
it is made when the standard library first asks for it (``wait``, ``as_completed``, ``add_done_callback``); until then
the outcome is one attribute that the connection sets. Making it also makes a background thread read the connection,
because whoever asked will wait for the Condition instead of reading.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, Final, TypeVar

from poolmgr.client import commands
from poolmgr.client.link import Link
from poolmgr.client.pending import Outcome, Pending, error_of, is_cancelled
from poolmgr.errors import NotFound
from poolmgr.wire.messages import COMPLETED, REFUSED

if TYPE_CHECKING:
    from poolmgr.client.streams import ChunkStream

R = TypeVar("R")

_SHOWN: Final = {PENDING: "pending", RUNNING: "running", FINISHED: "finished", CANCELLED_AND_NOTIFIED: "cancelled"}


class TaskFuture(Future[R], Pending[R]):
    """A task that was handed over, and its result to come. ``concurrent.futures.wait`` and ``as_completed`` take it."""

    def __init__(self, link: Link, durable: bool) -> None:
        # Future.__init__ is left out on purpose: see the module's first lines.
        Pending.__init__(self, durable)
        self._link = link
        self._made: threading.Condition | None = None
        self._progress: tuple[float, str] | None = None
        self._raised: BaseException | None = None

    def accepted(self, timeout: float | None = None) -> None:
        """Return when the daemon has acknowledged the task: from then on a durable one is not lost.

        Raises:
            PoolError: it refused the task; or the connection was lost before it answered, and not made again.
            TimeoutError: it did not answer within ``timeout`` seconds.
        """
        window = self._link.protocol.window
        if not self._link.wait(lambda: window.acknowledged >= self.number or self.outcome is not None, timeout):
            raise TimeoutError(f"task {self.id} was not acknowledged within {timeout} s")
        outcome = self.outcome
        if outcome is None or (isinstance(outcome, BaseException) and window.acknowledged >= self.number):
            return
        if isinstance(outcome, BaseException) or outcome[0] == REFUSED:
            raise error_of(outcome, self.id)

    def result(self, timeout: float | None = None) -> R:
        """The task's result.

        Raises:
            TaskFailed: it ended otherwise; the subclass says how.
            PoolError: it was refused, or the connection was lost; the message says what became of the task.
            TimeoutError: it has not ended within ``timeout`` seconds. It goes on.
        """
        error = self._error(timeout)
        if error is None:
            return self.value()
        try:
            raise error
        finally:
            del self, error  # or the error, by its traceback, would keep itself alive

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error that ``result`` raises, or None.

        Raises:
            TaskCancelled: the task was cancelled.
            TimeoutError: it has not ended within ``timeout`` seconds.
        """
        error = self._error(timeout)
        if error is not None and is_cancelled(self.outcome):
            raise error
        return error

    def __iter__(self) -> ChunkStream[Any]:
        """The chunks that the task yields, from its first one. ``Client.chunks`` reads the same from any."""
        from poolmgr.client.streams import ChunkStream

        return ChunkStream(None, self._link, self, self.first or self.key, 0, is_call=False)

    def cancel(self) -> bool:
        """Cancel the task, in one round trip. True only if it never began, or is known to have ended cancelled; see
        ``Client.cancel`` for ``kill``."""
        self._look()
        if self.outcome is not None:
            return is_cancelled(self.outcome)
        try:
            never_began = self._link.ask(commands.cancel(self.first or self.key, False), None)
        except NotFound:
            return is_cancelled(self.outcome)  # it has ended, and the daemon has already forgotten it
        if never_began:
            self._wait(None)  # its end is on its way, behind the answer
        return never_began

    @property
    def progress(self) -> tuple[float, str] | None:
        """What the handler last reported: the fraction done (0..1) and a message. None: nothing so far."""
        self._look()
        return self._progress

    def done(self) -> bool:
        self._look()
        return self.outcome is not None

    def cancelled(self) -> bool:
        self._look()
        return is_cancelled(self.outcome)

    def running(self) -> bool:
        """Whether the task is known to have begun: it has reported progress."""
        self._look()
        return self._state == RUNNING

    def __repr__(self) -> str:
        return f"<TaskFuture {self.id} {_SHOWN[self._state]}>"

    # ------------------------------------------------------------------------------------- told by the connection

    def settle(self, outcome: Outcome) -> None:
        """Store the outcome and tell whoever the standard library has waiting. Called with no lock held."""
        failed = self.has_failed(outcome)
        with self._condition:
            self.outcome = outcome
            for waiter in self._waiters:
                if is_cancelled(outcome):
                    waiter.add_cancelled(self)
                elif failed:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            self._condition.notify_all()

    def has_failed(self, outcome: Outcome) -> bool:
        """Whether ``result`` will raise, for this outcome."""
        return isinstance(outcome, BaseException) or outcome[0] != COMPLETED

    def announce(self) -> None:
        """Run the callbacks. Whatever came with this outcome is settled, so a callback may ask for it."""
        self._invoke_callbacks()  # type: ignore[attr-defined]

    def progressed(self, fraction: float, message: str) -> None:
        self._progress = (fraction, message)

    # ------------------------------------------------------------------------- read by the standard library's code

    if not TYPE_CHECKING:  # for type checkers they stay what Future says: attributes

        @property
        def _condition(self) -> threading.Condition:
            return self._made or self._make_condition()

        @property
        def _state(self) -> str:
            if self.outcome is None:
                return PENDING if self._progress is None else RUNNING
            return CANCELLED_AND_NOTIFIED if is_cancelled(self.outcome) else FINISHED

    def _make_condition(self) -> threading.Condition:
        with self._link.lock:  # the outcome is stored under it, too, unless ``observed`` is seen
            if self._made is None:
                self._waiters: list[Any] = []
                self._done_callbacks: list[Any] = []
                self._made = threading.Condition()
                self.observed = True
        if self.outcome is None:
            self._link.deliver_in_background(self)
        return self._made

    # ------------------------------------------------------------------------------------------------- own needs

    def _error(self, timeout: float | None) -> BaseException | None:
        self._wait(timeout)
        if self._raised is None:
            self._raised = self.error()
        return self._raised

    def _wait(self, timeout: float | None) -> None:
        if self.outcome is None and not self._link.wait(lambda: self.outcome is not None, timeout):
            raise TimeoutError(f"task {self.id} has not ended within {timeout} s")

    def _look(self) -> None:
        if self.outcome is None:
            self._link.look()

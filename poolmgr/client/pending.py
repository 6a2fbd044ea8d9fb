"""One thing that the daemon owes an answer: the end of a task, or the answer to a request.

Its ``outcome`` is None until then, and afterwards the message that ended it, not yet decoded (decoding is left to the
thread that asks), or the error of this side that did (the connection broke).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from poolmgr.errors import BadValue, ConnectionLost, PoolError, ProtocolError, TaskCancelled, TaskLost, from_code
from poolmgr.errors import failure as task_failure
from poolmgr.model import TaskState
from poolmgr.parcels.parcel import Parcel
from poolmgr.wire.messages import COMPLETED, FAILED, REFUSAL, REFUSED, RESPONSE
from poolmgr.wire.values import read, unpack

Outcome = Sequence[Any] | BaseException
R = TypeVar("R")


class Pending(Generic[R]):
    """What is owed. The connection sets ``key`` and ``number`` as it sends, and ``outcome`` once.

    Attributes:
        durable: of a task; what its caller is told when the connection breaks depends on it.
        first: of a task that its deduplication key found to be an earlier one: the id of that.
        key: of a task: its id, 16 bytes; of a request: empty.
        number: of a task: its place among the submits, 0 if it is only watched; of a request: its number.
        outcome: None, a message that ends a task or a request, or an error.
    """

    __slots__ = ("durable", "first", "key", "number", "outcome")

    # Somebody is to be told of the outcome, by ``settle`` and ``announce``; where it is False, it is only stored.
    observed: bool = False
    # Who gets the same outcome.
    members: Sequence[Pending[Any]] = ()

    def __init__(self, durable: bool = False) -> None:
        self.durable = durable
        self.first = b""
        self.key = b""
        self.number = 0
        self.outcome: Outcome | None = None

    def settle(self, outcome: Outcome) -> None:
        """Store the outcome and wake whoever waits. Runs no code of the user's."""
        self.outcome = outcome

    def announce(self) -> None:
        """Run the user's callbacks. All that arrived together has been settled."""

    def progressed(self, fraction: float, message: str) -> None:
        """The task reports how far it is."""

    @property
    def id(self) -> str:
        """The task's id, 32 hex digits. A submit that its ``key`` found to be an earlier task has that one's."""
        return (self.first or self.key).hex()

    def error(self) -> BaseException | None:
        """What ``value`` raises, or None. There must be an outcome."""
        outcome = self.outcome
        assert outcome is not None
        if isinstance(outcome, BaseException):
            return outcome
        kind = outcome[0]
        try:
            if kind == COMPLETED:
                # Decoded once: whoever asks again gets the same object.
                self.outcome = (RESPONSE, self.key, loaded(outcome[2]))
                return None
            return None if kind == RESPONSE and len(outcome) > 2 else error_of(outcome, self.id)
        except (BadValue, IndexError) as error:
            return error if isinstance(error, BadValue) else ProtocolError("the daemon sent a result without a value")

    def value(self) -> R:
        """The result or the answer. There must be an outcome.

        Raises:
            TaskFailed: the task ended otherwise, by the subclass that its code names.
            PoolError: the daemon refused, or the connection broke.
            BadValue, ProtocolError: the daemon sent what cannot be decoded.
        """
        error = self.error()
        if error is not None:
            raise error
        return self.outcome[2]  # type: ignore[index, no-any-return]  # an outcome without error is an answer


def loaded(payload: bytes | Parcel) -> Any:
    """The value of a result. Its file is closed when nobody holds it any more: two threads may ask at once.

    Raises:
        BadValue: it cannot be read.
    """
    return unpack(payload) if isinstance(payload, bytes) else read(payload)


def error_of(outcome: Outcome, task_id: str) -> BaseException:
    """The error that an outcome other than COMPLETED and RESPONSE stands for."""
    if isinstance(outcome, BaseException):
        return outcome
    kind = outcome[0]
    try:
        if kind in (REFUSED, REFUSAL):
            return from_code(str(outcome[2]), str(outcome[3]))
        if kind == FAILED:
            told = unpack(outcome[4]) or {}
            return task_failure(
                str(outcome[3]),
                str(told.get("message", "")),
                task_id=task_id,
                type=str(told.get("type", "")),
                traceback=str(told.get("traceback", "")),
            )
    except (IndexError, TypeError, AttributeError, BadValue) as error:
        return ProtocolError(f"the daemon described a failure in a way that cannot be read: {error!r}")
    return ProtocolError(f"a message of type {kind!r} cannot end anything")


def is_cancelled(outcome: Outcome | None) -> bool:
    """Whether a task ended as cancelled."""
    if outcome is None:
        return False
    if isinstance(outcome, BaseException):
        return isinstance(outcome, TaskCancelled)
    return outcome[0] == FAILED and outcome[2:3] == [TaskState.CANCELLED]


def loss(pending: Pending[Any], cause: PoolError, *, accepted: bool, closed: bool) -> PoolError:
    """What to tell the caller of ``pending`` when its connection ends.

    Args:
        cause: why it ended.
        accepted: the daemon has acknowledged the task.
        closed: it was this side that ended it, on purpose.
    """
    if not pending.key:
        return cause
    task_id = pending.key.hex()
    if not pending.durable:
        if closed:
            return TaskCancelled(f"{cause}; its calls end with it", task_id=task_id)
        return TaskLost(f"{cause}; whether task {task_id} ran is unknown", task_id=task_id)
    if accepted:
        return ConnectionLost(f"{cause}; task {task_id} is safe: ask for it with Client().result({task_id!r})")
    return ConnectionLost(
        f"{cause}; task {task_id} was not acknowledged: Client().task({task_id!r}) tells whether it arrived"
    )

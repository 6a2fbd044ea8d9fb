"""The outcome of a pickled call: results unpickled, exceptions as they were raised, deaths as broken executors."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, CancelledError
from typing import Any, Final, TypeVar, cast

from poolmgr.client import commands
from poolmgr.client.call_link import CallLink
from poolmgr.client.future import TaskFuture
from poolmgr.client.pending import Outcome, Pending, is_cancelled
from poolmgr.errors import BadValue, ConnectionLost, PoolError, TaskInterrupted, TaskLost, WorkerDied
from poolmgr.model import TaskState
from poolmgr.parcels.parcel import Parcel
from poolmgr.wire.messages import COMPLETED, RESPONSE
from poolmgr.wire.pickled import RAISED, RETURNED, UNUSABLE, load
from poolmgr.wire.raised import load_error
from poolmgr.wire.values import read, unpack

R = TypeVar("R")

_RETURNED: Final = bytes([RETURNED])


class BrokenWorker(WorkerDied, BrokenExecutor):
    """The process that made this call has died. Other calls are not touched, and the executor goes on."""


class BrokenPool(TaskLost, BrokenExecutor):
    """The executor cannot be used any more: its initializer failed, or its daemon has gone."""


class Call(Pending[R]):
    """A call that was handed over: a part of a ``map``."""

    __slots__ = ("_link",)

    def __init__(self, link: CallLink) -> None:
        super().__init__()
        self._link = link

    def error(self) -> BaseException | None:
        """What the call raised, or what kept it from returning; None if it has returned."""
        return error_of_call(self, self._link)


class CallFuture(TaskFuture[R]):
    """A ``concurrent.futures.Future`` of a call, with that class's behaviour in all that it documents."""

    def __init__(self, link: CallLink) -> None:
        super().__init__(link, False)
        self._calls = link

    def error(self) -> BaseException | None:
        return error_of_call(self, self._calls)

    def has_failed(self, outcome: Outcome) -> bool:
        if isinstance(outcome, BaseException) or outcome[0] != COMPLETED:
            return True
        payload: bytes | Parcel = outcome[2]
        kind = payload[1:2] if isinstance(payload, bytes) else payload.read(1, 1)
        return kind != _RETURNED  # MessagePack: the array's head, then the kind

    def cancel(self) -> bool:
        """Cancel the call, in one round trip. False if it is being made, or has been."""
        try:
            return super().cancel()
        except PoolError:  # the connection has ended under it, and so has the call
            return is_cancelled(self.outcome)

    def running(self) -> bool:
        """Whether the call is being made, or about to be: it can not be cancelled any more. Asks the daemon."""
        self._look()
        if self.outcome is None and self._progress is None:
            try:
                if self._link.ask(commands.task(self.id), None).state is TaskState.RUNNING:
                    self._progress = (0.0, "")
            except PoolError:
                pass  # it has just ended
        return super().running()


def error_of_call(call: Pending[Any], link: CallLink) -> BaseException | None:
    """What ``call.error`` returns. Of one that has returned, the result takes the place of its pickle."""
    outcome = call.outcome
    assert outcome is not None
    if not isinstance(outcome, BaseException) and outcome[0] == RESPONSE:
        return cast("BaseException | None", outcome[3])
    if isinstance(outcome, BaseException) or outcome[0] != COMPLETED:
        error = Pending.error(call)
        return error if error is None else _as_executors_say(error, is_cancelled(outcome))
    value, error = _read(outcome[2], link)
    call.outcome = (RESPONSE, call.key, value, error)  # in one step: another thread may ask, too
    return error


def _read(payload: bytes | Parcel, link: CallLink) -> tuple[Any, BaseException | None]:
    try:
        told = unpack(payload) if isinstance(payload, bytes) else read(payload, writable=True)
    except BadValue as damaged:
        return None, damaged
    kind = told[0]
    if kind == RETURNED:
        try:
            return load(told[1], told[2] if len(told) > 2 else ()), None
        except Exception as failure:
            failure.add_note("This was raised as the result of the call was unpickled.")
            return None, failure
    error = load_error(told)
    if kind == RAISED:
        return None, error
    assert kind == UNUSABLE
    broken = BrokenPool("a worker's initializer has failed, so the executor cannot be used any more")
    broken.__cause__ = error
    link.lose(broken)
    return None, broken


def _as_executors_say(error: BaseException, cancelled: bool) -> BaseException:
    if cancelled:
        return CancelledError()
    if isinstance(error, (WorkerDied, TaskInterrupted)):
        return BrokenWorker(error.message, task_id=error.task_id)
    if isinstance(error, (TaskLost, ConnectionLost)) and not isinstance(error, BrokenPool):
        broken = BrokenPool(getattr(error, "message", str(error)))
        broken.__cause__ = error.__cause__
        return broken
    return error

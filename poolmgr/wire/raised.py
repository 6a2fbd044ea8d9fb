"""An exception with all that belongs to it, as it travels in the result of a call (pickled.py), and back.

    [kind, pickle | nil, type, message, traceback, why: str]

The pickle is of (exceptions, links): the exception, and every other that can be reached from it as a cause, a context
or a member of a group, once each; and of each (cause, context, suppress_context), by their place in the list, -1 for
none. It is nil where the exception cannot be pickled, or not be loaded again; ``why`` tells.
"""

from __future__ import annotations

import pickle
from typing import Any, Final

from poolmgr.errors import TaskFailed
from poolmgr.wire.pickled import dump

_MOST: Final = 256  # exceptions that travel with one; of more, the traceback tells


class RemoteTraceback(Exception):
    """The traceback in the worker, as text. It is the cause of an exception that has come from there: of the exception
    itself, or where that has a cause of its own, of the last in that line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def dump_error(kind: int, error: BaseException, name: str, message: str, traceback: str) -> list[Any]:
    """The array that tells of ``error``, which is named, says and was traced as the rest tells."""
    pickled, why = None, ""
    try:
        pickled = _dump(error)
    except Exception as failure:
        why = f"{type(failure).__name__}: {failure}"
    return [kind, pickled, name, message, traceback, why]


def load_error(told: list[Any]) -> BaseException:
    """The exception that ``dump_error`` told of. Where it cannot be had here, a ``TaskFailed`` that says the same."""
    _, pickled, name, message, traceback, why = told[:6]
    error: BaseException | None = None
    if pickled is not None:
        try:
            error = _load(pickled)
        except Exception as failure:
            why = f"{type(failure).__name__}: {failure}"
    if error is None:
        stand_in = TaskFailed(message, type=name, traceback=traceback)
        stand_in.add_note(f"This stands for the exception that the call raised, which cannot be brought back: {why}")
        return stand_in
    last, seen = error, {id(error)}
    while last.__cause__ is not None and id(last.__cause__) not in seen:
        last = last.__cause__
        seen.add(id(last))
    if last.__cause__ is None:
        last.__cause__ = RemoteTraceback(traceback)
    return error


def _dump(error: BaseException) -> bytes:
    errors = _reachable(error)
    places = {id(each): place for place, each in enumerate(errors)}
    links = [
        (
            places.get(id(each.__cause__), -1),
            places.get(id(each.__context__), -1),
            each.__suppress_context__,
        )
        for each in errors
    ]
    try:
        return _checked((errors, links))
    except Exception:
        if len(errors) == 1:
            raise
    carried = [error, *(each if _travels(each) else _stand_in(each) for each in errors[1:])]
    return _checked((carried, links))


def _checked(value: Any) -> bytes:
    """Its pickle, which loads. Many exceptions do not: their ``__init__`` wants other arguments than they keep."""
    pickled = dump(value)
    pickle.loads(pickled)
    return pickled


def _travels(error: BaseException) -> bool:
    try:
        _checked(error)
    except Exception:
        return False
    return True


def _stand_in(error: BaseException) -> TaskFailed:
    kind = type(error)
    try:
        message = str(error)
    except Exception:
        message = ""
    return TaskFailed(message, type=f"{kind.__module__}.{kind.__qualname__}")


def _reachable(error: BaseException) -> list[BaseException]:
    """``error`` first."""
    found = [error]
    known = {id(error)}
    for each in found:  # which grows
        members = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        for other in (each.__cause__, each.__context__, *members):
            if other is not None and id(other) not in known and len(found) < _MOST:
                known.add(id(other))
                found.append(other)
    return found


def _load(pickled: bytes) -> BaseException:
    errors, links = pickle.loads(pickled)
    for each, (cause, context, suppress) in zip(errors, links, strict=True):
        each.__cause__ = errors[cause] if cause >= 0 else None
        each.__context__ = errors[context] if context >= 0 else None
        each.__suppress_context__ = suppress
    if not isinstance(errors[0], BaseException):
        raise TypeError(f"it was loaded as {type(errors[0]).__name__}")
    found: BaseException = errors[0]
    return found

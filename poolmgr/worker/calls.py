"""Calls of pickled callables: load, call, and tell the result or the exception (wire/pickled.py has the shapes).

An executor's calls share what its worker processes would share under the standard library: the initializer runs once a
process, before the first call there; and functions of ``__main__`` see one set of global variables (main_globals.py).
"""

from __future__ import annotations

from collections import OrderedDict
from types import FunctionType
from typing import Any, Final

from poolmgr.model import exception_name
from poolmgr.wire.pickled import RAISED, RETURNED, UNUSABLE, dump, load, own
from poolmgr.wire.raised import dump_error
from poolmgr.worker.main_globals import MainGlobals
from poolmgr.worker.run import text_of, traceback_of

EXECUTORS_KEPT: Final = 64  # of a shared worker; one that comes back after so many others is initialized again
_KEPT_BYTES: Final = 64 * 1024  # a function whose pickle is larger holds data, and is not kept between two calls


class _Executor:
    """What this process keeps for one executor."""

    def __init__(self) -> None:
        self.globals = MainGlobals()
        self.initialized = False
        self.unusable: list[Any] | None = None  # how its initializer failed
        self._last: tuple[bytes, Any] = (b"", None)  # the function that came last, as a pickle and as it is

    def function(self, pickled: bytes) -> Any:
        """The callable of a ``map``, whose parts mostly come one after the other."""
        if pickled == self._last[0]:
            return self._last[1]
        function = self.globals.load(pickled)
        # Any other callable may have a state: it is to come fresh to each part, as it does in the standard library.
        if isinstance(function, FunctionType) and len(pickled) <= _KEPT_BYTES:
            self._last = (pickled, function)
        return function

    def initialize(self, path: str) -> None:
        """Run the initializer that lies at ``path``; a failure is remembered in ``unusable``."""
        self.initialized = True
        try:
            with open(path, "rb") as file:
                initializer, arguments = self.globals.load(file.read())
            initializer(*arguments)
        except BaseException as error:
            self.unusable = _told(UNUSABLE, error)


_executors: OrderedDict[bytes, _Executor] = OrderedDict()


def call(
    pickled: bytes, function: bytes, token: bytes, initializer: str, buffers: list[bytes] | None = None
) -> list[Any]:
    """Make the call, or the calls of a part of a ``map``."""
    executor = _executors.get(token) or _admit(token)
    if initializer and not executor.initialized:
        executor.initialize(initializer)
    if executor.unusable is not None:
        return executor.unusable
    try:
        if function:
            target, columns = _loaded(executor, function, pickled, buffers)
            if type(columns) is not tuple:
                raise TypeError("this part of a map is of another version of poolmgr: restart the program that sent it")
            if len(columns) == 1:  # by far the most: each call's arguments in a tuple cost more than a short call
                value: Any = [target(argument) for argument in columns[0]]
            else:
                value = [target(*arguments) for arguments in zip(*columns, strict=True)]
        else:
            target, arguments, named = _loaded(executor, b"", pickled, buffers)
            value = target(*arguments, **named)
    except BaseException as error:
        return _told(RAISED, error)
    try:
        if buffers is None:
            return [RETURNED, dump(value)]
        apart: list[memoryview] = []
        return [RETURNED, dump(value, apart), apart]
    except Exception as error:
        error.add_note("This was raised in the worker, as it pickled the result of the call.")
        return _told(RAISED, error)


def _admit(token: bytes) -> _Executor:
    if len(_executors) >= EXECUTORS_KEPT:
        _executors.popitem(last=False)
    executor = _executors[token] = _Executor()
    return executor


def _loaded(executor: _Executor, function: bytes, pickled: bytes, buffers: list[bytes] | None) -> Any:
    try:
        if function:
            return executor.function(function), load(pickled, buffers or ())
        return executor.globals.load(pickled, own(buffers or ()))
    except Exception as error:
        error.add_note("This was raised in the worker, as it unpickled the call: can it import the same modules?")
        raise


def _told(kind: int, error: BaseException) -> list[Any]:
    return dump_error(kind, error, exception_name(type(error)), _sound(text_of(error)), _sound(traceback_of(error)))


def _sound(text: str) -> str:
    """Text that the wire carries: without lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()

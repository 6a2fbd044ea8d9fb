"""The global variables of functions that come by value, from a ``__main__`` that this process does not have.

cloudpickle gives the functions of each pickle a set of global variables of their own, made anew. But a program that
an executor's initializer sets up (``global connection; connection = ...``), or that fills a cache in its calls, counts
on the variables of one module, which live as long as the process.

So here all that comes for one executor shares one set. A variable has the value that came last, unless it was bound
again or changed in this process: then what is here counts, and what comes is ignored.
"""

from __future__ import annotations

import io
import pickle
from hashlib import blake2b
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple

from poolmgr.wire.pickled import dump

_MAIN: Final = "__main__"
_CLOUDPICKLE: Final = "cloudpickle.cloudpickle"
# What is not changed, but bound again; or, as code, is not looked into.
_CONSTANT: Final = (type(None), bool, int, float, complex, str, bytes, FunctionType, ModuleType, type)


class _Came(NamedTuple):
    value: Any
    content: bytes | None  # a digest of its pickle; None: it is constant, or there is none


class MainGlobals:
    """One program's ``__main__``, as far as it has come."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {}
        self._came: dict[str, _Came] = {}  # each variable as it came last
        self._coming: dict[str, Any] = {}  # those that the pickle has brought which is being loaded

    def load(self, pickled: bytes, buffers: list[bytearray] | None = None) -> Any:
        """What ``pickled.dump`` made a pickle of. ``buffers``: those that belong to it."""
        if _CLOUDPICKLE.encode() not in pickled:
            return pickle.loads(pickled, buffers=buffers)
        try:
            return _Unpickler(pickled, self, buffers).load()
        finally:  # only now are they whole: they may refer to each other
            coming, self._coming = self._coming, {}
            for name, value in coming.items():
                self._came[name] = _Came(value, _content(value))

    def make_function(self, make: Any, code: Any, names: dict[str, Any], *rest: Any) -> FunctionType:
        """cloudpickle's ``_make_function``, with our variables where they are those of ``__main__``."""
        if names.get("__name__") == _MAIN:
            for name, value in names.items():
                self._names.setdefault(name, value)
            names = self._names
        function: FunctionType = make(code, names, *rest)
        return function

    def set_state(self, set_state: Any, function: FunctionType, state: tuple[Any, dict[str, Any]]) -> None:
        """cloudpickle's ``_function_setstate``, without the variables that have a value of this process's own."""
        attributes, slots = state
        if function.__globals__ is self._names:
            taken = {name: value for name, value in slots["__globals__"].items() if not self._is_own(name)}
            self._coming.update(taken)
            slots = {**slots, "__globals__": taken}
        set_state(function, (attributes, slots))

    def _is_own(self, name: str) -> bool:
        """Whether the variable was bound or changed here since it came."""
        if name in self._coming or name not in self._names:
            return False
        came = self._came.get(name)
        here = self._names[name]
        return came is None or here is not came.value or came.content != _content(here)


class _Unpickler(pickle.Unpickler):
    """Has cloudpickle's functions made with the variables of ``MainGlobals``."""

    def __init__(self, pickled: bytes, main: MainGlobals, buffers: list[bytearray] | None) -> None:
        super().__init__(io.BytesIO(pickled), buffers=buffers)
        self._main = main

    def find_class(self, module: str, name: str, /) -> Any:
        found = super().find_class(module, name)
        if module == _CLOUDPICKLE:
            if name == "_make_function":
                return lambda *arguments: self._main.make_function(found, *arguments)
            if name == "_function_setstate":
                return lambda *arguments: self._main.set_state(found, *arguments)
        return found


def _content(value: Any) -> bytes | None:
    if isinstance(value, _CONSTANT):
        return None
    try:
        return blake2b(dump(value), digest_size=16).digest()
    except Exception:
        return None

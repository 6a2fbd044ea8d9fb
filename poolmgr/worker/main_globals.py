"""The global variables of functions that come by value, from a ``__main__`` that this process does not have.

cloudpickle gives the functions of each pickle a set of global variables of their own, made anew. But a program that
an executor's initializer sets up (``global connection; connection = ...``), or that loads its model in the first call,
counts on the variables of one module, which live as long as the process.

So here all that comes for one executor shares one set. A variable has the value that came last, unless it was bound
again in this process: then what is here counts, and what comes is ignored.
"""

from __future__ import annotations

import io
import pickle
from types import FunctionType
from typing import Any, Final

_MAIN: Final = "__main__"
_CLOUDPICKLE: Final = "cloudpickle.cloudpickle"
_ABSENT: Final = object()


class MainGlobals:
    """One program's ``__main__``, as far as it has come."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {}
        self._came: dict[str, Any] = {}  # each variable's value as it came last

    def load(self, pickled: bytes) -> Any:
        """What ``pickled.dump`` made a pickle of."""
        if _CLOUDPICKLE.encode() in pickled:
            return _Unpickler(pickled, self).load()
        return pickle.loads(pickled)

    def make_function(self, make: Any, code: Any, names: dict[str, Any], *rest: Any) -> FunctionType:
        """cloudpickle's ``_make_function``, with our variables where they are those of ``__main__``."""
        if names.get("__name__") == _MAIN:
            for name, value in names.items():
                self._names.setdefault(name, value)
            names = self._names
        function: FunctionType = make(code, names, *rest)
        return function

    def set_state(self, set_state: Any, function: FunctionType, state: tuple[Any, dict[str, Any]]) -> None:
        """cloudpickle's ``_function_setstate``, without the variables that were bound again here."""
        attributes, slots = state
        if function.__globals__ is self._names:
            slots = {**slots, "__globals__": self._taken(slots["__globals__"])}
        set_state(function, (attributes, slots))

    def _taken(self, coming: dict[str, Any]) -> dict[str, Any]:
        taken = {}
        for name, value in coming.items():
            here = self._names.get(name, _ABSENT)
            if here is _ABSENT or here is self._came.get(name, _ABSENT):
                taken[name] = self._came[name] = value
        return taken


class _Unpickler(pickle.Unpickler):
    """Has cloudpickle's functions made with the variables of ``MainGlobals``."""

    def __init__(self, pickled: bytes, main: MainGlobals) -> None:
        super().__init__(io.BytesIO(pickled))
        self._main = main

    def find_class(self, module: str, name: str, /) -> Any:
        found = super().find_class(module, name)
        if module == _CLOUDPICKLE:
            if name == "_make_function":
                return lambda *arguments: self._main.make_function(found, *arguments)
            if name == "_function_setstate":
                return lambda *arguments: self._main.set_state(found, *arguments)
        return found

"""The modules of a process, and those functions of the standard library that are replaced the most.

To remember them is to touch them all, and with them some 1.5 MB of memory: the template does it, once, for all that it
forks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from operator import itemgetter
from types import BuiltinFunctionType, FunctionType
from typing import Any

# Whoever replaces functions or classes of the standard library does it in these, for the most part.
_PATCHABLE = ("builtins", "os", "time", "socket", "threading", "subprocess", "signal")


class Bindings:
    """Names in a namespace, and what they stand for. Compared some 20 ns a name."""

    def __init__(self, namespace: dict[str, Any], names: Iterable[str]) -> None:
        self._namespace = namespace
        self._names = tuple(names)
        self._get = itemgetter(*self._names)
        self._values = self._get(namespace)

    def changed(self) -> str:
        """A name that stands for something else now, or for nothing; '' for none."""
        try:
            if self._get(self._namespace) == self._values:
                return ""
        except KeyError:
            pass
        found = zip(self._names, self._values, strict=True)
        return next((name for name, value in found if self._namespace.get(name) is not value), "")

    def put_back(self) -> None:
        """All of them; names that were not there before stay as they are."""
        self._namespace.update(zip(self._names, self._values, strict=True))


class Library:
    """As it is when this is made."""

    def __init__(self) -> None:
        self.modules = Bindings(sys.modules, sys.modules)
        self.functions = [
            (name, Bindings(vars(module), [key for key, value in vars(module).items() if _is_function(value)]))
            for name in _PATCHABLE
            if (module := sys.modules.get(name)) is not None
        ]


def _is_function(value: object) -> bool:
    return isinstance(value, (BuiltinFunctionType, FunctionType, type))

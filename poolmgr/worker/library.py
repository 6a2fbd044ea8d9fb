"""The modules of a process, and those functions of the standard library that are replaced the most.

To remember them is to touch them all, and with them some 1.5 MB of memory: the template does it, once, for all that it
forks. To compare them is to touch them again, since Python counts each reference that it holds, and what a worker
touches is no longer shared with the template: 0.6 MB a worker. So a namespace is first asked whether it was changed at
all, where it can tell.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable
from operator import itemgetter
from types import BuiltinFunctionType, FunctionType
from typing import Any

# Whoever replaces functions or classes of the standard library does it in these, for the most part.
_PATCHABLE = ("builtins", "os", "time", "socket", "threading", "subprocess", "signal")


_VERSION_AT = 3 * ctypes.sizeof(ctypes.c_void_p)  # behind reference count, type and number of entries


def _version_of(namespace: dict[Any, Any]) -> Callable[[], int]:
    """Tells a number that is another after each change of the dictionary, and touches nothing of what is in it; only
    where ``_HAS_VERSIONS``.

    It is PEP 509's ``ma_version_tag``, which CPython has up to 3.12 and does not show; what lies there is tried out.
    """
    version = ctypes.c_uint64.from_address(id(namespace) + _VERSION_AT)
    return lambda: version.value


def _has_versions() -> bool:
    if sys.implementation.name != "cpython" or sys.version_info >= (3, 13):
        return False
    tried: dict[str, object] = {"name": 1, "other": 2}
    version_of, seen = _version_of(tried), set()
    seen.add(version_of())
    seen.add(version_of())  # as it was
    tried["name"] = 3
    seen.add(version_of())
    del tried["other"]
    seen.add(version_of())
    tried["new"] = 4
    seen.add(version_of())
    return len(seen) == 4


_HAS_VERSIONS = _has_versions()


class Bindings:
    """Names in a namespace, and what they stand for. Compared some 20 ns a name, and not at all where it can tell that
    it is as it was."""

    def __init__(self, namespace: dict[str, Any], names: Iterable[str]) -> None:
        self._namespace = namespace
        self._names = tuple(names)
        self._get = itemgetter(*self._names)
        self._values = self._get(namespace)
        self._version = _version_of(namespace) if _HAS_VERSIONS else None
        self._as_it_was = None if self._version is None else self._version()

    def changed(self) -> str:
        """A name that stands for something else now, or for nothing; '' for none."""
        version = None if self._version is None else self._version()
        if version is not None and version == self._as_it_was:
            return ""
        try:
            if self._get(self._namespace) == self._values:
                self._as_it_was = version
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

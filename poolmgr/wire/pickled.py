"""Calls of any callable: what travels in the payload of the task ``CALL``, which every Python worker knows.

The arguments of the task:

    call: bin               a pickle of (callable, args, kwargs)
                            ... or, of a part of a ``map``: a pickle of the list of each call's args
    function: bin           of a part of a ``map``: a pickle of the callable; else empty
    executor: bin           8 bytes that tell one executor from all others
    initializer: str        where the executor's initializer lies (``initializer_path``), or empty

Its result is an array: [RETURNED, pickle], or RAISED and what raised.py tells of an exception, or UNUSABLE and the
same: the initializer has failed in that process. An exception is the outcome of a call and no failure of the task: it
is not tried again, and no dead letter.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any, Final

CALL: Final = "poolmgr:call"

RETURNED: Final = 0
RAISED: Final = 1
UNUSABLE: Final = 2

_PROTOCOL: Final = 5
_MAIN: Final = b"__main__"


def dump(value: Any) -> bytes:
    """A pickle of ``value`` that a process with the same modules, but another ``__main__``, can load.

    The standard library's pickler is ten times as fast as cloudpickle's, and mostly does. Where it cannot, or names
    what only this process has, cloudpickle takes the code itself along.

    Raises:
        Exception: whatever pickling raises; usually PicklingError, TypeError or AttributeError.
    """
    try:
        pickled = pickle.dumps(value, _PROTOCOL)
    except MemoryError:
        raise
    except Exception:
        pickled = _MAIN
    if _MAIN not in pickled and not _taken_along():
        return pickled
    import cloudpickle

    by_value: bytes = cloudpickle.dumps(value, _PROTOCOL)
    return by_value


def _taken_along() -> bool:
    """Whether the user has asked cloudpickle to take some modules' code along."""
    loaded = sys.modules.get("cloudpickle.cloudpickle")
    return loaded is not None and bool(loaded.list_registry_pickle_by_value())


def initializer_path(pid: int, fd: int) -> str:
    """Where another process of the same user finds the file that ``fd`` is in the process ``pid``."""
    return f"/proc/{pid}/fd/{fd}"

"""Calls of any callable: what travels in the payload of the task ``CALL``, which every Python worker knows.

The arguments of the task:

    call: bin               a pickle of (callable, args, kwargs)
                            ... or, of a part of a ``map``: a pickle of a tuple: what it has of each iterable
    function: bin           of a part of a ``map``: a pickle of the callable; else empty
    executor: bin           8 bytes that tell one executor from all others
    initializer: str        where the executor's initializer lies (``initializer_path``), or empty
    buffers: array          bins, which belong to ``call``: what its pickle holds out of band (pickle protocol 5).
                            May be left out; then there are none, and the result has none either.

Its result is an array: [RETURNED, pickle, buffers], or RAISED and what raised.py tells of an exception, or UNUSABLE and
the same: the initializer has failed in that process. An exception is the outcome of a call and no failure of the task:
it is not tried again, and no dead letter.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from poolmgr.wire.parts import LARGE_BYTES

CALL: Final = "poolmgr:call"

RETURNED: Final = 0
RAISED: Final = 1
UNUSABLE: Final = 2

_PROTOCOL: Final = 5
_MAIN: Final = b"__main__"


def dump(value: Any, buffers: list[memoryview] | None = None) -> bytes:
    """A pickle of ``value`` that a process with the same modules, but another ``__main__``, can load.

    The standard library's pickler is ten times as fast as cloudpickle's, and mostly does. Where it cannot, or names
    what only this process has, cloudpickle takes the code itself along.

    Args:
        buffers: gets large memory that stays where it is, such as a numpy array's, and is not in the pickle. ``load``
            wants it back.

    Raises:
        Exception: whatever pickling raises; usually PicklingError, TypeError or AttributeError.
    """
    keep = None if buffers is None else _keeper(buffers)
    try:
        pickled = pickle.dumps(value, _PROTOCOL, buffer_callback=keep)
    except MemoryError:
        raise
    except Exception:
        pickled = _MAIN
    if _MAIN not in pickled and not _taken_along():
        return pickled
    import cloudpickle

    if buffers is not None:
        buffers.clear()
    by_value: bytes = cloudpickle.dumps(value, _PROTOCOL, buffer_callback=keep)
    return by_value


def _keeper(buffers: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    """Tells pickle of each buffer whether it is to be in the pickle."""

    def keep(buffer: pickle.PickleBuffer) -> bool:
        try:
            memory = buffer.raw()
        except BufferError:  # it does not lie in one piece
            return True
        if memory.nbytes < LARGE_BYTES:
            return True
        buffers.append(memory)
        return False

    return keep


def load(pickled: bytes | bytearray, buffers: Sequence[bytes | bytearray] = ()) -> Any:
    """What ``dump`` pickled; its buffers become the memory of what it makes, to be written to as any other.

    Raises:
        Exception: whatever unpickling raises.
    """
    return pickle.loads(pickled, buffers=own(buffers))


def own(buffers: Sequence[bytes | bytearray]) -> list[bytearray]:
    """Buffers that may be written to."""
    return [each if type(each) is bytearray else bytearray(each) for each in buffers]


def _taken_along() -> bool:
    """Whether the user has asked cloudpickle to take some modules' code along."""
    loaded = sys.modules.get("cloudpickle.cloudpickle")
    return loaded is not None and bool(loaded.list_registry_pickle_by_value())


def initializer_path(pid: int, fd: int) -> str:
    """Where another process of the same user finds the file that ``fd`` is in the process ``pid``."""
    return f"/proc/{pid}/fd/{fd}"

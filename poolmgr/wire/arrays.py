"""numpy's arrays and scalars on the wire: the dtype's text, the shape, the bytes in C order.

numpy is imported when a payload holds an array, never before: most apps have none, and it costs 100 ms.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from poolmgr.errors import BadValue

_CARRIED_KINDS: Final = "biufcmMSU"  # numbers, times and text of fixed size; neither objects nor structures


def is_scalar(cls: type) -> bool:
    """Whether ``cls`` is a type of numpy's scalars, such as ``numpy.float64``."""
    generic = getattr(sys.modules.get("numpy"), "generic", None)
    return generic is not None and issubclass(cls, generic)


def encode_array(value: Any, pack: Callable[[Any], bytes]) -> bytes:
    """An array as [dtype, shape, bytes].

    Raises:
        BadValue: it holds objects or structures.
    """
    _check_kind(value.dtype)
    return pack([value.dtype.str, list(value.shape), value.tobytes()])


def described(value: Any) -> tuple[str, list[int], memoryview]:
    """The same three of an array whose bytes lie in C order; they are not copied.

    Raises:
        BadValue: as for ``encode_array``.
    """
    _check_kind(value.dtype)
    return value.dtype.str, list(value.shape), memoryview(value.reshape(-1).view("u1"))


def decode_array(data: bytes, unpack: Callable[[bytes], Any]) -> Any:
    """What ``encode_array`` wrote, as an array that owns its memory and may be written to.

    Raises:
        BadValue: numpy is not installed here, or the dtype is not one that is carried.
    """
    text, shape, content = unpack(data)
    return made(text, shape, bytearray(content))


def made(text: str, shape: list[int], memory: bytearray | bytes) -> Any:
    """An array in ``memory``.

    Raises:
        BadValue: as for ``decode_array``.
    """
    numpy, dtype = _numpy(text)
    return numpy.ndarray(tuple(shape), dtype, memory)


def encode_scalar(value: Any, pack: Callable[[Any], bytes]) -> bytes:
    """A numpy scalar as [dtype, bytes].

    Raises:
        BadValue: it is an object or a structure.
    """
    _check_kind(value.dtype)
    return pack([value.dtype.str, value.tobytes()])


def decode_scalar(data: bytes, unpack: Callable[[bytes], Any]) -> Any:
    """What ``encode_scalar`` wrote.

    Raises:
        BadValue: as for ``decode_array``.
    """
    text, content = unpack(data)
    numpy, dtype = _numpy(text)
    return numpy.ndarray((), dtype, content)[()]


def _check_kind(dtype: Any) -> None:
    if dtype.kind not in _CARRIED_KINDS:
        raise BadValue(f"cannot carry numpy values of dtype {dtype}")


def _numpy(text: str) -> tuple[Any, Any]:
    try:
        numpy = import_module("numpy")
    except ImportError:
        raise BadValue("the value holds numpy data, and numpy is not installed here") from None
    dtype = numpy.dtype(text)
    _check_kind(dtype)
    return numpy, dtype

"""Python values as payload bytes, and back.

A payload is one MessagePack value. A result is the value itself; a call is the array [args: array, kwargs: map], or
[args] where there are no keyword arguments. What MessagePack does not know travels as one of the extension types in
extensions.py.

A value comes back equal and of the same type, or is refused with the path to it: nothing is flattened silently.
Three exceptions, because they happen below the hooks of ``msgpack``: a ``bytearray`` and a contiguous ``memoryview``
come back as ``bytes``, and a ``msgpack.Timestamp`` as a datetime in UTC. An object that occurs twice comes back as two.

Packing and unpacking run once a task in the client and once in the worker. So the good path is two calls into
``msgpack``, and all questions about what went wrong are asked only afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from msgpack import ExtType, Packer, unpackb

from poolmgr.errors import BadValue, PayloadTooLarge
from poolmgr.wire import parts
from poolmgr.wire.extensions import DECODERS, extension_of
from poolmgr.wire.extensions import parts as parts_of
from poolmgr.wire.messages import PAYLOAD_LIMIT

# How deep extension values may lie within each other. ``unpackb`` keeps 40 KB on the C stack for each such level, and
# at about 200 levels a peer's payload would crash the process; these 64 take 2.6 MB of its 8 MB.
MAX_NESTING: Final = 64
# How deep lists and dicts may lie within each other before we say so. ``msgpack`` itself gives up at 511 or 1,024,
# depending on its version.
MAX_DEPTH: Final = 500

_KEEP_BYTES: Final = 1 << 20  # a packer never gives back its buffer: one that was larger than this is dropped
_MB: Final = 1 << 20
_NAMES: Final = {str}  # the type of keyword arguments' names
SMALL: Final = frozenset({int, str, float, bool, type(None), dict})  # what is never written in parts


def pack(value: Any, name: str = "result", limit: int = PAYLOAD_LIMIT) -> bytes:
    """``value`` as a payload.

    Args:
        value: what is to be carried.
        name: what messages call it; a path starts with it.
        limit: how many bytes it may take.

    Raises:
        BadValue: it cannot be carried; the message starts with the path to the culprit, ``result['x'][3]``.
        PayloadTooLarge: it takes more than ``limit`` bytes.
    """
    try:
        packed = _pack(value)
    except MemoryError:
        raise
    except Exception as error:
        raise _bad_value(((name, value),), error) from None
    if len(packed) > limit:
        raise _too_large(name, len(packed), limit)
    return packed


def unpack(payload: bytes) -> Any:
    """The value of a payload that ``pack`` made, here or elsewhere.

    Raises:
        BadValue: the payload is damaged, or holds what this process does not have (a class, a time zone, numpy).
    """
    try:
        return unpackb(payload, ext_hook=_ext_hook, strict_map_key=False, timestamp=3)
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(error) from None


def pack_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The arguments of a call as a payload.

    Raises:
        BadValue: the message starts with the path to what cannot be carried: ``args[0]['x'][3]``,
            ``kwargs['size'].width``.
        PayloadTooLarge: together they take more than ``PAYLOAD_LIMIT`` bytes.
    """
    try:
        packed = _pack([[*args], kwargs] if kwargs else [[*args]])
    except MemoryError:
        raise
    except Exception as error:
        raise _bad_value((("args", [*args]), ("kwargs", kwargs)), error) from None
    if len(packed) > PAYLOAD_LIMIT:
        raise _too_large("args", len(packed), PAYLOAD_LIMIT)
    return packed


def call_parts(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[parts.Part] | None:
    """What ``pack_call`` makes, in parts, where a positional argument is large; else None.

    Raises:
        BadValue, PayloadTooLarge: as ``pack_call``.
    """
    for each in args:
        if type(each) not in SMALL and parts.has_large(each):
            found = _split([[*args], kwargs] if kwargs else [[*args]])
            return found if found is not None else [pack_call(args, kwargs)]
    return None


def value_parts(value: Any, name: str = "result", limit: int = PAYLOAD_LIMIT) -> list[parts.Part] | None:
    """What ``pack`` makes of a result, in parts, where it is large; else None. Errors: as ``pack``."""
    if type(value) in SMALL or not parts.has_large(value):
        return None
    found = _split(value, limit)
    return found if found is not None else [pack(value, name, limit)]


def _split(value: Any, limit: int = PAYLOAD_LIMIT) -> list[parts.Part] | None:
    """None: it cannot be packed, or is too large. Whoever packs it as a whole is told why."""
    try:
        found = parts.split(value, _pack)
    except MemoryError:
        raise
    except Exception:
        return None
    return found if sum(map(len, found)) <= limit else None


def read(source: parts.Source, writable: bool = False) -> Any:
    """``unpack`` of what is in a file. ``writable``: as of ``read_call``. Errors: as ``unpack``."""
    return _read(source, writable)


def read_call(source: parts.Source, writable: bool = False) -> tuple[list[Any], dict[str, Any]]:
    """``unpack_call`` of what is in a file. Errors: as ``unpack_call``.

    Args:
        writable: large binaries are to be bytearrays, not bytes.
    """
    return _as_call(_read(source, writable))


def _read(source: parts.Source, writable: bool) -> Any:
    try:
        return parts.Reading(source, _ext_hook, writable).value()
    except parts.WholeNeeded:
        return unpack(source.read(0, source.size))
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(error) from None


def unpack_call(payload: bytes) -> tuple[list[Any], dict[str, Any]]:
    """The positional and the keyword arguments of a payload that ``pack_call`` made, here or elsewhere.

    Raises:
        BadValue: as for ``unpack``, or the payload is none of a call.
    """
    try:
        call = unpackb(payload, ext_hook=_ext_hook, strict_map_key=False, timestamp=3)
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(error) from None
    return _as_call(call)


def _as_call(call: Any) -> tuple[list[Any], dict[str, Any]]:
    if type(call) is list and call and type(call[0]) is list:
        if len(call) == 1:
            return call[0], {}
        if len(call) == 2 and type(call[1]) is dict and {*map(type, call[1])} <= _NAMES:
            return call[0], call[1]
    raise BadValue("the payload of a call is an array of its arguments [args: array, kwargs: map]")


# ------------------------------------------------------------------------------- extension values in each other


class _Level:
    """How values are packed and unpacked so many extension values deep.

    ``msgpack`` calls a hook for each extension value, and the hook packs what is within with the next level. The
    packers of a level are a free list: one is taken for one call, so that neither a second thread nor a hook that comes
    back to this level meets a packer at work (``Packer`` bears neither). ``list.pop`` and ``append`` are atomic.
    """

    __slots__ = ("_free", "_inner")

    def __init__(self, levels_below: int) -> None:
        self._free: list[Packer] = []
        self._inner = _Level(levels_below - 1) if levels_below else None

    def pack(self, value: Any) -> bytes:
        try:
            packer = self._free.pop()
        except IndexError:
            packer = Packer(default=self._default, strict_types=True)
        packed = packer.pack(value)  # after an error, what the packer holds is not worth knowing: it is dropped
        if len(packed) <= _KEEP_BYTES:
            self._free.append(packer)
        return packed

    def unpack(self, data: bytes) -> Any:
        return unpackb(data, ext_hook=self.ext_hook, strict_map_key=False, timestamp=3)

    def _default(self, value: Any) -> ExtType:
        extension = extension_of(value)
        return ExtType(extension.code, extension.encode(value, self._next().pack))

    def ext_hook(self, code: int, data: bytes) -> Any:
        decode = DECODERS.get(code)
        if decode is None:
            raise BadValue(f"extension type {code} is not known here: it may come from a newer peer")
        return decode(data, self._next().unpack)

    def _next(self) -> _Level:
        if self._inner is None:
            raise BadValue(f"tuples, sets, dataclasses and the like are nested more than {MAX_NESTING} deep")
        return self._inner


_outermost: Final = _Level(MAX_NESTING)
_pack: Final = _outermost.pack
_ext_hook: Final = _outermost.ext_hook


# ------------------------------------------------------------------------------- what went wrong, and where


def _too_large(name: str, size: int, limit: int) -> PayloadTooLarge:
    what = "the arguments take" if name == "args" else f"the {name} takes"
    return PayloadTooLarge(
        f"{what} {size / _MB:.2f} MB, and the limit is {limit / _MB:.2f} MB:"
        " write large data to a file and pass its path"
    )


def _unreadable(error: Exception) -> BadValue:
    if isinstance(error, BadValue):
        return error
    return BadValue(f"the payload cannot be read: {str(error) or type(error).__name__}")


def _bad_value(roots: Iterable[tuple[str, Any]], error: Exception) -> BadValue:
    """The refusal of values of which packing has failed with ``error``."""
    return BadValue(_search(roots) or f"cannot carry the value: {_reason(error)}")


def _search(roots: Iterable[tuple[str, Any]]) -> str | None:
    """The path to the first thing that cannot be packed, and why not; None if there is none (it has just changed).

    Goes down by hand, not by recursion: what it looks for may be nested without end.
    """
    searched: dict[int, Any] = {}  # by id, and kept alive, so that an id keeps its meaning
    above: list[tuple[str, Any, Iterator[tuple[str, Any]]]] = [("", None, iter(roots))]
    while above:
        path, _, rest = above[-1]
        try:
            found = next(rest, None)
        except Exception as error:  # a part that cannot even be had, or a dict that another thread changes
            return f"{_shortened(path)}: {_reason(error)}"
        if found is None:
            above.pop()
            continue
        path, value = path + found[0], found[1]
        within = parts_of(value)
        if within is None:
            reason = _refusal(value)
        elif id(value) in searched and not any(value is each for _, each, _ in above):
            continue
        else:
            reason = _bottomless(value, [each for _, each, _ in above])
            searched[id(value)] = value
            above.append((path, value, within))
        if reason:
            return f"{_shortened(path)}: {reason}"
    return None


def _refusal(leaf: Any) -> str | None:
    try:
        _pack(leaf)
    except Exception as error:
        return _reason(error)
    return None


def _bottomless(value: Any, above: list[Any]) -> str | None:
    if any(value is each for each in above):
        return "a value that contains itself cannot be carried"
    if len(above) > MAX_DEPTH:
        return f"nested more than {MAX_DEPTH} deep"
    if len(above) > MAX_NESTING and sum(type(each) not in (list, dict) for each in [*above[1:], value]) > MAX_NESTING:
        return f"tuples, sets, dataclasses and the like are nested more than {MAX_NESTING} deep"
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "cannot carry text that is not valid Unicode (a lone surrogate)"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error) or type(error).__name__


def _shortened(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:120]} ... {path[-60:]}"

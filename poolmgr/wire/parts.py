"""Payloads with large binaries, in parts: these are written from where they are, and read to where they are to be.

The bytes are those that values.py makes and reads, no others: a payload may be written in parts and read whole, or the
other way round. What is looked at for large binaries (and numpy arrays) are a call's arguments and a result, and the
items of short lists among them; anything else is packed, and unpacked, as a whole.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from msgpack import OutOfData, Unpacker

from poolmgr.errors import BadValue
from poolmgr.wire import arrays
from poolmgr.wire.extensions import ARRAY

Part = bytes | bytearray | memoryview

LARGE_BYTES: Final = 32 * 1024  # of a binary that is a part of its own
_ITEMS: Final = 64  # of a list that is looked into
_DEPTH: Final = 3  # call, its arguments, a list among them
_WINDOW_BYTES: Final = 4096  # what is read at once of that which is not large
_BINARIES: Final = frozenset({bytes, bytearray, memoryview})  # the last only as ``_is_plain`` says

_BIN16: Final = struct.Struct(">BH")
_BIN: Final = struct.Struct(">BI")
_EXT: Final = struct.Struct(">BIb")
_IN_BIN16, _IN_BIN32, _IN_EXT32, _IN_ARRAY16 = 0xC5, 0xC6, 0xC9, 0xDC
_LEAST_ARRAY_BYTES: Final = 1 << 16  # from there on an extension's head is of one kind


def has_large(value: Any, depth: int = _DEPTH) -> bool:
    """Whether to write ``value`` in parts."""
    kind = type(value)
    if kind in _BINARIES:
        return len(value) >= LARGE_BYTES and (kind is not memoryview or _is_plain(value))
    if kind is list:
        if depth > 0 and len(value) <= _ITEMS:
            for each in value:
                if has_large(each, depth - 1):
                    return True
        return False
    return _is_array(kind) and value.nbytes >= _LEAST_ARRAY_BYTES and bool(value.flags.c_contiguous)


def split(value: Any, pack: Callable[[Any], bytes]) -> list[Part]:
    """The parts of ``value``: one behind the other, what ``pack`` would make of it. Errors: those of ``pack``."""
    parts: list[Part] = []
    _split(value, pack, parts, _DEPTH)
    return parts


def _split(value: Any, pack: Callable[[Any], bytes], parts: list[Part], depth: int) -> None:
    if not has_large(value, depth):
        parts.append(pack(value))
    elif type(value) is list:
        parts.append(_array_head(len(value)))
        for each in value:
            _split(each, pack, parts, depth - 1)
    elif type(value) in _BINARIES:
        parts += bin_head(len(value)), value
    else:
        text, shape, content = arrays.described(value)
        head = b"\x93" + pack(text) + pack(shape) + bin_head(len(content))
        parts += _EXT.pack(_IN_EXT32, len(head) + len(content), ARRAY), head, content


def rest_of(parts: Sequence[Part], done: int) -> list[Part]:
    """What is left of ``parts`` when so many bytes of them are done."""
    if done == sum(map(len, parts)):
        return []
    for at, part in enumerate(parts):
        if done < len(part):
            return [memoryview(part)[done:] if done else part, *parts[at + 1 :]]
        done -= len(part)
    return []


def bin_head(size: int) -> bytes:
    """What comes before the content of a large binary."""
    return _BIN16.pack(_IN_BIN16, size) if size < 1 << 16 else _BIN.pack(_IN_BIN32, size)


def _array_head(count: int) -> bytes:
    return bytes([0x90 | count]) if count < 16 else struct.pack(">BH", _IN_ARRAY16, count)


def _is_plain(view: memoryview) -> bool:
    return view.itemsize == 1 == view.ndim and view.contiguous


def _is_array(kind: type) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and kind is getattr(numpy, "ndarray", None)


# ------------------------------------------------------------------------------------------------- and back


class Source(Protocol):
    """Where a payload is read from. What is missing of it is told by fewer bytes."""

    size: int

    def read(self, offset: int, count: int) -> bytes: ...
    def read_own(self, offset: int, count: int) -> bytearray:
        """... as memory that is the caller's own."""
        ...


class WholeNeeded(Exception):
    """It is not made of large binaries and a little else: read it as a whole."""


class Reading:
    """One payload, read from its beginning to its end.

    Args:
        unpack: what reads anything that is not large: from a bytes-like, all of which it takes.
        writable: large binaries are to be bytearrays, not bytes.
    """

    def __init__(self, source: Source, ext_hook: Callable[[int, bytes], Any], writable: bool) -> None:
        self._source = source
        self._ext_hook = ext_hook
        self._writable = writable
        self._at = 0
        self._window = memoryview(b"")
        self._window_at = 0

    def value(self) -> Any:
        """The value of the payload.

        Raises:
            WholeNeeded: nothing is known of it yet.
            BadValue: it is damaged.
        """
        value = self._value(_DEPTH)
        if self._at != self._source.size:
            raise BadValue("the payload cannot be read: there is more behind its value")
        return value

    def _value(self, depth: int) -> Any:
        kind = self._peek(1)[0]
        if kind & 0xF0 == 0x90 and depth:
            self._at += 1
            return [self._value(depth - 1) for _ in range(kind & 0x0F)]
        if kind == _IN_ARRAY16 and depth:
            (count,) = struct.unpack(">H", self._peek(3)[1:])
            if count <= _ITEMS:
                self._at += 3
                return [self._value(depth - 1) for _ in range(count)]
        if kind in (_IN_BIN16, _IN_BIN32):
            head = _BIN16 if kind == _IN_BIN16 else _BIN
            _, count = head.unpack(self._peek(head.size))
            if count >= LARGE_BYTES:
                return self._binary(head.size, count)
        if kind == _IN_EXT32:
            _, count, code = _EXT.unpack(self._peek(_EXT.size))
            if code == ARRAY and count >= LARGE_BYTES:
                return self._array(self._at + _EXT.size + count)
        return self._small()

    def _binary(self, head: int, count: int, writable: bool = False) -> bytes | bytearray:
        at = self._at + head
        if at + count > self._source.size:
            raise BadValue("the payload cannot be read: it ends in a binary")
        self._at = at + count
        if writable or self._writable:
            return self._source.read_own(at, count)
        found = self._source.read(at, count)
        if len(found) < count:
            raise BadValue("the payload cannot be read: its file is shorter than it")
        return found

    def _array(self, end: int) -> Any:
        self._at += _EXT.size
        if self._peek(1)[0] != 0x93:
            raise WholeNeeded
        self._at += 1
        text, shape = self._small(), self._small()
        kind, count = _BIN.unpack(self._peek(_BIN.size))
        if kind != _IN_BIN32 or self._at + _BIN.size + count != end:
            raise WholeNeeded
        return arrays.made(text, shape, self._binary(_BIN.size, count, writable=True))

    def _small(self) -> Any:
        """A value that is in the window as a whole."""
        unpacker = Unpacker(ext_hook=self._ext_hook, strict_map_key=False, timestamp=3, read_size=_WINDOW_BYTES)
        unpacker.feed(self._peek(1, _WINDOW_BYTES))
        try:
            value = unpacker.unpack()
        except OutOfData:
            raise WholeNeeded from None
        self._at += unpacker.tell()
        return value

    def _peek(self, count: int, most: int = 0) -> memoryview:
        """The next bytes: so many, and where there are more, at most ``most``."""
        begin = self._at - self._window_at
        wanted = max(count, min(most, self._source.size - self._at))
        if begin + wanted > len(self._window):
            self._window = memoryview(self._source.read(self._at, max(wanted, _WINDOW_BYTES)))
            self._window_at, begin = self._at, 0
        if len(self._window) - begin < count:
            raise BadValue("the payload cannot be read: it ends too early")
        return self._window[begin : begin + wanted] if most else self._window[begin : begin + count]

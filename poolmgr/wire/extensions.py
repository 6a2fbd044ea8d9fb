"""The MessagePack extension types: Python values that plain MessagePack cannot carry, and how each is written.

    code  value               data
    1     int beyond 64 bits  two's complement, big-endian, at least one byte
    2     tuple               array of its items
    3     set                 array of its items, in any order
    4     frozenset           array of its items, in any order
    5     datetime            array [ISO 8601 text, fold, zone]: the zone's IANA name, or nil
    6     date                ISO 8601 text
    7     time                array [ISO 8601 text, fold, zone], as for a datetime
    8     timedelta           array [days, seconds, microseconds]; only days may be negative
    9     Decimal             its text: "1.50", "-0", "1E+3", "NaN", "Infinity"
    10    UUID                its 16 bytes, big-endian
    11    Path                the path's bytes
    12    PurePosixPath       the path's bytes
    13    PureWindowsPath     UTF-8 text
    14    complex             two IEEE 754 doubles, big-endian: real, imaginary
    15    dataclass or named  array [module, qualified name, map of the fields by name]
          tuple of the app
    16    enum member         array [module, qualified name, value]
    17    numpy array         array [dtype, shape, bytes]: numpy's dtype.str, array of int, C order
    18    numpy scalar        array [dtype, bytes]
    -1    timestamp           MessagePack's own; read as a datetime in UTC, never written

"Array of its items" means that the data is itself one MessagePack value, in which extension types may occur again.

A type is recognised by its name, and its module is not imported for that: whoever holds a Decimal has loaded
``decimal``. So importing this module costs next to nothing.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from poolmgr.errors import BadValue
from poolmgr.wire import arrays, records

Pack = Callable[[Any], bytes]
Unpack = Callable[[bytes], Any]

BIG_INT: Final = 1
TUPLE: Final = 2
SET: Final = 3
FROZENSET: Final = 4
DATETIME: Final = 5
DATE: Final = 6
TIME: Final = 7
TIMEDELTA: Final = 8
DECIMAL: Final = 9
UUID: Final = 10
PATH: Final = 11
PURE_POSIX_PATH: Final = 12
PURE_WINDOWS_PATH: Final = 13
COMPLEX: Final = 14
RECORD: Final = 15
ENUM: Final = 16
ARRAY: Final = 17
SCALAR: Final = 18


class Extension(NamedTuple):
    """One extension type. ``encode`` and ``decode`` are handed what packs and unpacks the values within."""

    code: int
    encode: Callable[[Any, Pack], bytes]
    decode: Callable[[bytes, Unpack], Any]


def extension_of(value: Any) -> Extension:
    """The extension type that carries ``value``.

    Raises:
        BadValue: there is none; the message says why, but not where the value was found.
    """
    cls = type(value)
    found = _by_type.get(cls)
    if found is None:
        found = _by_type[cls] = _known(cls) or _other(cls)
    return found


def parts(value: Any) -> Iterator[tuple[str, Any]] | None:
    """The values within ``value``, each with what leads to it: ``[3]``, ``['x']``, ``.field``. None: it is a leaf.

    The iterator raises ``BadValue`` where a part cannot be had.
    """
    cls = type(value)
    if cls in (list, tuple):
        return ((f"[{index}]", each) for index, each in enumerate(value))
    if cls in (set, frozenset):
        return ((f"{{{_short(each)}}}", each) for each in value)
    if cls is dict:
        return _dict_parts(value)
    extension = _by_type.get(cls)
    if extension is _RECORD:
        return ((f".{name}", records.field_of(value, name)) for name in records.field_names(cls))
    if extension is _ENUM:
        return iter(((".value", value.value),))
    return None


def _dict_parts(found: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        yield f".keys(){{{_short(key)}}}", key
        yield f"[{_short(key)}]", value


def _short(value: Any) -> str:
    """A key or an item in a path: in full where that is short and runs no code of the app, else by its type."""
    if type(value) in (str, bytes, int, float, bool, type(None)):
        try:
            text = repr(value)
        except ValueError:  # an int of over 4,300 digits
            text = ""
        if 0 < len(text) <= 60:
            return text
    return f"<{records.type_name(type(value))}>"


# ------------------------------------------------------------------------------- numbers, and what holds items


def _encode_big_int(value: int, pack: Pack) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _decode_big_int(data: bytes, unpack: Unpack) -> int:
    return int.from_bytes(data, "big", signed=True)


def _encode_complex(value: complex, pack: Pack) -> bytes:
    return struct.pack(">dd", value.real, value.imag)


def _decode_complex(data: bytes, unpack: Unpack) -> complex:
    return complex(*struct.unpack(">dd", data))


def _encode_items(value: Iterable[Any], pack: Pack) -> bytes:
    return pack([*value])


def _decode_tuple(data: bytes, unpack: Unpack) -> tuple[Any, ...]:
    return tuple(_list(unpack(data)))


def _decode_set(data: bytes, unpack: Unpack) -> set[Any]:
    return set(_list(unpack(data)))


def _decode_frozenset(data: bytes, unpack: Unpack) -> frozenset[Any]:
    return frozenset(_list(unpack(data)))


def _list(found: Any, length: int | None = None) -> list[Any]:
    """``found``, if it is an array (of ``length``): unpacking a string into two names would also work."""
    if type(found) is not list or (length is not None and len(found) != length):
        raise ValueError(
            f"takes an array{'' if length is None else f' of {length}'}, got {records.type_name(type(found))}"
        )
    return found


# ------------------------------------------------------------------------------- times


def _encode_moment(value: Any, pack: Pack) -> bytes:
    """A datetime or a time. The text has the offset, for peers without a time zone database; the zone decides."""
    return pack([value.isoformat(), value.fold, _zone_name(value.tzinfo)])


def _zone_name(zone: Any) -> str | None:
    if zone is None:
        return None
    import datetime

    if type(zone) is datetime.timezone:
        return None  # the offset in the text is all there is to it
    import zoneinfo

    if type(zone) is zoneinfo.ZoneInfo and zone.key:
        return zone.key
    raise BadValue(f"cannot carry a time zone of type {records.type_name(type(zone))}: use zoneinfo or a fixed offset")


def _decode_datetime(data: bytes, unpack: Unpack) -> Any:
    import datetime

    return _decode_moment(datetime.datetime, data, unpack)


def _decode_time(data: bytes, unpack: Unpack) -> Any:
    import datetime

    return _decode_moment(datetime.time, data, unpack)


def _decode_moment(cls: Any, data: bytes, unpack: Unpack) -> Any:
    text, fold, zone = _list(unpack(data), 3)
    value = cls.fromisoformat(text)
    if zone is None:
        return value.replace(fold=fold) if fold else value
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return value.replace(tzinfo=ZoneInfo(zone), fold=fold)
    except ZoneInfoNotFoundError:
        raise BadValue(f"the time zone {zone!r} is not known here: install the system's tzdata") from None


def _encode_date(value: Any, pack: Pack) -> bytes:
    return value.isoformat().encode()  # type: ignore[no-any-return]


def _decode_date(data: bytes, unpack: Unpack) -> Any:
    from datetime import date

    return date.fromisoformat(data.decode())


def _encode_timedelta(value: Any, pack: Pack) -> bytes:
    return pack([value.days, value.seconds, value.microseconds])


def _decode_timedelta(data: bytes, unpack: Unpack) -> Any:
    from datetime import timedelta

    return timedelta(*_list(unpack(data), 3))


# ------------------------------------------------------------------------------- other types of the library


def _encode_decimal(value: Any, pack: Pack) -> bytes:
    return str(value).encode()


def _decode_decimal(data: bytes, unpack: Unpack) -> Any:
    from decimal import Decimal

    return Decimal(data.decode())


def _encode_uuid(value: Any, pack: Pack) -> bytes:
    return value.bytes  # type: ignore[no-any-return]


def _decode_uuid(data: bytes, unpack: Unpack) -> Any:
    import uuid

    return uuid.UUID(bytes=data)


def _decode_path(data: bytes, unpack: Unpack) -> Any:
    from pathlib import Path

    return Path(os.fsdecode(data))


def _decode_pure_posix_path(data: bytes, unpack: Unpack) -> Any:
    from pathlib import PurePosixPath

    return PurePosixPath(os.fsdecode(data))


def _encode_windows_path(value: Any, pack: Pack) -> bytes:
    return str(value).encode()


def _decode_windows_path(data: bytes, unpack: Unpack) -> Any:
    from pathlib import PureWindowsPath

    return PureWindowsPath(data.decode())


# ------------------------------------------------------------------------------- the tables

# Where each type lives, by names, so that nothing need be imported to recognise it: (module, name) -> extension.
_KNOWN: Final = {
    ("builtins", "int"): Extension(BIG_INT, _encode_big_int, _decode_big_int),
    ("builtins", "tuple"): Extension(TUPLE, _encode_items, _decode_tuple),
    ("builtins", "set"): Extension(SET, _encode_items, _decode_set),
    ("builtins", "frozenset"): Extension(FROZENSET, _encode_items, _decode_frozenset),
    ("builtins", "complex"): Extension(COMPLEX, _encode_complex, _decode_complex),
    ("datetime", "datetime"): Extension(DATETIME, _encode_moment, _decode_datetime),
    ("datetime", "date"): Extension(DATE, _encode_date, _decode_date),
    ("datetime", "time"): Extension(TIME, _encode_moment, _decode_time),
    ("datetime", "timedelta"): Extension(TIMEDELTA, _encode_timedelta, _decode_timedelta),
    ("decimal", "Decimal"): Extension(DECIMAL, _encode_decimal, _decode_decimal),
    ("uuid", "UUID"): Extension(UUID, _encode_uuid, _decode_uuid),
    ("pathlib", "PosixPath"): Extension(PATH, lambda value, pack: os.fsencode(value), _decode_path),
    ("pathlib", "PurePosixPath"): Extension(
        PURE_POSIX_PATH, lambda value, pack: os.fsencode(value), _decode_pure_posix_path
    ),
    ("pathlib", "PureWindowsPath"): Extension(PURE_WINDOWS_PATH, _encode_windows_path, _decode_windows_path),
    ("numpy", "ndarray"): Extension(ARRAY, arrays.encode_array, arrays.decode_array),
}
_RECORD: Final = Extension(RECORD, records.encode_record, records.decode_record)
_ENUM: Final = Extension(ENUM, records.encode_enum, records.decode_enum)
_SCALAR: Final = Extension(SCALAR, arrays.encode_scalar, arrays.decode_scalar)

DECODERS: Final = {each.code: each.decode for each in (*_KNOWN.values(), _RECORD, _ENUM, _SCALAR)}

_by_type: dict[type, Extension] = {}  # what was looked up before; only types that are found again by their name


def _known(cls: type) -> Extension | None:
    for (module, name), extension in _KNOWN.items():
        home = sys.modules.get(module)
        if home is not None and getattr(home, name, None) is cls:
            return extension
    return None


def _other(cls: type) -> Extension:
    if arrays.is_scalar(cls):
        return _SCALAR
    if records.is_enum(cls):
        extension = _ENUM
    elif records.is_record(cls):
        extension = _RECORD
    else:
        raise BadValue(f"cannot carry a value of type {records.type_name(cls)}{_hint(cls)}")
    records.check_class(cls)
    return extension


def _hint(cls: type) -> str:
    for base in (str, bytes, int, float, dict, list, tuple, set, frozenset):
        if issubclass(cls, base):
            return f", which would come back as a plain {base.__name__}: convert it with {base.__name__}()"
    return ""

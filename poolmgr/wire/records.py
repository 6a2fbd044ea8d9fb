"""The app's own classes on the wire: dataclasses, named tuples and enums, found again by their names.

A payload may name any class. So decoding imports nothing and runs no ``__getattr__``: it looks only into modules that
this process has loaded itself, at names that are in them already, and takes nothing but these three kinds of classes.

Exactly the declared fields travel. ``__init__`` and ``__post_init__`` do not run again, because the fields are what
they made; attributes beside the fields stay behind. A field that the sender's older class did not have gets its
default; one that the class here does not have is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from poolmgr.errors import BadValue


def is_record(cls: type) -> bool:
    """Whether ``cls`` is a dataclass or a named tuple. An undecorated subclass of a dataclass is not: nobody declared
    what it holds."""
    return "__dataclass_fields__" in vars(cls) or _is_named_tuple(cls)


def is_enum(cls: type) -> bool:
    """Whether ``cls`` is an enum."""
    from enum import Enum

    return issubclass(cls, Enum)


def check_class(cls: type) -> None:
    """Refuse a class that the other side could not find, or not rebuild from its fields.

    Raises:
        BadValue: with the reason.
    """
    if cls.__module__ == "__main__":
        reason = "__main__ is another module in the worker; define the class in a module that both import"
    elif _find_class(cls.__module__, cls.__qualname__) is not cls:
        reason = "no class is found by that name; define it at the top of a module"
    elif "__dataclass_fields__" in vars(cls) and not is_enum(cls) and _makes_instances(cls):
        reason = "a dataclass that makes its instances in __new__ cannot be rebuilt from its fields"
    else:
        return
    raise BadValue(f"cannot carry a value of type {type_name(cls)}: {reason}")


def type_name(cls: type) -> str:
    """How messages name a type: ``dict``, ``socket.socket``."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def field_names(cls: Any) -> tuple[str, ...]:
    """The names of a record's fields, in their order."""
    names = _names.get(cls)
    if names is None:
        from dataclasses import fields

        found = cls._fields if _is_named_tuple(cls) else tuple(each.name for each in fields(cls))
        names = _names[cls] = found
    return names


_names: dict[type, tuple[str, ...]] = {}


def field_of(record: Any, name: str) -> Any:
    """What a field holds.

    Raises:
        BadValue: nothing, not even None.
    """
    try:
        return getattr(record, name)
    except AttributeError:
        raise BadValue(f"cannot carry a {type_name(type(record))} whose field {name!r} is not set") from None


def encode_record(value: Any, pack: Callable[[Any], bytes]) -> bytes:
    """A dataclass or named tuple as [module, qualified name, map of its fields]."""
    cls = type(value)
    return pack([cls.__module__, cls.__qualname__, {name: field_of(value, name) for name in field_names(cls)}])


def decode_record(data: bytes, unpack: Callable[[bytes], Any]) -> Any:
    """What ``encode_record`` wrote.

    Raises:
        BadValue: the class is not loaded here, is none that may be rebuilt, or has other fields.
    """
    module, qualname, fields = unpack(data)
    cls: Any = _class_of_peer(module, qualname)
    if not is_record(cls):
        raise BadValue(f"{module}.{qualname} is neither a dataclass nor a named tuple here")
    names = field_names(cls)
    unknown = fields.keys() - set(names)
    if unknown:
        raise BadValue(f"{module}.{qualname} has no field {min(unknown)!r} here: is it older than the sender's?")
    values = [fields[name] if name in fields else _default(cls, name) for name in names]
    if _is_named_tuple(cls):
        return tuple.__new__(cls, values)
    record = object.__new__(cls)
    for name, value in zip(names, values, strict=True):
        object.__setattr__(record, name, value)  # a frozen class has closed its own
    return record


def encode_enum(value: Any, pack: Callable[[Any], bytes]) -> bytes:
    """An enum's member as [module, qualified name, its value]."""
    cls = type(value)
    return pack([cls.__module__, cls.__qualname__, value.value])


def decode_enum(data: bytes, unpack: Callable[[bytes], Any]) -> Any:
    """What ``encode_enum`` wrote.

    Raises:
        BadValue: the class is not loaded here, or is no enum.
        ValueError: it has no such member.
    """
    module, qualname, value = unpack(data)
    cls = _class_of_peer(module, qualname)
    if not is_enum(cls):
        raise BadValue(f"{module}.{qualname} is not an enum here")
    return cls(value)


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def _makes_instances(cls: type) -> bool:
    return any("__new__" in vars(each) for each in cls.__mro__[:-1])


def _default(cls: Any, name: str) -> Any:
    if _is_named_tuple(cls):
        if name in cls._field_defaults:
            return cls._field_defaults[name]
    else:
        from dataclasses import MISSING, fields

        field = next(each for each in fields(cls) if each.name == name)
        if field.default is not MISSING:
            return field.default
        if field.default_factory is not MISSING:
            return field.default_factory()
    raise BadValue(f"{type_name(cls)} came without its field {name!r}, which has no default")


def _class_of_peer(module: Any, qualname: Any) -> type:
    cls = _find_class(module, qualname)
    if cls is None:
        raise BadValue(f"the class {module}.{qualname} is not loaded in this process: import {module} first")
    return cls


def _find_class(module: str, qualname: str) -> type | None:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, "__dict__", {}).get(name)
    return found if isinstance(found, type) else None

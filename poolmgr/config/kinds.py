"""The kinds of values that settings take. Each checks values, reads them from text, and says what it is."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import field
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeVar

from poolmgr.errors import ConfigError

_T = TypeVar("_T")
_NAME: Final = re.compile(r"[^\W\d][\w.-]*")


class Kind(NamedTuple):
    """What one setting takes.

    Attributes:
        takes: completes the sentence "pool_size takes ...".
        check: the value in the form in which ``Settings`` holds it; raises ValueError for any other.
        read: what the text of an environment variable stands for, not checked yet; raises ValueError.
    """

    takes: str
    check: Callable[[Any], Any]
    read: Callable[[str], Any]


def setting(default: _T, kind: Kind) -> _T:
    """A field of a dataclass that holds settings."""
    made: _T = field(default=default, metadata={"kind": kind})
    return made


def unknown_setting(name: str, known: Iterable[str], source: str) -> ConfigError:
    """The error for a name that ``source`` has, and nobody knows: it suggests the nearest."""
    from difflib import get_close_matches

    by_lower = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), by_lower, n=1)
    hint = f"; did you mean {by_lower[near[0]]!r}?" if near else "; docs/reference/settings.md lists all settings"
    return ConfigError(f"{source}: unknown setting {name!r}{hint}")


def whole(least: int) -> Kind:
    """Integers from ``least`` on."""

    def check(value: Any) -> int:
        if type(value) is not int or value < least:
            raise ValueError
        return value

    return Kind(f"a whole number, at least {least}", check, int)


def seconds(*, above_zero: bool = False) -> Kind:
    """Finite times in seconds, from 0 on or above it."""

    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError
        if value < 0 or (above_zero and value == 0):
            raise ValueError
        return float(value)

    return Kind("seconds, above 0" if above_zero else "seconds, at least 0", check, float)


_WORDS: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def flag() -> Kind:
    """True or false; in text also yes, no, on, off, 1 and 0."""

    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    def read(text: str) -> bool:
        if text.lower() not in _WORDS:
            raise ValueError
        return _WORDS[text.lower()]

    return Kind("true or false", check, read)


def choice(*words: str, or_import: bool = False) -> Kind:
    """One of ``words``; with ``or_import`` also the place of a user's object, as ``package.module:name``."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or not (value in words or (or_import and _is_import(value))):
            raise ValueError
        return value

    takes = " or ".join(repr(word) for word in words) + (" or 'package.module:name'" if or_import else "")
    return Kind(takes, check, str)


def text() -> Kind:
    """Text that is not empty, or None."""

    def check(value: Any) -> str | None:
        if value is not None and (not isinstance(value, str) or not value or "\0" in value):
            raise ValueError
        return value

    return Kind("text that is not empty", check, str)


def names(count: int | None = None) -> Kind:
    """Names (letters, digits, ``_``, ``.``, ``-``) as a tuple; with ``count`` 1 a single one, as text."""

    def check(value: Any) -> Any:
        found = [value] if count == 1 else value
        if not isinstance(found, (list, tuple)) or not all(isinstance(each, str) for each in found):
            raise ValueError
        if not all(_NAME.fullmatch(each) for each in found):
            raise ValueError
        return value if count == 1 else tuple(dict.fromkeys(found))

    return Kind("a name, such as 'gpu'" if count == 1 else "a list of names, such as ['gpu']", check, _listed)


def words() -> Kind:
    """A command as a tuple: the executable and its arguments. In text it is quoted as a shell wants it."""

    def check(value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
            raise ValueError
        if any("\0" in each for each in value) or (value and not value[0]):
            raise ValueError
        return tuple(value)

    return Kind("a list of an executable and its arguments, such as ['node', 'worker.js']", check, shlex.split)


def modules() -> Kind:
    """Names of importable modules, as a tuple; one alone may be given as a string."""

    def check(value: Any) -> tuple[str, ...]:
        names = (value,) if isinstance(value, str) else value
        if not isinstance(names, (list, tuple)) or not all(isinstance(each, str) for each in names):
            raise ValueError
        if not all(_is_module(each) for each in names):
            raise ValueError
        return tuple(dict.fromkeys(names))

    return Kind("names of modules, such as 'myapp.tasks'", check, _listed)


def percentages(count: int) -> Kind:
    """``count`` whole percentages that ascend."""

    def check(value: Any) -> tuple[int, ...]:
        if not isinstance(value, (list, tuple)) or len(value) != count:
            raise ValueError
        if any(type(each) is not int or not 1 <= each <= 100 for each in value):
            raise ValueError
        if any(low >= high for low, high in pairwise(value)):
            raise ValueError
        return tuple(value)

    return Kind(
        f"{count} whole percentages that ascend",
        check,
        lambda listed: [int(each) for each in _listed(listed)],
    )


def _listed(words: str) -> list[str]:
    return [word for word in (each.strip() for each in words.split(",")) if word]


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _is_import(place: str) -> bool:
    module, colon, name = place.partition(":")
    return bool(colon) and _is_module(module) and name.isidentifier()

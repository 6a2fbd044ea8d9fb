"""The log of a run in a canonical text: every input, every effect, in their order. Two equal runs have equal hashes."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any, Final

from poolmgr.core.changes import TaskAdded, TaskRecord
from poolmgr.core.effects import Effect, Persist, Refill
from poolmgr.core.shelf import LineKey, ShelfSize
from poolmgr.model import TaskOptions


class Journal:
    """Hashes what happens, counts it by kind, and keeps the last lines for the report of a failure."""

    def __init__(self, keep: int | None = 120) -> None:
        self.lines: deque[str] = deque(maxlen=keep)
        self.inputs: Counter[str] = Counter()
        self.effects: Counter[str] = Counter()
        self._hash = hashlib.sha256()

    def input(self, now: float, method: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """``method`` of the scheduler is about to be called."""
        name = method.__name__
        self.inputs[name] += 1
        self._line(f"{now!r} > {name} {', '.join(map(_text, arguments))}")

    def effect(self, now: float, effect: Effect) -> None:
        """The scheduler wants this done."""
        self.effects[type(effect).__name__] += 1
        self._line(f"{now!r}     < {_text(effect)}")

    def note(self, now: float, text: str) -> None:
        """Something happened outside of the scheduler."""
        self._line(f"{now!r} * {text}")

    def digest(self) -> str:
        """The hash of the whole log."""
        return self._hash.hexdigest()

    def _line(self, line: str) -> None:
        self._hash.update(line.encode())
        self.lines.append(line)


def _text(value: Any) -> str:
    """``repr``, but for what holds sets: their order differs from process to process."""
    write = _WRITERS.get(type(value))
    return repr(value) if write is None else write(value)


def _names(names: frozenset[str]) -> str:
    return f"{{{', '.join(map(repr, sorted(names)))}}}"


@lru_cache(maxsize=4096)
def _options(options: TaskOptions) -> str:
    return f"options({', '.join(f'{name}={_text(value)}' for name, value in zip(_OPTIONS, options, strict=True))})"


def _record(record: TaskRecord) -> str:
    before, after = record[: _RECORD.index("options")], record[_RECORD.index("options") + 1 :]
    return f"({before!r}, {_options(record.options)}, {after!r})"


def _line(line: LineKey) -> str:
    return f"line({', '.join(map(_text, line))})"


_OPTIONS: Final = TaskOptions._fields
_RECORD: Final = TaskRecord._fields
_WRITERS: Final[dict[type, Callable[[Any], str]]] = {
    frozenset: _names,
    tuple: lambda values: f"({', '.join(map(_text, values))})",
    list: lambda values: f"[{', '.join(map(_text, values))}]",
    TaskOptions: _options,
    LineKey: _line,
    ShelfSize: lambda size: f"shelf({', '.join(map(_text, size))})",
    Refill: lambda effect: f"Refill({', '.join(map(_text, effect))})",
    TaskRecord: _record,
    TaskAdded: lambda change: f"TaskAdded({_record(change.task)})",
    Persist: lambda effect: f"Persist({effect.number}, {', '.join(map(_text, effect.changes))})",
    FunctionType: lambda function: "a function",
}

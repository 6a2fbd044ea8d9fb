"""The log of a run in a canonical text: every input, every effect, in their order. Two equal runs have equal hashes."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from poolmgr.core.changes import TaskAdded, TaskRecord
from poolmgr.core.effects import Effect, Persist
from poolmgr.model import TaskOptions

_OPTIONS = list(TaskOptions.__annotations__)


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
    match value:
        case frozenset():
            return f"{{{', '.join(map(repr, sorted(value)))}}}"
        case TaskOptions():
            return f"options({', '.join(f'{name}={_text(getattr(value, name))}' for name in _OPTIONS)})"
        case Persist():
            return f"Persist({value.number}, {', '.join(map(_text, value.changes))})"
        case TaskAdded():
            return f"TaskAdded({_text(value.task)})"
        case TaskRecord():
            return f"({', '.join(map(_text, value))})"
        case list():
            return f"[{', '.join(map(_text, value))}]"
        case _ if callable(value):
            return "a function"
        case _:
            return repr(value)

"""What a user names and wants: the handler's name on the wire, and the options of ``using``, packed once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import isfinite
from typing import Any, Final

from poolmgr.errors import BadOption, UsageError
from poolmgr.model import check_options, to_wire
from poolmgr.wire.framing import encoder


def handler_name(handler: Any) -> str:
    """The name that the daemon knows a handler by: given as such, set by ``@task(name=)``, or its ``__name__``.

    Raises:
        UsageError: it has none, as a lambda or a ``functools.partial``.
    """
    if isinstance(handler, str):
        return handler
    task = getattr(handler, "__poolmgr_task__", None)
    name = getattr(handler, "__name__", None) if task is None else task.name
    if not isinstance(name, str) or name == "<lambda>":
        raise UsageError(f"{handler!r} has no name that the daemon's app could know: pass a handler, or its name")
    return name


_BLOCKING: Final = frozenset({"block", "block_timeout_s"})


class Options:
    """Task options that a user set, checked, with what they are on the wire; and whether to wait for room in the queue.

    Work that is handed over (``submit``) is durable, calls (``run``, ``map``) are not, unless ``durable`` is set.

    Attributes:
        block: whoever submits waits while the queue is full, instead of being refused,
        block_timeout_s: for so long; None: for as long as it takes.
    """

    def __init__(self, changes: Mapping[str, Any]) -> None:
        """
        Raises:
            BadOption: an unknown name, a wrong type or a value out of range; the message says which.
        """
        self._blocking = {name: value for name, value in changes.items() if name in _BLOCKING}
        self.block = _flag("block", self._blocking.get("block", False))
        self.block_timeout_s = _seconds("block_timeout_s", self._blocking.get("block_timeout_s"))
        self._set = check_options({name: value for name, value in changes.items() if name not in _BLOCKING})
        self.submits_durable: bool = self._set.get("durable", True)
        self.calls_durable: bool = self._set.get("durable", False)

    def merged(self, changes: Mapping[str, Any]) -> Options:
        """These options with ``changes`` on top."""
        merged = Options(changes)
        return Options({**self._set, **self._blocking, **merged._set, **merged._blocking})

    @cached_property
    def for_submit(self) -> bytes | None:
        """What SUBMIT carries for work that is handed over; None: nothing was set."""
        return encoder()(to_wire(self._set)) if self._set else None

    @cached_property
    def for_call(self) -> bytes:
        """What SUBMIT carries for a call."""
        return encoder()(to_wire({"durable": False, **self._set}))


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadOption(f"{name} takes true or false, got {value!r}")
    return value


def _seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value < 0:
        raise BadOption(f"{name} takes seconds, at least 0, or None, got {value!r}")
    return float(value)

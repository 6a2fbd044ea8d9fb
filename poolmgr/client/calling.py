"""What a user names and wants: the handler's name on the wire, and the options of ``using``, packed once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from poolmgr.errors import UsageError
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


class Options:
    """Task options that a user set, checked, with what they are on the wire.

    Work that is handed over (``submit``) is durable, calls (``run``, ``map``) are not, unless ``durable`` is set.
    """

    def __init__(self, changes: Mapping[str, Any]) -> None:
        """
        Raises:
            BadOption: an unknown name, a wrong type or a value out of range; the message says which.
        """
        self._set = check_options(changes)
        self.submits_durable: bool = self._set.get("durable", True)
        self.calls_durable: bool = self._set.get("durable", False)

    def merged(self, changes: Mapping[str, Any]) -> Options:
        """These options with ``changes`` on top."""
        merged = Options(changes)
        return Options({**self._set, **merged._set})

    @cached_property
    def for_submit(self) -> bytes | None:
        """What SUBMIT carries for work that is handed over; None: nothing was set."""
        return encoder()(to_wire(self._set)) if self._set else None

    @cached_property
    def for_call(self) -> bytes:
        """What SUBMIT carries for a call."""
        return encoder()(to_wire({"durable": False, **self._set}))

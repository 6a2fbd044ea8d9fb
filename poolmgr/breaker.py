"""What is known of the circuit breaker of one task name."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple


class BreakerState(StrEnum):
    """Whether tasks of the name are begun."""

    CLOSED = "closed"  # they are
    OPEN = "open"  # none is: it has failed too often
    HALF_OPEN = "half-open"  # one is, to see whether it still fails


class BreakerInfo(NamedTuple):
    """One breaker that has something to tell. Times are wall times in seconds since 1970.

    Attributes:
        name: of the tasks.
        state: ``closed``, ``open`` or ``half-open``.
        failures: since the last success; while it is closed, of those that count still.
        opened_at: when it opened, or None.
        probe_at: when the next task may be begun to see how it ends, or None: at once, or it is closed.
        probing: such a task runs now.
        error: how the last failed.
    """

    name: str
    state: BreakerState
    failures: int = 0
    opened_at: float | None = None
    probe_at: float | None = None
    probing: bool = False
    error: str = ""


def breaker_info(found: Mapping[str, Any]) -> BreakerInfo:
    """The info of a map of its fields, from here or from a newer peer: unknown names are left out."""
    known = {name: value for name, value in found.items() if name in BreakerInfo._fields}
    return BreakerInfo(**{**known, "state": BreakerState(known["state"])})

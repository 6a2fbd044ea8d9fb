"""What is to happen later: one heap of (when, kind, subject). As a rule nothing is taken out early.

Whoever handles a deadline checks whether it still means anything: a task that was cancelled, a worker that has gone, a
due time that has moved. That is cheaper than finding the entry, and cannot be forgotten. But a task that has ended
would stay here, payload and all, until a time that may be days away: those are counted, and go when they are the
greater part.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from poolmgr.core.task import Task
from poolmgr.model import FINAL

NEVER = float("inf")
_ENDED_KEPT = 64


class Deadlines:
    """A heap of times with what falls due then. Equal times come out in the order in which they went in."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str, Any]] = []
        self._count = 0
        self._ended = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, when: float, kind: str, subject: Any) -> None:
        """``subject`` falls due at ``when``."""
        self._count += 1
        heappush(self._heap, (when, self._count, kind, subject))

    @property
    def next(self) -> float:
        """When the earliest falls due; infinity if there is none."""
        return self._heap[0][0] if self._heap else NEVER

    def pop_due(self, now: float) -> tuple[str, Any] | None:
        """The earliest that is due at ``now``, taken out; None if none is."""
        if self._heap and self._heap[0][0] <= now:
            _, _, kind, subject = heappop(self._heap)
            return kind, subject
        return None

    def drop(self, unwanted: Callable[[str, Any], bool]) -> None:
        """Take out every entry whose kind and subject are ``unwanted``; looks at all that there are."""
        self._heap = [entry for entry in self._heap if not unwanted(entry[2], entry[3])]
        heapify(self._heap)

    def task_ended(self) -> None:
        """A task has become final that has an entry here, or had one: to count too many costs little."""
        self._ended += 1
        if self._ended > _ENDED_KEPT and self._ended * 2 > len(self._heap):
            self._ended = 0
            self._heap = [entry for entry in self._heap if not (isinstance(entry[3], Task) and entry[3].state in FINAL)]
            heapify(self._heap)

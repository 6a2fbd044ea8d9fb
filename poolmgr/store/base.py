"""What a store is. Every implementation passes ``tests/conformance/test_store.py``.

A store is synchronous and is called from one thread at a time; the shell gives it a thread of its own. It
knows nothing of scheduling: it applies changes (core/changes.py) and answers look-ups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from poolmgr.core.changes import Change, TaskRecord
from poolmgr.model import TaskInfo, TaskState


class Outcome(NamedTuple):
    """How a final task ended: ``outcome`` is the result's payload, or the packed failure."""

    state: TaskState
    code: str
    outcome: bytes


class Store(Protocol):
    """Keeps tasks, their failed attempts and their outcomes.

    Every method raises ``StoreUnavailable`` when the medium refuses (full, locked, corrupt), and has then
    changed nothing; the same call may be tried again.
    """

    def open(self) -> int:
        """Open, migrate if need be, and begin an epoch; its number, 1 or the last plus one, is committed."""
        ...

    def close(self) -> None:
        """Flush and close. Safe to call twice, or before ``open``."""
        ...

    def apply(self, changes: Sequence[Change]) -> None:
        """Commit ``changes``, all or none, in their order. They then survive what it promises to bear."""
        ...

    def unfinished(self) -> Iterator[TaskRecord]:
        """Every task that is not final, by ``order``: what a new epoch starts with."""
        ...

    def record(self, task_id: bytes) -> TaskRecord | None:
        """The whole task, final or not, or None."""
        ...

    def task(self, task_id: bytes) -> TaskInfo | None:
        """What is known of a task, with its failed attempts, or None."""
        ...

    def outcome(self, task_id: bytes) -> Outcome | None:
        """How a task ended; None if it is unknown or not final."""
        ...

    def tasks(
        self,
        *,
        state: TaskState | None = None,
        name: str | None = None,
        limit: int = 100,
        before: bytes | None = None,
    ) -> list[TaskInfo]:
        """Tasks without their attempts, newest id first, at most ``limit``, with ids under ``before``."""
        ...

    def counts(self) -> dict[TaskState, int]:
        """How many tasks are kept in each state."""
        ...

    def expire(self, wall_now: float, limit: int = 1000) -> int:
        """Forget at most ``limit`` final tasks whose ``expires_at`` has passed; how many there were."""
        ...

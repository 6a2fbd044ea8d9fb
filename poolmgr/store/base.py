"""What a store is. Every implementation passes ``tests/conformance/test_store.py``.

A store is synchronous and is called from one thread at a time; the shell gives it a thread of its own. It
knows nothing of scheduling: it applies changes (core/changes.py) and answers look-ups.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from poolmgr.core.changes import Change, ScheduleRecord, StreamRecord, TaskRecord
from poolmgr.core.shelf import LineKey, Place, ShelfSize
from poolmgr.model import TaskInfo, TaskState
from poolmgr.payload import Payload
from poolmgr.worker_life import WorkerLife


class Outcome(NamedTuple):
    """How a final task ended: ``outcome`` is the result's payload, or the packed failure."""

    state: TaskState
    code: str
    outcome: Payload


class Chunks(NamedTuple):
    """Some chunks of a stream.

    Attributes:
        chunks: their payloads, in order.
        kept: how many the stream has had.
        dropped: those below that number are not kept any more.
        final: the task has ended, and no more come.
    """

    chunks: list[Payload]
    kept: int
    dropped: int
    final: bool


AHEAD_MOST: Final = 10_000


class Ids(NamedTuple):
    """The ids that a store can tell of.

    Attributes:
        last: the largest that it has or had, of those up to the id that was asked for; b'' for none.
        ahead: those beyond that id that it has. Where they are more than ``AHEAD_MOST``, none; ``last`` is then the
            largest of all.
    """

    last: bytes
    ahead: tuple[bytes, ...]


class Left(NamedTuple):
    """What an epoch finds that earlier ones left."""

    in_hand: list[TaskRecord]
    shelves: list[ShelfSize]
    keys: list[tuple[str, bytes, float]]
    ids: Ids
    schedules: list[ScheduleRecord]
    streams: list[StreamRecord]


class Store(Protocol):
    """Keeps tasks, their failed attempts, streams and outcomes, and what became of worker processes.

    Every method raises ``StoreUnavailable`` when the medium refuses (full, locked, corrupt), and has then
    changed nothing; the same call may be tried again. Where that would not help, since somebody has removed or cut the
    payload of a task that is not final, its record has a ``payload.Lost`` in that place.
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

    def in_hand(self) -> Iterator[TaskRecord]:
        """Every task that is not final and may not be left to the store alone (core/shelf.py), by ``order``."""
        ...

    def shelves(self) -> list[ShelfSize]:
        """How many other tasks wait, in each line that has any. With ``in_hand``, what a new epoch starts with."""
        ...

    def shelf(self, line: LineKey | None, after: Place, limit: int, limit_bytes: int = sys.maxsize) -> list[TaskRecord]:
        """The first ``limit`` of those of one line, in their order, beyond the place ``after``; and none behind the one
        with which their payloads weigh ``limit_bytes``."""
        ...

    def keys(self, wall_now: float) -> list[tuple[str, bytes, float]]:
        """Deduplication keys of final tasks whose windows last: (key, task, wall time until when), by id."""
        ...

    def ids(self, newest: bytes) -> Ids:
        """Which ids it can tell of, up to ``newest`` and beyond."""
        ...

    def forgotten(self) -> bytes:
        """The largest id that it has forgotten; b'' for none."""
        ...

    def schedules(self) -> list[ScheduleRecord]:
        """Every schedule, by id."""
        ...

    def streams(self) -> list[StreamRecord]:
        """How far the streams of the tasks have come that are not final."""
        ...

    def chunks(self, task_id: bytes, offset: int, limit: int, limit_bytes: int = sys.maxsize) -> Chunks | None:
        """At most ``limit`` chunks of a task's stream, from the one of that number on, and none behind the one with
        which they weigh ``limit_bytes``. From a number that is dropped, none. None: the task is not known."""
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

    def lives(self, worker: str | None = None, limit: int = 100) -> list[WorkerLife]:
        """Worker processes that have ended, of one slot or of all, the last first. The last ``LIVES_KEPT`` are kept."""
        ...

    def expire(self, wall_now: float, limit: int = 1000) -> int:
        """Forget at most ``limit`` final tasks whose ``expires_at`` has passed; how many there were."""
        ...

    def sweep(self, limit: int = 200) -> int:
        """Remove at most ``limit`` chunks of tasks that are forgotten, of which nothing is told any more; how many."""
        ...


def left_in(store: Store, wall_now: float, newest: bytes) -> Left:
    """Read what a new epoch starts with; ``newest`` is for ``Store.ids``."""
    return Left(
        list(store.in_hand()), store.shelves(), store.keys(wall_now), store.ids(newest), store.schedules(),
        store.streams(),
    )  # fmt: skip

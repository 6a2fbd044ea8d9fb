"""What ``power-loss`` records: one process that does to a store, step by step, what a daemon does to it.

    python recorded.py DIRECTORY SYNCHRONOUS SEED STEPS

Before each step it says "begins N" on standard output, and after it "done N" (after an opening, "open N EPOCH"), so
that a trace of its system calls holds what was promised at each moment. The steps follow from the seed: whoever knows
it can make them again, elsewhere.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final, Literal, NamedTuple, cast

from poolmgr.config.locations import DATABASE, make_private
from poolmgr.core.changes import (
    AttemptEnded,
    Change,
    TaskAdded,
    TaskEnded,
    TaskMoved,
    TaskRecord,
    TaskRequeued,
    TasksPurged,
)
from poolmgr.model import AttemptInfo, TaskOptions, TaskState
from poolmgr.post_mortem import PostMortem
from poolmgr.store.sqlite import SqliteStore

NOON: Final = 1_700_000_000.0  # wall time of the first step; each takes a second
LIVE: Final = 12  # tasks that have not ended, about
_KEPT: Final = 12  # tasks that have, about
_TTL_S: Final = 20.0
_SIZES: Final = (0, 20, 300, 5_000, 90_000)  # bytes of a payload or an outcome
_WEIGHTS: Final = (40, 100, 40, 10, 6)


class Step(NamedTuple):
    """One call of the store: ``apply``, ``expire`` at this wall time, or a close and an ``open``."""

    changes: tuple[Change, ...] = ()
    expire_at: float = 0.0
    reopens: bool = False

    def take(self, store: SqliteStore) -> int:
        """Do it; the epoch that it began, or 0."""
        if self.reopens:
            store.close()
            return store.open()
        if self.expire_at:
            store.expire(self.expire_at)
        else:
            store.apply(self.changes)
        return 0


class Steps:
    """What a daemon could do, drawn from a seed."""

    def __init__(self, seed: str) -> None:
        self._chance = random.Random(seed)
        self._live: dict[bytes, TaskRecord] = {}
        self._dead: list[bytes] = []
        self._made = 0

    def draw(self, count: int) -> Iterator[Step]:
        """So many steps; the first opens."""
        yield Step(reopens=True)
        for number in range(1, count):
            at = NOON + number
            chance = self._chance.random()
            if chance < 0.02:
                yield Step(reopens=True)
            elif chance < 0.05:  # as when nothing goes on: the log is truncated
                for _ in range(3):
                    yield Step(expire_at=at)
            else:
                some = (self._some(at) for _ in range(self._chance.choice((1, 2, 5, 20))))
                yield Step(tuple(chain.from_iterable(some)))

    def _some(self, at: float) -> Iterator[Change]:
        if not self._live or (len(self._live) < LIVE and self._chance.random() < 0.6):
            yield self._added(at, None)
            return
        if len(self._dead) > _KEPT:
            purged, self._dead = self._dead[:4], self._dead[4:]
            yield TasksPurged(tuple(purged))
        id, task = self._chance.choice(list(self._live.items()))
        if self._chance.random() < 0.5:
            state = self._chance.choice((TaskState.RUNNING, TaskState.SCHEDULED, TaskState.QUEUED))
            moved = task._replace(state=state, attempt=task.attempt + 1, due_at=at + 5)
            self._live[id] = moved
            yield TaskMoved(id, state, moved.due_at, moved.attempt, 0, 0, 0)
            yield AttemptEnded(id, self._attempt(moved, at))
            return
        del self._live[id]
        dead = self._chance.random() < 0.3
        yield self._ended(task, at, dead)
        if dead:
            self._dead.append(id)
            if self._chance.random() < 0.3:
                added = self._added(at, id)
                yield added
                yield TaskRequeued(id, added.task.id)

    def _added(self, at: float, origin: bytes | None) -> TaskAdded:
        self._made += 1
        id = self._made.to_bytes(6) + self._chance.randbytes(10)
        options = self._chance.choice((TaskOptions(), TaskOptions(priority=3, key="a" * 30), TaskOptions(delay_s=9.0)))
        task = TaskRecord(
            id, "work", self._bytes(), options, "g", self._made, TaskState.QUEUED, at, origin=origin
        )  # fmt: skip
        self._live[id] = task
        return TaskAdded(task)

    def _ended(self, task: TaskRecord, at: float, dead: bool) -> TaskEnded:
        state, code = (TaskState.DEAD, "task_failed") if dead else (TaskState.COMPLETED, "")
        ttl = None if dead else at + _TTL_S
        return TaskEnded(
            task.id, state, at, at - 0.5, task.attempt, 0, "worker-1", code, code, self._bytes(), ttl
        )  # fmt: skip

    def _attempt(self, task: TaskRecord, at: float) -> AttemptInfo:
        post_mortem = PostMortem(output="o" * 2_000) if self._chance.random() < 0.3 else None
        return AttemptInfo(
            task.attempt, "worker-1", at - 1, at, "task_failed", "ValueError", "no", "trace\n" * 20, post_mortem
        )  # fmt: skip

    def _bytes(self) -> bytes:
        (size,) = self._chance.choices(_SIZES, _WEIGHTS)
        return self._chance.randbytes(size)


def main(directory: str, synchronous: str, seed: str, steps: str) -> None:
    """Take so many steps, and say so."""
    make_private(directory)
    store = SqliteStore(Path(directory) / DATABASE, synchronous=cast(Literal["FULL", "NORMAL"], synchronous))
    for number, step in enumerate(Steps(seed).draw(int(steps)), start=1):
        os.write(1, b"begins %d\n" % number)
        epoch = step.take(store)
        os.write(1, b"open %d %d\n" % (number, epoch) if epoch else b"done %d\n" % number)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

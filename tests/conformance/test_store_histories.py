"""Whatever happens to them, every store tells the same."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from poolmgr.core.changes import (
    Change,
    ChunkAdded,
    ChunksDropped,
    TaskAdded,
    TaskMoved,
    TaskRequeued,
    TasksPurged,
)
from poolmgr.model import FINAL, TaskOptions, TaskState
from poolmgr.store.base import Store
from poolmgr.store.memory import MemoryStore
from poolmgr.store.rows import LONG_BYTES
from poolmgr.store.sqlite import SqliteStore
from tests.conformance.samples import NOW, REMAINS, added, ended, failed, lived, moved, task_id, unfinished


def options(priority: int, key: str | None) -> TaskOptions:
    """Options that differ from the default ones."""
    return TaskOptions(priority=priority, key=key)


def adding(number: int, state: TaskState, due_at: float, **fields: Any) -> TaskAdded:
    """Tasks as the scheduler adds them: each with an order of its own, and all that its state says."""
    return added(number, order=number, **_in_state(state, due_at, 0), **fields)


def moving(number: int, state: TaskState, due_at: float, attempt: int, **fields: Any) -> TaskMoved:
    return moved(number, **_in_state(state, due_at, attempt), **fields)


def _in_state(state: TaskState, due_at: float, attempt: int) -> dict[str, Any]:
    return {
        "state": state,
        "due_at": due_at if state is TaskState.SCHEDULED else None,
        "attempt": attempt or int(state is TaskState.RUNNING),
    }


NUMBERS = st.integers(1, 6)
TIMES = st.floats(NOW, NOW + 100)
UNFINISHED = st.sampled_from([TaskState.SCHEDULED, TaskState.QUEUED, TaskState.RUNNING])
SMALL = st.integers(0, 3)
CONTENTS = st.one_of(  # in the task's row, beside it, and in a file
    st.binary(max_size=20),
    st.binary(max_size=3).map(lambda content: content + bytes(300)),
    st.binary(max_size=3).map(lambda content: content + bytes(LONG_BYTES)),
)
CHANGES = st.one_of(
    st.builds(
        adding,
        NUMBERS,
        state=UNFINISHED,
        due_at=TIMES,
        name=st.sampled_from(["a", "b"]),
        payload=CONTENTS,
        options=st.builds(options, st.integers(0, 100), st.none() | st.text(min_size=1)),
    ),
    st.builds(moving, NUMBERS, UNFINISHED, due_at=TIMES, attempt=SMALL, failures=SMALL, kills=SMALL),
    st.builds(failed, NUMBERS, SMALL | st.integers(9, 13), message=st.text(), post_mortem=st.none() | st.just(REMAINS)),
    st.builds(
        ended,
        NUMBERS,
        st.sampled_from(sorted(FINAL)),
        outcome=CONTENTS,
        code=st.sampled_from(["", "timeout"]),
        message=st.text(),
        worker=st.none() | st.just("worker-1"),
        started_at=st.none() | TIMES,
        expires_at=st.none() | TIMES,
    ),
    st.builds(lived, SMALL, SMALL, how=st.text()),
    st.builds(TaskRequeued, NUMBERS.map(task_id), NUMBERS.map(task_id)),
    st.builds(ChunkAdded, NUMBERS.map(task_id), SMALL, st.none() | CONTENTS, st.none() | st.binary(max_size=9)),
    st.builds(ChunksDropped, NUMBERS.map(task_id), SMALL),
    st.builds(TasksPurged, st.lists(NUMBERS.map(task_id), max_size=2).map(tuple)),
)


class Restart(NamedTuple):
    """The daemon ends and starts again."""


class Expire(NamedTuple):
    wall_now: float
    limit: int


Step = list[Change] | Restart | Expire
STEPS = st.lists(
    st.one_of(
        st.lists(CHANGES, min_size=1, max_size=12),
        st.builds(Expire, TIMES, st.integers(1, 3)),
        st.just(Restart()),
    ),
    max_size=12,
)


def carried_out(step: Step, store: Store) -> int | None:
    """The store's answer to a step, if there is one."""
    match step:
        case Restart():
            store.close()
            return store.open()
        case Expire(wall_now, limit):
            return store.expire(wall_now, limit)
        case changes:
            store.apply(changes)
            return None


def observed(store: Store) -> list[Any]:
    """All that can be learned from a store whose ids are 1..6."""
    known = [task_id(number) for number in range(1, 7)]
    states, names = [None, *TaskState], [None, "a", "b"]
    return [
        [(store.record(id), store.task(id), store.outcome(id)) for id in known],
        unfinished(store),
        list(store.in_hand()),
        store.keys(NOW),
        [store.ids(id) for id in known],
        store.forgotten(),
        [store.tasks(state=state, name=name, limit=3) for state in states for name in names],
        [store.tasks(before=id) for id in known],
        store.counts(),
        store.lives(),
        store.lives("worker-1", 2),
        sorted(store.streams()),
        [store.chunks(id, offset, 2, 300) for id in known for offset in range(4)],
    ]


@settings(max_examples=60)
@given(steps=STEPS)
def test_any_history_looks_the_same_in_every_store(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stores: Sequence[Store] = [MemoryStore(), SqliteStore(Path(folder) / "state.db", synchronous="NORMAL")]
        for store in stores:
            store.open()
        for step in steps:
            first, second = (carried_out(step, store) for store in stores)
            assert first == second
        memory, file = (observed(store) for store in stores)
        for store in stores:
            store.close()
    assert memory == file


@settings(max_examples=40)
@given(changes=st.lists(CHANGES.filter(lambda change: not isinstance(change, TasksPurged)), max_size=20))
def test_applying_changes_twice_does_no_harm(changes: list[Change]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stores: Sequence[Store] = [MemoryStore(), SqliteStore(Path(folder) / "state.db", synchronous="NORMAL")]
        for store in stores:
            store.open()
            for change in changes:
                store.apply([change])
                once = observed(store)
                store.apply([change])
                assert observed(store) == once
            store.close()

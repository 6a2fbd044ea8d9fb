"""Tasks and changes for the suites, and the medium that a store is opened on, again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from poolmgr.core.changes import AttemptEnded, TaskAdded, TaskEnded, TaskMoved, TaskRecord, WorkerEnded
from poolmgr.core.shelf import START, place_of
from poolmgr.model import AttemptInfo, TaskOptions, TaskState
from poolmgr.post_mortem import PostMortem
from poolmgr.store.base import Store
from poolmgr.worker_life import WorkerLife

NOW = 1_700_000_000.0


def task_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def record(number: int, **fields: Any) -> TaskRecord:
    plain: dict[str, Any] = {
        "name": "thumbnail",
        "payload": b"payload %d" % number,
        "options": TaskOptions(),
        "group": "client-1",
        "order": number,
        "state": TaskState.QUEUED,
        "submitted_at": NOW,
    }
    return TaskRecord(id=task_id(number), **{**plain, **fields})


def added(number: int, **fields: Any) -> TaskAdded:
    return TaskAdded(record(number, **fields))


def moved(number: int, state: TaskState, **fields: Any) -> TaskMoved:
    plain = {"due_at": None, "attempt": 1, "failures": 0, "kills": 0, "interruptions": 0}
    return TaskMoved(task_id(number), state, **{**plain, **fields})


def ended(number: int, state: TaskState = TaskState.COMPLETED, **fields: Any) -> TaskEnded:
    plain: dict[str, Any] = {
        "ended_at": NOW + 2,
        "started_at": NOW + 1,
        "attempt": 1,
        "failures": 0,
        "worker": "worker-3",
        "code": "",
        "message": "",
        "outcome": b"result %d" % number,
        "expires_at": NOW + 3600,
    }
    return TaskEnded(task_id(number), state, **{**plain, **fields})


def dead(number: int, **fields: Any) -> TaskEnded:
    plain = {"code": "timeout", "message": "took too long", "expires_at": None, "failures": 4, "attempt": 4}
    return ended(number, TaskState.DEAD, **{**plain, **fields})


def failed(number: int, attempt: int, **fields: Any) -> AttemptEnded:
    plain = {"type": "ValueError", "message": "no", "traceback": "Traceback ...", "cause": "task_failed"}
    times = {"started_at": NOW + attempt, "ended_at": NOW + attempt + 0.5}
    return AttemptEnded(task_id(number), AttemptInfo(attempt, "worker-1", **{**times, **plain, **fields}))


def lived(worker: int, incarnation: int = 1, **fields: Any) -> WorkerEnded:
    plain = {"pid": 4000 + worker, "spawned_at": NOW, "ended_at": NOW + 9, "how": "exit code 0"}
    return WorkerEnded(WorkerLife(f"worker-{worker}", incarnation, **{**plain, **fields}))


REMAINS = PostMortem(
    exit_code=None,
    signal=11,
    signal_name="SIGSEGV",
    core_dumped=True,
    peak_memory_mb=61.5,
    stacks="Fatal Python error: Segmentation fault\n",
    output="last words\n",
    ran_before=((task_id(7).hex(), "resize"), (task_id(8).hex(), "crop")),
)


class Medium:
    """Where a store keeps its things. ``reopen`` is what a restart of the daemon does."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self.epochs: list[int] = []
        self.store = self.reopen()

    def reopen(self) -> Store:
        if self.epochs:
            self.store.close()
        self.store = self._make()
        self.epochs.append(self.store.open())
        return self.store


def unfinished(store: Store) -> list[TaskRecord]:
    """Every task that is not final, by its order, a few at a time as the daemon reads them."""
    found = list(store.in_hand())
    for line, tasks, last_order in store.shelves():
        there: list[TaskRecord] = []
        while page := store.shelf(line, place_of(there[-1]) if there else START, 2):
            there += page
        assert len(there) == tasks
        assert max(each.order for each in there) == last_order
        assert [place_of(each) for each in there] == sorted(place_of(each) for each in there)
        found += there
    return sorted(found, key=lambda each: (each.order, each.id))


def ids(store: Store, **filters: Any) -> list[int]:
    return [int(info.id, 16) for info in store.tasks(**filters)]

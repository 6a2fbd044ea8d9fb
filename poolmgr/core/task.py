"""The scheduler's own record of a task that is not final."""

from __future__ import annotations

from poolmgr.core.changes import TaskRecord
from poolmgr.core.past import NO_PAST, Past
from poolmgr.model import TaskOptions, TaskState
from poolmgr.payload import Payload

ALONE_AFTER = 2  # interruptions
Watcher = tuple[int, bytes | None]  # a client, and the id by which it knows the task; None: by the task's own
Watchers = tuple[Watcher, ...] | dict[Watcher, None]


class Task:
    """One live task. Only ``core`` changes it; final tasks are dropped.

    ``slot`` is the worker that it is assigned to: begun there if ``state`` is running, else prefetched. ``fence`` is
    the number of its current attempt, 0 while it is not assigned.

    Hundreds of thousands may wait: what most of them share, or have not, is no attribute of its own (core/past.py).
    """

    __slots__ = (
        "attempt", "due_at", "fence", "group", "id", "in_queue", "name", "options", "order", "owner", "past", "payload",
        "queued_at", "slot", "started_at", "state", "submitted_at", "watchers",
    )  # fmt: skip

    def __init__(
        self,
        id: bytes,
        name: str,
        payload: Payload,
        options: TaskOptions,
        group: str,
        order: int,
        owner: int,
        now: float,
        wall: float,
        watchers: Watchers = (),
        past: Past = NO_PAST,
    ) -> None:
        self.id = id
        self.name = name
        self.payload: Payload = payload
        self.options = options
        self.group = group
        self.order = order
        self.owner = owner  # the client whose call this is; 0: it is no call, or its client has gone
        self.submitted_at = wall
        self.queued_at = now
        self.state = TaskState.QUEUED
        self.in_queue = False
        self.slot: str | None = None
        self.fence = 0
        self.attempt = 0
        self.started_at = 0.0
        self.due_at: float | None = None  # boot time, while it is scheduled
        self.watchers = watchers
        self.past = past

    @property
    def runs_alone(self) -> bool:
        """Whether no other such task may run beside it: it has been interrupted twice, and may be why."""
        return self.past.interruptions >= ALONE_AFTER

    @classmethod
    def restored(cls, record: TaskRecord, now: float) -> Task:
        """The task of a record, as of an earlier epoch or from a shelf. When it is due is up to the caller."""
        task = cls(
            record.id, record.name, record.payload, record.options, record.group, record.order, 0, now,
            record.submitted_at,
        )  # fmt: skip
        task.attempt = record.attempt
        past = Past(
            failures=record.failures, kills=record.kills, interruptions=record.interruptions, origin=record.origin,
            cancel_wanted=record.cancel_wanted,
        )  # fmt: skip
        if past != NO_PAST:
            task.past = past
        return task

    def record(self, due: float | None, state: TaskState | None = None) -> TaskRecord:
        """This task as a store keeps it; ``due`` is ``State.stored_due``. ``state``: as what, if not as what it is."""
        past = self.past
        return TaskRecord(
            self.id, self.name, self.payload, self.options, self.group, self.order, state or self.state,
            self.submitted_at, due, self.attempt, past.failures, past.kills, past.interruptions, past.origin,
            past.cancel_wanted,
        )  # fmt: skip

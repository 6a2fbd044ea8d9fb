"""The scheduler's own record of a task that is not final."""

from __future__ import annotations

from poolmgr.core.changes import TaskRecord
from poolmgr.model import AttemptInfo, TaskOptions, TaskState

ALONE_AFTER = 2  # interruptions
Watchers = tuple[tuple[int, bytes], ...] | dict[tuple[int, bytes], None]  # (client, the id by which it knows the task)


class Task:
    """One live task. Only ``core`` changes it; final tasks are dropped.

    ``slot`` is the worker that it is assigned to: begun there if ``state`` is running, else prefetched. ``fence`` is
    the number of its current attempt, 0 while it is not assigned.
    """

    __slots__ = (
        "attempt", "attempts", "beyond", "cancel_tokens", "cancel_wanted", "cautious", "due_at", "due_wall", "failures",
        "fence", "group", "id", "in_queue", "interruptions", "kill_wanted", "kills", "last_worker", "name", "options",
        "order", "origin", "overdue", "owner", "payload", "progress", "queued_at", "slot", "started_at", "state",
        "submitted_at", "unshown", "watchers",
    )  # fmt: skip

    def __init__(
        self,
        id: bytes,
        name: str,
        payload: bytes,
        options: TaskOptions,
        group: str,
        order: int,
        owner: int,
        now: float,
        wall: float,
    ) -> None:
        self.id = id
        self.name = name
        self.payload = payload
        self.options = options
        self.group = group
        self.order = order
        self.owner = owner  # the client whose call this is; 0: it is no call, or its client has gone
        self.submitted_at = wall
        self.queued_at = now
        self.state = TaskState.QUEUED
        self.in_queue = False
        self.beyond = False  # it waits until those before it have been loaded (core/shelf.py)
        self.slot: str | None = None
        self.fence = 0
        self.attempt = 0
        self.failures = 0
        self.kills = 0
        self.unshown = 0  # workers that died with it first in line, and did not show that they had begun it
        self.interruptions = 0
        self.cautious = False  # of an earlier epoch, or a schedule's: its start is kept before it is made
        self.overdue = False  # its ``expires_s`` passed while it was assigned
        self.started_at = 0.0
        self.due_at: float | None = None  # boot time
        self.due_wall: float | None = None  # the wall time that an ``at=`` follows
        self.last_worker: str | None = None
        self.watchers: Watchers = ()
        self.cancel_tokens: tuple[int, ...] = ()
        self.cancel_wanted = False  # it may finish what it has begun, and does not begin again
        self.kill_wanted = False  # ... nor finish
        self.origin: bytes | str | None = None
        self.attempts: list[AttemptInfo] | None = None
        self.progress: tuple[float, str] | None = None

    @property
    def runs_alone(self) -> bool:
        """Whether no other such task may run beside it: it has been interrupted twice, and may be why."""
        return self.interruptions >= ALONE_AFTER

    @classmethod
    def restored(cls, record: TaskRecord, now: float) -> Task:
        """The task of a record, as of an earlier epoch or from a shelf. When it is due is up to the caller."""
        task = cls(
            record.id, record.name, record.payload, record.options, record.group, record.order, 0, now,
            record.submitted_at,
        )  # fmt: skip
        task.attempt, task.failures, task.kills = record.attempt, record.failures, record.kills
        task.interruptions, task.origin = record.interruptions, record.origin
        return task

    def record(self, due: float | None) -> TaskRecord:
        """This task as a store keeps it; ``due`` is ``State.stored_due``."""
        return TaskRecord(
            self.id, self.name, self.payload, self.options, self.group, self.order, self.state, self.submitted_at,
            due, self.attempt, self.failures, self.kills, self.interruptions, self.origin,
        )  # fmt: skip

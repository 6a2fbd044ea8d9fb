"""What the scheduler asks a store to remember. A change is a fact, not a query: applying it twice does no harm.

Times in changes are wall times (seconds since 1970), because a store outlives a boot. Changes that were made together
are applied together, in one transaction, in their order.
"""

from __future__ import annotations

from typing import NamedTuple

from poolmgr.model import AttemptInfo, TaskOptions, TaskState
from poolmgr.payload import Payload
from poolmgr.schedule import Timing
from poolmgr.worker_life import WorkerLife


class TaskRecord(NamedTuple):
    """All that is needed to run a task again after the daemon's death, or to requeue it once it is dead."""

    id: bytes
    name: str
    payload: Payload
    options: TaskOptions
    group: str
    order: int  # FIFO within a group: smaller runs first
    state: TaskState
    submitted_at: float
    due_at: float | None = None  # when a scheduled task is to be queued
    attempt: int = 0
    failures: int = 0
    kills: int = 0  # workers that died under it
    interruptions: int = 0  # daemon deaths while it ran
    origin: bytes | str | None = None  # the dead task that it was requeued from, or "schedule:" and a schedule's id
    cancel_wanted: bool = False  # it was cancelled as it ran, and does not run again


class ScheduleRecord(NamedTuple):
    """A schedule: what its tasks are, and how far it has come."""

    id: str
    name: str  # of the tasks
    payload: bytes
    options: bytes | None  # as SUBMIT has them: those that differ from the handler's
    timing: Timing
    paused: bool
    created_at: float  # every_s counts from here
    last_tick: float  # up to this one all have had their turn; at first created_at


class TaskAdded(NamedTuple):
    """A new task. A task of that id that is already there is left as it is."""

    task: TaskRecord


class TaskMoved(NamedTuple):
    """A task that is not final has a new state (scheduled, queued or running) and new counts."""

    id: bytes
    state: TaskState
    due_at: float | None
    attempt: int
    failures: int
    kills: int
    interruptions: int
    cancel_wanted: bool = False


class AttemptEnded(NamedTuple):
    """An attempt ended in another way than by completing."""

    id: bytes
    attempt: AttemptInfo


class TaskEnded(NamedTuple):
    """A task reached a final state. ``outcome`` is the result's payload, or the packed failure (wire/messages.py).

    ``code`` is '' for a completed task, else the failure's code. ``expires_at`` says when ``outcome`` may be forgotten
    (a dead task is kept until it is purged: None). ``streamed`` is what its chunks weigh that are kept as long.
    """

    id: bytes
    state: TaskState
    ended_at: float
    started_at: float | None
    attempt: int
    failures: int
    worker: str | None
    code: str
    message: str
    outcome: Payload
    expires_at: float | None
    streamed: int = 0


class TaskRequeued(NamedTuple):
    """The dead task ``id`` has been submitted again as ``requeued_as``."""

    id: bytes
    requeued_as: bytes


class TasksPurged(NamedTuple):
    """These final tasks are to be forgotten with their whole history."""

    ids: tuple[bytes, ...]


class ScheduleSet(NamedTuple):
    """A schedule is new, or is changed as a whole."""

    schedule: ScheduleRecord


class ScheduleTicked(NamedTuple):
    """The ticks of a schedule up to this one have had their turn. Their tasks are added in the same commit."""

    id: str
    last_tick: float


class ScheduleRemoved(NamedTuple):
    """A schedule is to be forgotten. The tasks that it has made stay."""

    id: str


class StreamRecord(NamedTuple):
    """How far the stream of an unfinished task has come (core/stream.py)."""

    id: bytes
    kept: int  # chunks 0 to kept - 1 were added
    dropped: int  # and those below are gone
    size: int  # what the others weigh, in bytes
    first: int  # where the handler goes on: the number of its next chunk
    checkpoint: bytes | None  # from what; None: from its beginning


class ChunkAdded(NamedTuple):
    """The next chunk of an unfinished task, and what its handler can go on from behind it; or, without a payload, that
    alone: ``seq`` is then the number of the next chunk. A chunk that is not the next one is there already."""

    id: bytes
    seq: int
    payload: Payload | None
    checkpoint: bytes | None


class ChunksDropped(NamedTuple):
    """The chunks of this task with numbers below ``below`` are to be forgotten."""

    id: bytes
    below: int


class WorkerEnded(NamedTuple):
    """A worker process has ended. The store knows whose epoch it was."""

    life: WorkerLife


Change = (
    TaskAdded | TaskMoved | AttemptEnded | TaskEnded | TaskRequeued | TasksPurged | WorkerEnded
    | ScheduleSet | ScheduleTicked | ScheduleRemoved | ChunkAdded | ChunksDropped
)  # fmt: skip

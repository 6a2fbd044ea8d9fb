"""The store that lasts as long as its process: for work that is not durable, for tests and for the simulator.

It behaves as the SQLite store does, ``tests/conformance/test_store.py`` says so, but for what happens to it
when the process ends. What it holds survives ``close``, so that a simulated daemon can start again "from the
file".
"""

from __future__ import annotations

import heapq
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from poolmgr.core.allotment import first_of
from poolmgr.core.changes import (
    AttemptEnded,
    Change,
    ChunkAdded,
    ChunksDropped,
    ScheduleRecord,
    ScheduleRemoved,
    ScheduleSet,
    ScheduleTicked,
    StreamRecord,
    TaskAdded,
    TaskEnded,
    TaskMoved,
    TaskRecord,
    TaskRequeued,
    TasksPurged,
    WorkerEnded,
)
from poolmgr.core.schedule import origin_text
from poolmgr.core.shelf import LineKey, Place, ShelfSize, is_plain, place_of
from poolmgr.errors import StoreUnavailable
from poolmgr.model import AttemptInfo, TaskInfo, TaskState, last_id_of
from poolmgr.payload import inline
from poolmgr.post_mortem import ATTEMPTS_KEPT
from poolmgr.store.base import AHEAD_MOST, Chunks, Ids, Outcome
from poolmgr.store.memory_stream import NO_STREAM, MemoryStream
from poolmgr.worker_life import LIVES_KEPT, WorkerLife

_AHEAD_S = 1.0  # an id that was made so much later than it came is of no known time
_SHELVED = frozenset({TaskState.QUEUED, TaskState.SCHEDULED})


@dataclass(slots=True)
class _Kept:
    """All that is known of one task."""

    record: TaskRecord
    ended: TaskEnded | None = None
    requeued_as: bytes | None = None
    attempts: dict[int, AttemptInfo] = field(default_factory=dict)
    stream: MemoryStream = NO_STREAM
    size: int = 0  # bytes, once it is final


class MemoryStore:
    """A ``store.base.Store`` in memory.

    Args:
        limit: how many final tasks are kept; beyond it those that ended first are forgotten, keys or not: those are for
            the next start, and none comes. None: no limit.
        limit_bytes: the same for what they weigh: payloads, outcomes, and what is told of their attempts. The one that
            ended last is kept whatever it weighs. None: no limit.
    """

    def __init__(self, *, limit: int | None = 10_000, limit_bytes: int | None = 64 << 20) -> None:
        self._limit = math.inf if limit is None else limit
        self._limit_bytes = math.inf if limit_bytes is None else limit_bytes
        self._epoch = 0
        self._is_open = False
        self._tasks: dict[bytes, _Kept] = {}
        self._final: dict[bytes, None] = {}  # the ids of final tasks, as they ended
        self._size = 0  # of all that are final
        self._last_forgotten = b""
        self._schedules: dict[str, ScheduleRecord] = {}
        self._lives: dict[tuple[str, int, int], WorkerLife] = {}  # as they ended

    def open(self) -> int:
        if self._is_open:
            raise StoreUnavailable("the store is open already")
        self._is_open = True
        self._epoch += 1
        return self._epoch

    def close(self) -> None:
        self._is_open = False

    # ------------------------------------------------------------------------------------------- writing

    def apply(self, changes: Sequence[Change]) -> None:
        self._check_open()
        for change in changes:
            match change:
                case TaskAdded(task):
                    self._tasks.setdefault(task.id, _Kept(_in_memory(task)))
                case TaskMoved():
                    self._move(change)
                case AttemptEnded(id, attempt):
                    if id in self._tasks:
                        _remember(self._tasks[id].attempts, attempt)
                        self._weigh(id)
                case TaskEnded():
                    self._end(change)
                case TaskRequeued(id, requeued_as):
                    if id in self._tasks:
                        self._tasks[id].requeued_as = requeued_as
                case WorkerEnded(life):
                    self._remember_life(life._replace(epoch=self._epoch))
                case TasksPurged(ids):
                    self._forget([id for id in ids if id in self._final])
                case ChunkAdded() | ChunksDropped():
                    self._stream_on(change)
                case ScheduleSet(schedule):
                    self._schedules[schedule.id] = schedule
                case ScheduleTicked(id, last_tick):
                    if id in self._schedules:
                        self._schedules[id] = self._schedules[id]._replace(last_tick=last_tick)
                case ScheduleRemoved(id):
                    self._schedules.pop(id, None)

    def _move(self, change: TaskMoved) -> None:
        kept = self._tasks.get(change.id)
        if kept is None or kept.ended is not None:
            return
        kept.record = kept.record._replace(**change._asdict())

    def _end(self, change: TaskEnded) -> None:
        kept = self._tasks.get(change.id)
        if kept is None or kept.ended is not None:
            return
        kept.ended = change._replace(outcome=inline(change.outcome))
        kept.record = kept.record._replace(state=change.state, attempt=change.attempt, failures=change.failures)
        self._final[change.id] = None
        self._weigh(change.id)

    def _stream_on(self, change: ChunkAdded | ChunksDropped) -> None:
        kept = self._tasks.get(change.id)
        if kept is not None and kept.ended is None:
            kept.stream = kept.stream.after(change)

    def _weigh(self, id: bytes) -> None:
        """What is known of it has changed: if it is final, others may have to go."""
        if id not in self._final:
            return
        kept = self._tasks[id]
        self._size -= kept.size
        kept.size = _size(kept)
        self._size += kept.size
        while len(self._final) > self._limit or (self._size > self._limit_bytes and len(self._final) > 1):
            self._forget([next(iter(self._final))])

    def _remember_life(self, life: WorkerLife) -> None:
        self._lives.setdefault((life.worker, life.epoch, life.incarnation), life)
        if len(self._lives) > LIVES_KEPT:
            del self._lives[next(iter(self._lives))]

    def _forget(self, ids: Sequence[bytes]) -> None:
        for id in ids:
            self._final.pop(id, None)
            kept = self._tasks.pop(id, None)
            if kept is not None:
                self._size -= kept.size
                if id <= last_id_of(kept.record.submitted_at + _AHEAD_S):
                    self._last_forgotten = max(self._last_forgotten, id)

    def expire(self, wall_now: float, limit: int = 1000) -> int:
        self._check_open()
        due = [
            (ended.expires_at, id)
            for id in self._final
            if (ended := self._tasks[id].ended) and ended.expires_at is not None and ended.expires_at <= wall_now
        ]
        first = heapq.nsmallest(limit, due)
        self._forget([id for _, id in first])
        return len(first)

    def sweep(self, limit: int = 200) -> int:
        self._check_open()
        return 0  # they go with their tasks

    # ------------------------------------------------------------------------------------------- reading

    def in_hand(self) -> Iterator[TaskRecord]:
        self._check_open()
        found = [record for record in self._unfinished() if not _is_shelved(record)]
        return iter(sorted(found, key=lambda record: record.order))

    def shelves(self) -> list[ShelfSize]:
        self._check_open()
        lines: dict[LineKey | None, list[int]] = {}
        for record in self._unfinished():
            if _is_shelved(record):
                lines.setdefault(_line(record), []).append(record.order)
        return [ShelfSize(line, len(orders), max(orders)) for line, orders in lines.items()]

    def shelf(self, line: LineKey | None, after: Place, limit: int, limit_bytes: int = sys.maxsize) -> list[TaskRecord]:
        self._check_open()
        found = ((place_of(record), record) for record in self._unfinished() if _is_shelved(record))
        there = [(place, record) for place, record in found if place > after and _line(record) == line]
        first = [record for _, record in heapq.nsmallest(limit, there, key=lambda each: each[0])]
        return first_of(first, limit, limit_bytes)

    def _unfinished(self) -> Iterator[TaskRecord]:
        return (kept.record for kept in self._tasks.values() if kept.ended is None)

    def keys(self, wall_now: float) -> list[tuple[str, bytes, float]]:
        self._check_open()
        found = []
        for id in sorted(self._final):
            record = self._tasks[id].record
            until = record.submitted_at + record.options.key_window_s
            if record.options.key is not None and record.options.key_window_s and until > wall_now:
                found.append((record.options.key, id, until))
        return found

    def ids(self, newest: bytes) -> Ids:
        self._check_open()
        ahead = sorted(id for id in self._tasks if id > newest)
        if len(ahead) > AHEAD_MOST:
            newest, ahead = b"\xff" * 16, []
        return Ids(max([self._last_forgotten, *(id for id in self._tasks if id <= newest)]), tuple(ahead))

    def forgotten(self) -> bytes:
        self._check_open()
        return self._last_forgotten

    def schedules(self) -> list[ScheduleRecord]:
        self._check_open()
        return [self._schedules[id] for id in sorted(self._schedules)]

    def streams(self) -> list[StreamRecord]:
        self._check_open()
        unfinished = [(id, kept.stream) for id, kept in self._tasks.items() if kept.ended is None]
        return [stream.record(id) for id, stream in unfinished if stream is not NO_STREAM]

    def chunks(self, task_id: bytes, offset: int, limit: int, limit_bytes: int = sys.maxsize) -> Chunks | None:
        self._check_open()
        kept = self._tasks.get(task_id)
        return None if kept is None else kept.stream.page(offset, limit, limit_bytes, final=kept.ended is not None)

    def record(self, task_id: bytes) -> TaskRecord | None:
        self._check_open()
        kept = self._tasks.get(task_id)
        return None if kept is None else kept.record

    def task(self, task_id: bytes) -> TaskInfo | None:
        self._check_open()
        kept = self._tasks.get(task_id)
        return None if kept is None else _info(kept, with_attempts=True)

    def outcome(self, task_id: bytes) -> Outcome | None:
        self._check_open()
        kept = self._tasks.get(task_id)
        if kept is None or kept.ended is None:
            return None
        return Outcome(kept.ended.state, kept.ended.code, kept.ended.outcome)

    def tasks(
        self,
        *,
        state: TaskState | None = None,
        name: str | None = None,
        limit: int = 100,
        before: bytes | None = None,
    ) -> list[TaskInfo]:
        self._check_open()
        ids = (
            id
            for id, kept in self._tasks.items()
            if (state is None or kept.record.state is state)
            and (name is None or kept.record.name == name)
            and (before is None or id < before)
        )
        return [_info(self._tasks[id]) for id in heapq.nlargest(limit, ids)]

    def lives(self, worker: str | None = None, limit: int = 100) -> list[WorkerLife]:
        self._check_open()
        found = (life for life in reversed(self._lives.values()) if worker is None or life.worker == worker)
        return list(islice(found, max(0, limit)))

    def counts(self) -> dict[TaskState, int]:
        self._check_open()
        return dict(Counter(kept.record.state for kept in self._tasks.values()))

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailable("the store is not open")


def _remember(attempts: dict[int, AttemptInfo], new: AttemptInfo) -> None:
    """Only the last ten keep their post-mortems."""
    if new.attempt in attempts:
        return
    attempts[new.attempt] = new
    for number, each in attempts.items():
        if number <= new.attempt - ATTEMPTS_KEPT and each.post_mortem is not None:
            attempts[number] = each._replace(post_mortem=None)


def _is_shelved(record: TaskRecord) -> bool:
    return record.attempt == 0 and record.state in _SHELVED and is_plain(record.options)


def _line(record: TaskRecord) -> LineKey | None:
    if record.state is TaskState.SCHEDULED:
        return None
    options = record.options
    return LineKey(record.name, options.requires, options.ephemeral, options.priority, record.group)


def _size(kept: _Kept) -> int:
    """Bytes that it holds, but for what is small."""
    held: list[str | bytes] = [inline(kept.record.payload)]
    if kept.ended is not None:
        held += inline(kept.ended.outcome), kept.ended.message
    held += [*kept.stream.chunks, kept.stream.checkpoint or b""]
    for attempt in kept.attempts.values():
        held += attempt.message, attempt.traceback
        if attempt.post_mortem is not None:
            held += attempt.post_mortem.stacks, attempt.post_mortem.output
    return sum(map(sys.getsizeof, held))


def _info(kept: _Kept, *, with_attempts: bool = False) -> TaskInfo:
    record, ended = kept.record, kept.ended
    return TaskInfo(
        id=record.id.hex(),
        name=record.name,
        state=record.state,
        priority=record.options.priority,
        group=record.group,
        durable=record.options.durable,
        attempt=record.attempt,
        failures=record.failures,
        max_retries=record.options.max_retries,
        submitted_at=record.submitted_at,
        due_at=record.due_at,
        started_at=ended.started_at if ended else None,
        ended_at=ended.ended_at if ended else None,
        assigned_to=ended.worker if ended else None,
        cause=(ended.code or None) if ended else None,
        message=ended.message if ended else "",
        origin=origin_text(record.origin),
        requeued_as=kept.requeued_as.hex() if kept.requeued_as else None,
        attempts=tuple(kept.attempts[number] for number in sorted(kept.attempts)) if with_attempts else (),
        chunks=kept.stream.kept,
        resumes_at=None if kept.stream.checkpoint is None else kept.stream.first,
    )


def _in_memory(task: TaskRecord) -> TaskRecord:
    """Without a file: as many are kept here as no process may have open."""
    return task if isinstance(task.payload, bytes) else task._replace(payload=task.payload.content())

"""How changes become rows, and rows what is known of tasks. The statements are in queries.sql.

Options are MessagePack of those that differ from their defaults. Most tasks share a few sets of options, so
both directions are remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import msgpack

from poolmgr.core.changes import (
    AttemptEnded,
    Change,
    ScheduleRecord,
    ScheduleRemoved,
    ScheduleSet,
    ScheduleTicked,
    TaskAdded,
    TaskEnded,
    TaskMoved,
    TaskRecord,
    TaskRequeued,
    TasksPurged,
    WorkerEnded,
)
from poolmgr.core.schedule import origin_text
from poolmgr.core.shelf import LineKey, is_plain
from poolmgr.errors import BadOption
from poolmgr.model import AttemptInfo, TaskInfo, TaskOptions, TaskState, check_options, to_wire
from poolmgr.payload import Payload
from poolmgr.post_mortem import PostMortem, post_mortem
from poolmgr.schedule import Timing
from poolmgr.store.base import Outcome
from poolmgr.store.runs import SHORT_BYTES, ShortLife
from poolmgr.store.spool import Kind

Row = tuple[Any, ...]
SharedRow = tuple[Row, Row]  # what it has in common with its neighbours, as often as not; and the rest

# What decoding a row raises when it is not what this store wrote.
UNREADABLE: Final = (ValueError, TypeError, BadOption, msgpack.UnpackException)

LONG_BYTES: Final = 64 << 10  # one that is not short is in a table of its own up to here, else in a file (spool.py)

_REST: Final = len(TaskRecord._fields) - 7  # fields behind a record's state

_TEXT: Final = {state: state.value for state in TaskState}  # plain strings are bound without an adapter's look-up
_DEFAULTS: Final = list(TaskOptions()._asdict().items())


@lru_cache(maxsize=256)
def pack_options(options: TaskOptions) -> bytes:
    """MessagePack of a map with the options that differ from their defaults."""
    given = {name: value for name, usual in _DEFAULTS if (value := getattr(options, name)) != usual}
    packed: bytes = msgpack.packb(to_wire(given))
    return packed


@lru_cache(maxsize=256)
def unpack_options(packed: bytes) -> TaskOptions:
    """The options that ``pack_options`` packed.

    Raises:
        BadOption, ValueError, msgpack.UnpackException: these are not packed options.
    """
    return TaskOptions(**check_options(msgpack.unpackb(packed)))


@lru_cache(maxsize=256)
def _columns(options: TaskOptions) -> Row:
    """``options``, ``priority``, ``demand``, ``held`` and ``key``."""
    demand = pack_demand(options.requires, options.ephemeral)
    key = options.key if options.key_window_s else None
    return pack_options(options), options.priority, demand, not is_plain(options), key


def pack_demand(requires: frozenset[str], ephemeral: bool) -> str:
    """What a task needs of a worker, as one text: whether a process of its own, then capabilities, one a line."""
    return "\n".join(("ephemeral" if ephemeral else "", *sorted(requires))) if requires or ephemeral else ""


def line_of(name: str, demand: str, priority: int, group: str) -> LineKey:
    """The line that these columns name."""
    first, *requires = demand.split("\n")
    return LineKey(name, frozenset(requires), bool(first), priority, group)


# -------------------------------------------------------------------------------------------- changes to rows


def _births(tasks: Iterable[TaskRecord]) -> Iterator[SharedRow]:
    """What of a task's row does not change as long as it waits and runs."""
    options, columns, key_window_s = None, _columns(TaskOptions()), 0.0
    for task in tasks:
        if task.options is not options:
            options = task.options
            columns = _columns(options)
            key_window_s = options.key_window_s if options.key is not None else 0.0
        yield (
            (task.name, task.group, *columns, task.kills, task.interruptions, task.origin),
            (
                task.id,
                task.order,
                task.submitted_at,
                task.due_at,
                task.submitted_at + key_window_s if key_window_s else None,
                task.payload if len(task.payload) <= SHORT_BYTES else None,
            ),
        )


def _task_rows(run: Sequence[TaskAdded]) -> Iterator[SharedRow]:
    tasks = [change.task for change in run]
    for task, (shared, own) in zip(tasks, _births(tasks), strict=True):
        yield (*shared, _TEXT[task.state], task.attempt, task.failures), own


def _short_life_rows(run: Sequence[ShortLife]) -> Iterator[SharedRow]:
    for (_, end), (shared, own) in zip(run, _births(life.task for life in run), strict=True):
        shared_end, (_, *own_end) = _end_row(end)
        yield (*shared, *shared_end), (*own, *own_end)


def _attempt_row(change: AttemptEnded) -> Row:
    ended = change.attempt
    return (
        change.id,
        ended.attempt,
        ended.worker,
        ended.started_at,
        ended.ended_at,
        ended.cause,
        ended.type,
        ended.message,
        ended.traceback,
        None if ended.post_mortem is None else _pack_post_mortem(ended.post_mortem),
    )


def _pack_post_mortem(found: PostMortem) -> bytes:
    """MessagePack of a map with the fields that say something."""
    usual = PostMortem._field_defaults
    given = {name: value for name, value in found._asdict().items() if value != usual[name]}
    packed: bytes = msgpack.packb(given, unicode_errors="backslashreplace")
    return packed


def _end_row(change: TaskEnded) -> SharedRow:
    return (
        (_TEXT[change.state], change.attempt, change.failures, change.code, change.message),
        (
            change.id,
            change.ended_at,
            change.started_at,
            change.worker,
            change.expires_at,
            change.outcome if len(change.outcome) <= SHORT_BYTES else None,
            len(change.outcome) + change.streamed,
        ),
    )


def _long_payloads(run: Sequence[TaskAdded]) -> list[Row]:
    return [(each.task.id, each.task.payload) for each in run if SHORT_BYTES < len(each.task.payload) <= LONG_BYTES]


def _long_outcomes(run: Sequence[TaskEnded]) -> list[Row]:
    return [(each.id, each.outcome) for each in run if SHORT_BYTES < len(each.outcome) <= LONG_BYTES]


def _moves(run: Sequence[TaskMoved]) -> Iterable[Row]:
    """The last of each task: of several in one statement any might win."""
    return {each.id: (each.id, _TEXT[each.state], *each[2:]) for each in run}.values()


def _ends(run: Sequence[TaskEnded]) -> Iterable[SharedRow]:
    """The first of each task, as it stays."""
    return {each.id: _end_row(each) for each in reversed(run)}.values()


def _schedule_row(change: ScheduleSet) -> Row:
    made = change.schedule
    return (made.id, made.name, made.payload, made.options, *made.timing, made.paused, made.created_at, made.last_tick)


def _apart(rows: Callable[[Any], Iterable[Row]]) -> Callable[[Any], Iterable[SharedRow]]:
    """Rows that share nothing."""
    return lambda run: (((), row) for row in rows(run))


# For each kind of change the statements that apply a run of it, in order, with what makes the rows of each.
_STATEMENTS: Final[dict[type, tuple[tuple[str, Callable[[Any], Iterable[SharedRow]]], ...]]] = {
    TaskAdded: (
        ("add_long_payload", _apart(_long_payloads)),
        ("add_task", _task_rows),
    ),
    ShortLife: (("add_short_life", _short_life_rows),),
    TaskMoved: (("move_task", _apart(_moves)),),
    AttemptEnded: (("add_attempt", _apart(lambda run: map(_attempt_row, run))),),
    TaskEnded: (
        ("add_long_outcome", _apart(_long_outcomes)),
        ("end_task", _ends),
    ),
    TaskRequeued: (("link_requeued", _apart(lambda run: run)),),
    WorkerEnded: (("add_life", _apart(lambda run: (each.life[:-1] for each in run))),),
    TasksPurged: (("purge_task", _apart(lambda run: ((id,) for each in run for id in each.ids))),),
    ScheduleSet: (("set_schedule", _apart(lambda run: map(_schedule_row, run))),),
    ScheduleTicked: (("tick_schedule", _apart(lambda run: run)),),
    ScheduleRemoved: (("remove_schedule", _apart(lambda run: run)),),
}


def spooled(change: Change) -> tuple[bytes, Kind, Payload] | None:
    """What of ``change`` is to be in a file: the task's id, what it is, and its content; or None."""
    match change:
        case TaskAdded(task) if len(task.payload) > LONG_BYTES:
            return task.id, "payload", task.payload
        case TaskEnded() if len(change.outcome) > LONG_BYTES:
            return change.id, "outcome", change.outcome
        case _:
            return None


def has_spooled(kind: type, run: Sequence[Any]) -> bool:
    """Whether any of ``run``, changes of one ``kind``, has something that is to be in a file."""
    if kind is TaskAdded:
        return bool([each for each in run if len(each.task.payload) > LONG_BYTES])
    return kind is TaskEnded and bool([each for each in run if len(each.outcome) > LONG_BYTES])


def statements_for(kind: type, run: Sequence[Any]) -> Iterable[tuple[str, Iterable[SharedRow]]]:
    """The statements that apply ``run``, changes of one ``kind``: names, in order, each with its rows."""
    return ((name, rows(run)) for name, rows in _STATEMENTS[kind])


# -------------------------------------------------------------------------------------- rows to what is known


def record_of(row: Row) -> TaskRecord:
    """The record of a row of ``task_records``."""
    id, name, payload, options, group, order, state, *rest = row
    known, cancel_wanted = rest[: _REST - 1], bool(rest[_REST - 1])  # SQLite has no bool
    return TaskRecord._make(
        (id, name, payload, unpack_options(options), group, order, TaskState(state), *known, cancel_wanted)
    )


def info_of(row: Row) -> TaskInfo:
    """What is known of the task of a row of ``task_infos``, without its attempts."""
    id, name, state, packed, group, attempt, failures, submitted_at, due_at, started_at, ended_at, *rest = row
    worker, code, message, origin, requeued_as, kept, first, has_checkpoint = rest
    options = unpack_options(packed)
    return TaskInfo(
        id=id.hex(),
        name=name,
        state=TaskState(state),
        priority=options.priority,
        group=group,
        durable=options.durable,
        attempt=attempt,
        failures=failures,
        max_retries=options.max_retries,
        submitted_at=submitted_at,
        due_at=due_at,
        started_at=started_at,
        ended_at=ended_at,
        assigned_to=worker,
        cause=code or None,
        message=message,
        origin=origin_text(origin),
        requeued_as=requeued_as.hex() if requeued_as else None,
        chunks=kept or 0,
        resumes_at=first if has_checkpoint else None,
    )


def attempt_of(row: Row) -> AttemptInfo:
    """The attempt of a row of the statement ``attempts``."""
    packed = row[-1]
    return AttemptInfo(*row)._replace(post_mortem=None if packed is None else post_mortem(msgpack.unpackb(packed)))


def outcome_of(row: Row) -> Outcome:
    """The outcome of a row of the statement ``outcome``."""
    state, code, outcome = row
    return Outcome(TaskState(state), code, outcome)


def schedule_of(row: Row) -> ScheduleRecord:
    """The schedule of a row of the statement ``schedules``."""
    id, name, payload, options, cron, every_s, timezone, missed, paused, created_at, last_tick = row
    timing = Timing(cron, every_s, timezone, missed)
    return ScheduleRecord(id, name, payload, options, timing, bool(paused), created_at, last_tick)

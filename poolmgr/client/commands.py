"""Every request that a client can make: its name and arguments on the wire, and how its answer reads.

Both clients ask by these, so that neither is the twin of the other: a method of theirs is one line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from poolmgr.breaker import BreakerInfo, breaker_info
from poolmgr.errors import BadValue, NotFound
from poolmgr.model import TaskInfo, WorkerInfo, task_info, worker_info
from poolmgr.schedule import ScheduleInfo, Timing, check_id, schedule_info, timing_of
from poolmgr.wire.framing import ENVELOPE
from poolmgr.worker_life import WorkerLife, worker_life

T = TypeVar("T")


class Question(NamedTuple, Generic[T]):
    """A request: the command's name, its arguments, and how to read the answer's value."""

    command: str
    arguments: Mapping[str, Any]
    read: Callable[[Any], T]


class Which(NamedTuple):
    """Of which dead tasks a question speaks: all, unless it says more."""

    name: str | None
    cause: str | None
    older_than_s: float | None

    def arguments(self) -> dict[str, Any]:
        return {name: value for name, value in self._asdict().items() if value is not None}


def key_of(task_id: str) -> bytes:
    """The 16 bytes of a task's id, which is 32 hex digits.

    Raises:
        NotFound: it is not.
    """
    try:
        key = bytes.fromhex(task_id)
    except (TypeError, ValueError):
        key = b""
    if len(key) != 16:
        raise NotFound(f"there is no task {task_id!r}: an id is 32 hex digits")
    return key


def _nothing(value: Any) -> None:
    return None


def _workers(value: Sequence[Mapping[str, Any]]) -> list[WorkerInfo]:
    return [worker_info(each) for each in value]


def _tasks(value: Sequence[Mapping[str, Any]]) -> list[TaskInfo]:
    return [task_info(each) for each in value]


def _keys(task_ids: Sequence[str]) -> list[bytes] | None:
    if len(task_ids) > ENVELOPE.items:
        raise BadValue(f"at most {ENVELOPE.items:,} tasks can be named at once, got {len(task_ids):,}")
    return [key_of(each) for each in task_ids] or None


# -------------------------------------------------------------------------------------------------- tasks


def room(name: str, tasks: int, options: bytes | None, timeout_s: float | None) -> Question[int]:
    """How many of so many tasks of these options may be submitted now: the answer comes when there is room for one."""
    arguments = {"name": name, "tasks": tasks, "options": options, "timeout_s": timeout_s}
    return Question("room", arguments, int)


def leave_room(request: int) -> Question[None]:
    return Question("leave_room", {"request": request}, _nothing)


def task(task_id: str) -> Question[TaskInfo]:
    return Question("task", {"id": key_of(task_id)}, task_info)


def tasks(state: str | None, name: str | None, limit: int, before: str | None) -> Question[list[TaskInfo]]:
    asked = {
        "state": None if state is None else str(state),
        "name": name,
        "limit": limit,
        "before": None if before is None else key_of(before),
    }
    return Question("tasks", {key: value for key, value in asked.items() if value is not None}, _tasks)


def dead_letters(limit: int, which: Which) -> Question[list[TaskInfo]]:
    return Question("dead_letters", {"limit": limit, **which.arguments()}, _tasks)


class Page(NamedTuple):
    """Some chunks of a stream. ``ended``: they are the last."""

    chunks: list[bytes]
    ended: bool


def _page(value: Mapping[str, Any]) -> Page:
    return Page(list(value["chunks"]), bool(value["ended"]))


def chunks(key: bytes, offset: int, reader: int) -> Question[Page]:
    return Question("chunks", {"id": key, "offset": offset, "reader": reader}, _page)


def leave_chunks(key: bytes, reader: int) -> Question[None]:
    return Question("chunks", {"id": key, "reader": reader, "detach": True}, _nothing)


def watch(key: bytes) -> Question[None]:
    return Question("watch", {"id": key}, _nothing)


def cancel(key: bytes, kill: bool) -> Question[bool]:
    return Question("cancel", {"id": key, "kill": kill}, bool)


def preempt(key: bytes) -> Question[bool]:
    return Question("preempt", {"id": key}, bool)


def requeue(task_ids: Sequence[str], which: Which) -> Question[dict[str, str]]:
    return Question("requeue", {"ids": _keys(task_ids), **which.arguments()}, dict)


def purge(task_ids: Sequence[str], which: Which) -> Question[int]:
    return Question("purge", {"ids": _keys(task_ids), **which.arguments()}, int)


CLEAR: Final[Question[int]] = Question("clear", {}, int)


def pause(name: str) -> Question[None]:
    return Question("pause", {"name": name}, _nothing)


def resume(name: str) -> Question[None]:
    return Question("resume", {"name": name}, _nothing)


def _breakers(value: Sequence[Mapping[str, Any]]) -> list[BreakerInfo]:
    return [breaker_info(each) for each in value]


BREAKERS: Final[Question[list[BreakerInfo]]] = Question("breakers", {}, _breakers)


def reset_breaker(name: str) -> Question[None]:
    return Question("reset_breaker", {"name": name}, _nothing)


# -------------------------------------------------------------------------------------------------- schedules


def _schedules(value: Sequence[Mapping[str, Any]]) -> list[ScheduleInfo]:
    return [schedule_info(each) for each in value]


def schedules(upcoming: int) -> Question[list[ScheduleInfo]]:
    return Question("schedules", {"upcoming": upcoming}, _schedules)


def schedule(id: str, timing: Timing, name: str, payload: bytes, options: bytes | None) -> Question[ScheduleInfo]:
    """
    Raises:
        BadOption: it cannot be called so, or the timing is none.
    """
    when = timing_of(timing._asdict())._asdict()
    work = {"id": check_id(id), "name": name, "payload": payload, "options": options}
    return Question("schedule", {**work, **when}, schedule_info)


def unschedule(id: str) -> Question[None]:
    return Question("unschedule", {"id": id}, _nothing)


def pause_schedule(id: str) -> Question[ScheduleInfo]:
    return Question("pause_schedule", {"id": id}, schedule_info)


def resume_schedule(id: str) -> Question[ScheduleInfo]:
    return Question("resume_schedule", {"id": id}, schedule_info)


# -------------------------------------------------------------------------------------------------- workers


WORKERS: Final[Question[list[WorkerInfo]]] = Question("workers", {}, _workers)


def worker(worker_id: str) -> Question[WorkerInfo]:
    return Question("worker", {"worker": worker_id}, worker_info)


def worker_lives(worker_id: str | None, limit: int) -> Question[list[WorkerLife]]:
    asked = {"limit": limit} if worker_id is None else {"worker": worker_id, "limit": limit}
    return Question("worker_lives", asked, _lives)


def _lives(value: Sequence[Mapping[str, Any]]) -> list[WorkerLife]:
    return [worker_life(each) for each in value]


def start_worker(group: str | None) -> Question[str]:
    return Question("start_worker", _of(group), str)


def _of(group: str | None) -> dict[str, Any]:
    return {} if group is None else {"group": group}


def stop_worker(worker_id: str) -> Question[None]:
    return Question("stop_worker", {"worker": worker_id}, _nothing)


def scale(size: int | str, group: str | None = None) -> Question[int]:
    """``size`` workers, or so many more or fewer: ``"+3"``, ``"-2"``; of the whole pool, or of one group. The new size.

    Raises:
        BadValue: it is neither.
    """
    text = str(size).strip()
    try:
        number = int(text)
    except ValueError:
        raise BadValue(f"scale takes a number of workers, or a change such as '+3', got {size!r}") from None
    relative = isinstance(size, str) and text[:1] in ("+", "-")
    return Question("scale", {"by" if relative else "size": number, **_of(group)}, _size)


def _size(value: Mapping[str, int]) -> int:
    return int(value["size"])


# -------------------------------------------------------------------------------------------------- the daemon


STATUS: Final[Question[dict[str, Any]]] = Question("status", {}, dict)
HEALTH: Final[Question[dict[str, Any]]] = Question("health", {}, dict)
METRICS: Final[Question[dict[str, Any]]] = Question("metrics", {}, dict)
CONFIG: Final[Question[dict[str, Any]]] = Question("config", {}, dict)
COLLECT_GARBAGE: Final[Question[dict[str, Any]]] = Question("collect_garbage", {}, dict)
RELOAD: Final[Question[dict[str, Any]]] = Question("reload", {}, dict)
EVENTS: Final[Question[None]] = Question("events", {}, _nothing)


def stop(now: bool) -> Question[None]:
    return Question("stop", {"now": now}, _nothing)


# -------------------------------------------------------------------------------------------------- its database

DATABASE: Final[Question[dict[str, Any]]] = Question("database", {}, dict)
VACUUM: Final[Question[dict[str, Any]]] = Question("vacuum", {}, dict)


def backup(path: str) -> Question[dict[str, Any]]:
    return Question("backup", {"to": path}, dict)

"""The words that every floor shares, as frozen data: states, options, what is known of a task, an attempt, a worker."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from poolmgr.errors import BadOption
from poolmgr.post_mortem import PostMortem, post_mortem


class TaskState(StrEnum):
    """Where a task stands. The last four are final: a task never leaves them."""

    SCHEDULED = "scheduled"  # waits for its time: a delay, or a retry's back-off
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


FINAL: Final = frozenset({TaskState.COMPLETED, TaskState.DEAD, TaskState.CANCELLED, TaskState.EXPIRED})


class WorkerState(StrEnum):
    """Where a slot's worker stands."""

    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    DRAINING = "draining"  # finishes what it has begun, takes nothing new
    UNHEALTHY = "unhealthy"  # under suspicion, or being killed
    STOPPED = "stopped"  # no process, and none wanted now
    FAILED = "failed"  # died too often before it was of use; tried again every 60 s
    STUCK = "stuck"  # killed, but the kernel does not let it go (D state)


RESERVED: Final = "poolmgr:"  # what the names of built-in tasks begin with

CRITICAL_MOST: Final = 4  # the least urgent priority of that band
LOW_LEAST: Final = 50  # the most urgent of that one
PRIORITY_MOST: Final = 100
PRIORITY_BANDS: Final = (("CRITICAL", 0, 4), ("HIGH", 5, 9), ("NORMAL", 10, 49), ("LOW", 50, 100))


def new_task_id() -> bytes:
    """A task id: 16 bytes, of which the first 6 are the wall time in ms, so that ids sort by age (as UUIDv7 does)."""
    return (time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10)


def last_id_of(wall_s: float) -> bytes:
    """No id that was made up to this wall time (seconds since 1970) is larger."""
    return max(0, int(wall_s * 1000)).to_bytes(8, "big")[-6:] + b"\xff" * 10


class TaskOptions(NamedTuple):
    """How one task is to be run. A lower ``priority`` runs first. Sizes and times carry their unit in the name.

    Attributes:
        priority: 0..100, lower runs first.
        timeout_s: the attempt is killed this long after it has begun; None: never.
        soft_timeout_s: ``SoftTimeout`` is raised in the handler this long after it has begun; None: never.
        max_retries: how often a failed attempt is tried again; 0 means once in all.
        retry_backoff_s, max_backoff_s: the n-th retry waits ``min(retry_backoff_s * 2**(n-1), max_backoff_s)``.
        retry_on: names of the only exceptions that are retried, or None for all.
        no_retry_on: names of exceptions that are never retried; wins over ``retry_on``.
        requires: capabilities that the worker must have.
        affinity: prefers the worker that last ran a task with the same value.
        group: groups of equal priority take turns; None: one group a client connection.
        key: a second submit with this key returns the first task, while that is not final.
        key_window_s: ... or, also after it is final, for so long after its submit; 0: no longer.
        delay_s: runs no sooner than so long after its submit.
        at: runs no sooner than this wall time (seconds since 1970), or None.
        expires_s: is ``expired`` if it was not begun so long after its submit; None: never.
        durable: kept on disk before it is acknowledged, survives the daemon.
        restartable: may be run again after an interruption.
        sheddable: may be expired under memory pressure.
        memory_limit_mb: what its worker may take while it runs; None: the pool's limit.
        ephemeral: runs in a fresh process that ends with it.
        rate_limit: of the name, over all workers, as (starts, seconds), or None.
        max_concurrency, max_queued: so many of the name may run, over all workers, or wait; 0: no limit.
        result_ttl_s: how long a durable result is kept.
    """

    priority: int = 10
    timeout_s: float | None = 300.0
    soft_timeout_s: float | None = None
    max_retries: int = 3
    retry_backoff_s: float = 1.0
    max_backoff_s: float = 30.0
    retry_on: frozenset[str] | None = None
    no_retry_on: frozenset[str] = frozenset()
    requires: frozenset[str] = frozenset()
    affinity: str | None = None
    group: str | None = None
    key: str | None = None
    key_window_s: float = 0.0
    delay_s: float = 0.0
    at: float | None = None
    expires_s: float | None = None
    durable: bool = True
    restartable: bool = True
    sheddable: bool = False
    memory_limit_mb: int | None = None
    ephemeral: bool = False
    rate_limit: tuple[int, float] | None = None
    max_concurrency: int = 0
    max_queued: int = 0
    result_ttl_s: float = 3600.0

    def override(self, changes: Mapping[str, Any]) -> TaskOptions:
        """These options with ``changes`` (as a user or a peer wrote them) on top.

        Raises:
            BadOption: an unknown name, a wrong type or a value out of range; the message says which.
        """
        if not changes:
            return self
        return self._replace(**check_options(changes))


def check_options(changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes`` with every value checked and in the form that ``TaskOptions`` holds it.

    Exceptions may be given as classes or as their qualified names; ``rate_limit`` as ``"20/m"`` (units s, m, h, d) or
    as (starts, seconds); ``key`` as a string, or as (string, window in seconds).

    Raises:
        BadOption: with the option's name and what it takes.
    """
    checked: dict[str, Any] = {}
    for name, value in changes.items():
        check = _CHECKS.get(name)
        if check is None:
            raise BadOption(f"unknown task option {name!r}{_did_you_mean(name)}")
        if name == "key" and isinstance(value, (tuple, list)):
            if len(value) != 2:
                raise BadOption("key takes a string, or a pair (string, window in seconds)")
            value, window_s = value
            checked["key_window_s"] = _seconds("key's window", window_s)
        checked[name] = check(name, value)
    return checked


def to_wire(options: Mapping[str, Any]) -> dict[str, Any]:
    """Checked options in plain values, so that any peer can read them: sets become sorted lists."""
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in options.items()}


def _did_you_mean(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, list(_CHECKS), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; the options are {', '.join(_CHECKS)}"


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadOption(f"{name} takes a number, got {value!r}")
    if not -_LARGEST <= value <= _LARGEST:  # nor is NaN
        raise BadOption(f"{name} takes a number of at most {_LARGEST:,}")
    return float(value)


_LARGEST: Final = 10**15  # as seconds 30 million years; a float tells such numbers apart, and a database takes them


def _seconds(name: str, value: Any) -> float:
    seconds = _number(name, value)
    if seconds < 0:
        raise BadOption(f"{name} takes seconds, at least 0, got {value!r}")
    return seconds


def _limit_seconds(name: str, value: Any) -> float | None:
    """A time limit: None and 0 both mean none."""
    return (_seconds(name, value) or None) if value is not None else None


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
        raise BadOption(f"{name} takes a whole number, at least 0, got {value!r}")
    return value


def _megabytes(name: str, value: Any) -> int | None:
    return (_count(name, value) or None) if value is not None else None


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadOption(f"{name} takes true or false, got {value!r}")
    return value


def _text(name: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise BadOption(f"{name} takes a non-empty string, got {value!r}")
    return value


def _priority(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
        raise BadOption(f"priority takes a whole number from 0 (first) to 100 (last), got {value!r}")
    return value


def _wall_time(name: str, value: Any) -> float | None:
    if value is None:
        return None
    timestamp = getattr(value, "timestamp", None)  # a datetime: naive means local time, as everywhere in Python
    return _number(name, timestamp() if timestamp is not None else value)


def _names(name: str, value: Any) -> frozenset[str]:
    if isinstance(value, str):
        value = (value,)
    names: list[Any] = list(value) if isinstance(value, Iterable) else [None]
    if not all(isinstance(each, str) and each.isprintable() and each for each in names):
        raise BadOption(f"{name} takes a set of strings without control characters, got {value!r}")
    return frozenset(names)


def exception_name(kind: type[BaseException]) -> str:
    """The name by which retry policies know an exception: ``ValueError``, ``myapp.errors.Throttled``."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _exceptions(name: str, value: Any) -> frozenset[str]:
    if value is None:
        return frozenset()
    each_given = value if isinstance(value, Iterable) and not isinstance(value, (str, type)) else (value,)
    return _names(name, [exception_name(each) if isinstance(each, type) else each for each in each_given])


def _exceptions_or_all(name: str, value: Any) -> frozenset[str] | None:
    return None if value is None else _exceptions(name, value)


_RATE_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _rate(name: str, value: Any) -> tuple[int, float] | None:
    if value is None:
        return None
    if isinstance(value, str):
        starts, _, unit = (each.strip() for each in value.partition("/"))
        if starts.isdecimal() and len(starts) < 10 and int(starts) > 0 and unit in _RATE_UNITS:
            return int(starts), _RATE_UNITS[unit]
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        starts_per, seconds = value
        if _count(name, starts_per) > 0 and _number(name, seconds) > 0:
            return starts_per, float(seconds)
    raise BadOption(f"{name} takes a rate such as '20/m' (s, m, h, d) or (starts, seconds), got {value!r}")


_CHECKS: Final = {
    "priority": _priority,
    "timeout_s": _limit_seconds,
    "soft_timeout_s": _limit_seconds,
    "max_retries": _count,
    "retry_backoff_s": _seconds,
    "max_backoff_s": _seconds,
    "retry_on": _exceptions_or_all,
    "no_retry_on": _exceptions,
    "requires": _names,
    "affinity": _text,
    "group": _text,
    "key": _text,
    "key_window_s": _seconds,
    "delay_s": _seconds,
    "at": _wall_time,
    "expires_s": _limit_seconds,
    "durable": _flag,
    "restartable": _flag,
    "sheddable": _flag,
    "memory_limit_mb": _megabytes,
    "ephemeral": _flag,
    "rate_limit": _rate,
    "max_concurrency": _count,
    "max_queued": _count,
    "result_ttl_s": _seconds,
}


# ------------------------------------------------------------------------------------------- what is known of things


class AttemptInfo(NamedTuple):
    """One attempt that has ended badly. Times are wall times in seconds since 1970.

    ``cause`` is a failure code (errors.py): ``task_failed`` for a handler's exception, ``timeout``, ``worker_died`` ...
    ``post_mortem`` is what it left behind, if anything; a task's last 10 attempts keep theirs.
    """

    attempt: int
    worker: str
    started_at: float
    ended_at: float
    cause: str
    type: str = ""
    message: str = ""
    traceback: str = ""
    post_mortem: PostMortem | None = None


class TaskInfo(NamedTuple):
    """What is known of one task. ``id`` is 32 hex digits; times are wall times in seconds since 1970, or None."""

    id: str
    name: str
    state: TaskState
    priority: int = 10
    group: str = ""
    durable: bool = False
    attempt: int = 0
    failures: int = 0
    max_retries: int = 0
    submitted_at: float | None = None
    due_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    assigned_to: str | None = None
    cause: str | None = None
    message: str = ""
    origin: str | None = None  # the dead task that it was requeued from, or "schedule:" and a schedule's id
    requeued_as: str | None = None
    attempts: tuple[AttemptInfo, ...] = ()
    chunks: int = 0  # how many its handler has yielded that readers may see
    resumes_at: int | None = None  # the number of the chunk with which it goes on from its last checkpoint
    waiting_for_reader: bool = False  # it runs, and may yield no more before somebody reads


class WorkerInfo(NamedTuple):
    """A slot, and the process in it, whose are ``uptime_s`` and the rest, but for ``restarts``. ``cpu_percent`` is of
    one core; against ``memory_limit_mb`` (0: none) counts ``memory_used_mb``; ``generation`` is of the code, from 1."""

    id: str
    pid: int | None
    state: WorkerState
    healthy: bool
    incarnation: int = 0
    tasks_executed: int = 0
    current_task: str | None = None
    current_name: str | None = None
    in_flight: int = 0
    capabilities: tuple[str, ...] = ()
    uptime_s: float = 0.0
    last_activity_s: float = 0.0
    cpu_percent: float = 0.0
    memory_mb: float = 0.0
    restarts: int = 0
    generation: int = 0
    group: str = ""
    memory_used_mb: float = 0.0
    memory_limit_mb: int = 0


def as_map(info: AttemptInfo | TaskInfo | WorkerInfo) -> dict[str, Any]:
    """An info as a map of plain values, as JSON and MessagePack carry it."""
    found = info._asdict()
    if isinstance(info, TaskInfo):
        found["attempts"] = [as_map(each) for each in info.attempts]
    elif isinstance(info, AttemptInfo) and info.post_mortem is not None:
        found["post_mortem"] = info.post_mortem._asdict()
    return found


def task_info(found: Mapping[str, Any]) -> TaskInfo:
    """The ``TaskInfo`` of a map that ``as_map`` made, here or on a newer peer: unknown names are left out."""
    known, attempts = _known(TaskInfo, found), tuple(map(_attempt_info, found.get("attempts", ())))
    return TaskInfo(**{**known, "state": TaskState(known["state"]), "attempts": attempts})


def _attempt_info(found: Mapping[str, Any]) -> AttemptInfo:
    return AttemptInfo(**{**_known(AttemptInfo, found), "post_mortem": post_mortem(found.get("post_mortem"))})


def worker_info(found: Mapping[str, Any]) -> WorkerInfo:
    """The ``WorkerInfo`` of a map that ``as_map`` made."""
    known, offers = _known(WorkerInfo, found), tuple(found.get("capabilities", ()))
    return WorkerInfo(**{**known, "state": WorkerState(known["state"]), "capabilities": offers})


def _known(cls: type[AttemptInfo | TaskInfo | WorkerInfo], found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name in cls._fields}


class Event(NamedTuple):
    """Something that happened: ``name`` as DESIGN's list has it, wall time in seconds since 1970, its fields."""

    name: str
    at: float
    fields: dict[str, Any]

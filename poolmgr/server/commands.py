"""Every command that a client may ask for: one table, shared by all ways in.

A command parses, calls one thing, and shapes the answer. What it returns is the answer; a coroutine is awaited;
``LATER`` says that the scheduler will answer by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from poolmgr.server import database_commands as files
from poolmgr.server import dead_letters as letters
from poolmgr.server import pool_commands as pool
from poolmgr.server import room_commands as queue
from poolmgr.server import schedule_commands as periodic
from poolmgr.server import stream_commands as streams
from poolmgr.server import task_commands as tasks
from poolmgr.server.call import Call


@dataclass(frozen=True, slots=True)
class Command:
    """``open_to_group``: members of ``socket_group`` may use it, and not only the owner and root."""

    handler: Callable[[Call], Any | Awaitable[Any]]
    open_to_group: bool = False


COMMANDS: Final[dict[str, Command]] = {
    "status": Command(pool.status, open_to_group=True),
    "metrics": Command(pool.metrics, open_to_group=True),
    "health": Command(pool.health, open_to_group=True),
    "config": Command(pool.config, open_to_group=True),
    "workers": Command(pool.workers, open_to_group=True),
    "worker": Command(pool.worker, open_to_group=True),
    "worker_lives": Command(pool.worker_lives, open_to_group=True),
    "events": Command(pool.events, open_to_group=True),
    "task": Command(tasks.task, open_to_group=True),
    "tasks": Command(tasks.tasks, open_to_group=True),
    "result": Command(tasks.result, open_to_group=True),
    "watch": Command(tasks.watch, open_to_group=True),
    "files": Command(tasks.files, open_to_group=True),
    "room": Command(queue.room, open_to_group=True),
    "leave_room": Command(queue.leave_room, open_to_group=True),
    "chunks": Command(streams.chunks, open_to_group=True),
    "cancel": Command(tasks.cancel),
    "preempt": Command(tasks.preempt),
    "clear": Command(tasks.clear),
    "dead_letters": Command(letters.dead_letters, open_to_group=True),
    "requeue": Command(letters.requeue),
    "purge": Command(letters.purge),
    "schedules": Command(periodic.schedules, open_to_group=True),
    "schedule": Command(periodic.schedule),
    "unschedule": Command(periodic.unschedule),
    "pause_schedule": Command(periodic.pause_schedule),
    "resume_schedule": Command(periodic.resume_schedule),
    "pause": Command(pool.pause),
    "resume": Command(pool.resume),
    "breakers": Command(pool.breakers, open_to_group=True),
    "reset_breaker": Command(pool.reset_breaker),
    "scale": Command(pool.scale),
    "start_worker": Command(pool.start_worker),
    "stop_worker": Command(pool.stop_worker),
    "collect_garbage": Command(pool.collect),
    "reload": Command(pool.reload),
    "stop": Command(pool.stop),
    "database": Command(files.database),
    "backup": Command(files.backup),
    "vacuum": Command(files.vacuum),
}

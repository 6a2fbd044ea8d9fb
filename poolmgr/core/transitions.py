"""The states of tasks and workers, and every step that is legal. An illegal one raises, and has changed nothing.
One step is taken in one where it is two: what a worker has run before we heard that it began (completions.py).

Tasks:

    (submit) --> scheduled <--------------.        A delay, or a retry's back-off.
        |            | its time comes     |
        v            v                    | failed, to be retried
      queued ----> running ---------------'
        |  ^          |  |
        |  '----------'  |  interrupted, and it costs nobody
        v                v
     cancelled, expired, dead, completed            Final: nothing leaves them.

Workers: a slot goes round starting -> ready <-> busy -> (draining | unhealthy) -> starting, with stopped, failed and
stuck as the places where it rests.
"""

from __future__ import annotations

from typing import Final

from poolmgr.core.slot import Slot
from poolmgr.core.task import Task
from poolmgr.model import TaskState, WorkerState

_T = TaskState
_W = WorkerState

TASK_STEPS: Final[dict[TaskState, frozenset[TaskState]]] = {
    _T.SCHEDULED: frozenset({_T.QUEUED, _T.CANCELLED, _T.EXPIRED, _T.DEAD}),
    _T.QUEUED: frozenset({_T.RUNNING, _T.CANCELLED, _T.EXPIRED, _T.DEAD}),
    _T.RUNNING: frozenset({_T.QUEUED, _T.SCHEDULED, _T.COMPLETED, _T.CANCELLED, _T.DEAD}),
    _T.COMPLETED: frozenset(),
    _T.DEAD: frozenset(),
    _T.CANCELLED: frozenset(),
    _T.EXPIRED: frozenset(),
}

WORKER_STEPS: Final[dict[WorkerState, frozenset[WorkerState]]] = {
    _W.STARTING: frozenset({_W.READY, _W.DRAINING, _W.UNHEALTHY, _W.STOPPED, _W.FAILED}),
    _W.READY: frozenset({_W.BUSY, _W.DRAINING, _W.UNHEALTHY, _W.STARTING, _W.STOPPED, _W.FAILED}),
    _W.BUSY: frozenset({_W.READY, _W.DRAINING, _W.UNHEALTHY, _W.STARTING, _W.STOPPED, _W.FAILED}),
    _W.DRAINING: frozenset({_W.UNHEALTHY, _W.STARTING, _W.STOPPED, _W.FAILED}),
    _W.UNHEALTHY: frozenset({_W.READY, _W.BUSY, _W.STARTING, _W.STOPPED, _W.FAILED, _W.STUCK}),
    _W.STOPPED: frozenset({_W.STARTING}),
    _W.FAILED: frozenset({_W.STARTING, _W.STOPPED}),
    _W.STUCK: frozenset({_W.STARTING, _W.STOPPED, _W.FAILED}),
}


class IllegalTransition(Exception):
    """A step that the tables do not have: a fault in the scheduler itself."""


def move_task(task: Task, to: TaskState) -> None:
    """Take one step, or raise ``IllegalTransition``."""
    if to not in TASK_STEPS[task.state]:
        raise IllegalTransition(f"task {task.id.hex()}: {task.state} -> {to}")
    task.state = to


def move_worker(slot: Slot, to: WorkerState) -> None:
    """Take one step, or raise ``IllegalTransition``."""
    if to not in WORKER_STEPS[slot.state]:
        raise IllegalTransition(f"{slot.id}.{slot.incarnation}: {slot.state} -> {to}")
    slot.state = to

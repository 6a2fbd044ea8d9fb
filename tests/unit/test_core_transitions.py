"""The tables of steps: every legal and every illegal one, written down a second time."""

from __future__ import annotations

from itertools import product

import pytest

from poolmgr.core.slot import Slot
from poolmgr.core.task import Task
from poolmgr.core.transitions import TASK_STEPS, WORKER_STEPS, IllegalTransition, move_task, move_worker
from poolmgr.model import FINAL, TaskOptions, TaskState, WorkerState

TASK_LEGAL = {
    "scheduled": "queued cancelled expired dead",
    "queued": "running cancelled expired dead",
    "running": "queued scheduled completed cancelled dead",
    "completed": "",
    "dead": "",
    "cancelled": "",
    "expired": "",
}

WORKER_LEGAL = {
    "starting": "ready draining unhealthy stopped failed",
    "ready": "busy draining unhealthy starting stopped failed",
    "busy": "ready draining unhealthy starting stopped failed",
    "draining": "unhealthy starting stopped failed",
    "unhealthy": "ready busy starting stopped failed stuck",
    "stopped": "starting",
    "failed": "starting stopped",
    "stuck": "starting stopped failed",
}


@pytest.mark.parametrize(("before", "after"), list(product(TaskState, TaskState)))
def test_task_steps(before: TaskState, after: TaskState) -> None:
    task = Task(b"\0" * 16, "work", b"", TaskOptions(), "g", 1, 0, 0.0, 0.0)
    task.state = before
    if after in TASK_LEGAL[before].split():
        move_task(task, after)
        assert task.state is after
    else:
        with pytest.raises(IllegalTransition, match=f"{before} -> {after}"):
            move_task(task, after)
        assert task.state is before


@pytest.mark.parametrize(("before", "after"), list(product(WorkerState, WorkerState)))
def test_worker_steps(before: WorkerState, after: WorkerState) -> None:
    slot = Slot("worker-3")
    slot.state = before
    if after in WORKER_LEGAL[before].split():
        move_worker(slot, after)
        assert slot.state is after
    else:
        with pytest.raises(IllegalTransition, match=f"worker-3.0: {before} -> {after}"):
            move_worker(slot, after)
        assert slot.state is before


def test_every_state_is_in_the_tables() -> None:
    assert set(TASK_STEPS) == set(TaskState)
    assert set(WORKER_STEPS) == set(WorkerState)


def test_nothing_leaves_a_final_state_and_everything_reaches_one() -> None:
    assert all(not TASK_STEPS[state] for state in FINAL)
    reached = set(FINAL)
    for _ in TaskState:
        reached |= {state for state, steps in TASK_STEPS.items() if steps & reached}
    assert reached == set(TaskState)


def test_an_idle_worker_never_needs_more_than_a_start_to_be_ready_again() -> None:
    assert all(WorkerState.STARTING in steps or state is WorkerState.STARTING for state, steps in WORKER_STEPS.items())

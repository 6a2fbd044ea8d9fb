"""What there is to be seen of the scheduler, as frozen infos and plain maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from poolmgr.core.breakers import breaker_alerts, breaker_infos
from poolmgr.core.measurements import percentiles
from poolmgr.core.schedule import origin_text
from poolmgr.core.slot import Slot
from poolmgr.core.state import State
from poolmgr.core.task import Task
from poolmgr.model import PRIORITY_MOST, TaskInfo, TaskState, WorkerInfo, WorkerState

_COUNTED = (
    WorkerState.READY,
    WorkerState.BUSY,
    WorkerState.STARTING,
    WorkerState.DRAINING,
    WorkerState.UNHEALTHY,
    WorkerState.FAILED,
    WorkerState.STOPPED,
)
_HEALTHY = frozenset({WorkerState.READY, WorkerState.BUSY, WorkerState.STARTING, WorkerState.DRAINING})
_OF_USE = frozenset({WorkerState.READY, WorkerState.BUSY})
_NAMES_SHOWN = 5  # in an alert
DEGRADED_BELOW = 0.9  # of the slots ready or busy
CRITICAL_BELOW = 0.5


def task_info(state: State, task: Task) -> TaskInfo:
    """What is known of a live task."""
    offset = state.wall_offset
    running = task.state is TaskState.RUNNING
    past = task.past
    last = past.attempts[-1] if past.attempts else None
    stream = state.streams.get(task.id)
    return TaskInfo(
        id=task.id.hex(),
        name=task.name,
        state=task.state,
        priority=task.options.priority,
        group=task.group,
        durable=task.options.durable,
        attempt=task.attempt,
        failures=past.failures,
        max_retries=task.options.max_retries,
        submitted_at=task.submitted_at,
        due_at=past.due_wall or (task.due_at + offset if task.due_at is not None else None),
        started_at=task.started_at + offset if running else None,
        assigned_to=task.slot,
        cause=last.cause if last is not None else None,
        message=last.message if last is not None else "",
        origin=origin_text(past.origin),
        attempts=past.attempts,
        chunks=stream.committed if stream is not None else 0,
        resumes_at=stream.first if stream is not None and stream.checkpoint is not None else None,
        waiting_for_reader=running and stream is not None and stream.waits_for_reader,
    )


def worker_info(slot: Slot, now: float) -> WorkerInfo:
    """What is known of a slot and the process in it."""
    running = slot.in_flight[0] if slot.in_flight else None
    return WorkerInfo(
        id=slot.id,
        pid=slot.pid,
        state=slot.state,
        healthy=slot.state in _HEALTHY,
        incarnation=slot.incarnation,
        tasks_executed=slot.executed,
        current_task=running.id.hex() if running is not None else None,
        current_name=running.name if running is not None else None,
        in_flight=len(slot.in_flight),
        capabilities=tuple(sorted(slot.capabilities)),
        uptime_s=now - slot.spawned_at if slot.pid is not None else 0.0,
        last_activity_s=now - slot.last_activity if slot.pid is not None else 0.0,
        cpu_percent=round(slot.cpu_percent, 1),
        memory_mb=round(slot.memory_mb, 1),
        restarts=slot.restarts,
        generation=slot.generation,
        group=slot.group.name,
        memory_used_mb=round(slot.memory_used_mb, 1),
        memory_limit_mb=slot.memory_limit_mb,
    )


def health(state: State, now: float, trouble: tuple[str, ...] = ()) -> dict[str, Any]:
    """``status`` is healthy, degraded or critical; ``capacity`` the share of the slots that are ready or busy.

    ``trouble`` is what the shell has to complain of; any of it makes the pool degraded at least.
    """
    slots = list(state.slots.values())
    of_use = sum(slot.state in _OF_USE for slot in slots)
    capacity = of_use / len(slots) if slots else 0.0
    alerts = [*trouble]
    failed = [slot.id for slot in slots if slot.state is WorkerState.FAILED]
    if failed:
        alerts.append(f"failed, tried again every minute: {', '.join(failed)}")
    alerts.extend(_unservable(state))
    alerts.extend(breaker_alerts(state, now))
    alerts.extend(f"schedule {id}: {each.trouble}" for id, each in state.schedules.items() if each.trouble)
    if state.memory.level:
        alerts.append(f"memory pressure is {state.memory.level.word}: {state.memory.why}")
    alerts.extend(f"pid {pid} of {worker} was killed and does not end" for pid, worker in state.stuck_pids.items())
    if capacity < CRITICAL_BELOW:
        status = "critical"
    elif capacity < DEGRADED_BELOW or alerts:
        status = "degraded"
    else:
        status = "healthy"
    return {
        "status": status,
        "capacity": round(capacity, 3),
        "alerts": alerts,
        "workers": {"total": len(slots), "healthy": sum(slot.state in _HEALTHY for slot in slots),
                    "unhealthy": sum(slot.state not in _HEALTHY for slot in slots)},
        "uptime_s": now - state.started_at,
    }  # fmt: skip


def _unservable(state: State) -> Iterator[str]:
    """What waits in vain: no worker is fit for it, nor would be if all were ready."""
    waiting: dict[frozenset[str], dict[str, int]] = {}
    for lane in state.queue.lanes:
        if count := sum(row.waiting + row.shelved for row in lane.rows.values()):
            names = waiting.setdefault(lane.demand.requires, {})
            names[lane.name] = names.get(lane.name, 0) + count
    for requires, names in waiting.items():
        if not any(slot.fits(requires) and not slot.leaving for slot in state.slots.values()):
            wanted = f"has {', '.join(sorted(requires))}" if requires else "takes tasks that require nothing"
            shown = ", ".join(sorted(names)[:_NAMES_SHOWN])
            yield f"{sum(names.values())} tasks wait in vain: no worker {wanted} ({shown})"


def metrics(state: State, now: float, trouble: tuple[str, ...] = ()) -> dict[str, Any]:
    """Everything that is counted: pool, workers, tasks, performance, health, queue. Times in seconds."""
    statistics = state.statistics
    found = health(state, now, trouble)
    del found["workers"], found["uptime_s"]
    return {
        "pool": {
            "size": sum(not slot.leaving for slot in state.slots.values()),
            "min": state.settings.min_workers,
            "max": state.settings.max_workers,
            "uptime_s": now - state.started_at,
            "shutting_down": state.shutting_down,
            "generation": state.generation,
            "app": list(state.settings.app),
        },
        "groups": _groups(state),
        "workers": worker_counts(state),
        "tasks": task_counts(state),
        "performance": {
            "throughput_per_s": round(statistics.throughput_per_s(now), 3),
            "run_s": percentiles(statistics.run_s),
            "wait_s": percentiles(statistics.wait_s),
            "worker_reuse_rate": statistics.reuse_rate(),
        },
        "health": found,
        "memory": _memory(state),
        "queue": _queue(state),
        "breakers": [info._asdict() for info in breaker_infos(state, now)],
        "streams": _streams(state),
    }


def _memory(state: State) -> dict[str, Any]:
    """How short memory is, by what, and from which priority on tasks are held for it."""
    memory, held_from = state.memory, state.queue.held_from
    return {
        "level": memory.level.word,
        "percent": round(memory.percent, 1),
        "stalled_percent": round(memory.stalled, 1),
        "why": memory.why,
        "held_from": held_from if held_from <= PRIORITY_MOST else None,
    }


def _groups(state: State) -> dict[str, dict[str, Any]]:
    """By name: of each group how many workers it is to have, how many are ready or busy, and what they offer."""
    found: dict[str, dict[str, Any]] = {}
    for name, group in state.groups.items():
        slots = [slot for slot in state.slots.values() if slot.group is group and not slot.leaving]
        found[name] = {
            "size": len(slots),
            "of_use": sum(slot.state in _OF_USE for slot in slots),
            "capabilities": sorted({each for slot in slots for each in slot.capabilities} | group.offers),
            "reserved": group.is_reserved,
        }
    return found


def worker_counts(state: State) -> dict[str, Any]:
    """How many workers there are in each state."""
    counts = {str(each): sum(slot.state is each for slot in state.slots.values()) for each in _COUNTED}
    return {
        "total": len(state.slots),
        **counts,
        "stuck": len(state.stuck_pids),
        "spawned": state.statistics.spawned,
        "reuse_rate": state.statistics.reuse_rate(),
    }


def task_counts(state: State) -> dict[str, int]:
    """How many tasks are waiting or running, and how many have ended in each way since the start."""
    statistics = state.statistics
    running = sum(bool(slot.in_flight) for slot in state.slots.values())
    put_away = sum(row.shelf.count for row in state.queue.shelved_rows if row.shelf is not None)
    return {
        "submitted": statistics.submitted,
        "completed": statistics.completed,
        "failed_attempts": statistics.failed_attempts,
        "retried": statistics.retried,
        "queued": len(state.tasks) - state.scheduled - running + put_away,
        "scheduled": state.all_scheduled,
        "running": running,
        "dead": statistics.dead,
        "cancelled": statistics.cancelled,
        "expired": statistics.expired,
        "interrupted": statistics.interrupted,
        "preempted": statistics.preempted,
        "shed": statistics.shed,
    }


def _streams(state: State) -> dict[str, int]:
    """Of the tasks that have not ended: how many have a stream, and of those that run, how many wait for a reader."""
    running = [slot.in_flight[0].id for slot in state.slots.values() if slot.in_flight]
    return {
        "live": len(state.streams),
        "waiting_for_reader": sum(state.streams[id].waits_for_reader for id in running if id in state.streams),
        "readers": sum(len(stream.readers) for stream in state.streams.values()),
        "kept_bytes": sum(stream.bytes for stream in state.streams.values()),
        "held_bytes": state.streams.held,
    }


def _queue(state: State) -> dict[str, Any]:
    waits = state.statistics.wait_s
    return {
        "depth": state.queue.depth,
        "waiting_for_room": state.waiting_for_room,
        "average_wait_s": sum(waits) / len(waits) if waits else 0.0,
        "paused": list(state.paused),
    }

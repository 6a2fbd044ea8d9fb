"""What people read: each answer of the daemon as text. Nothing here asks the daemon."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from poolmgr.cli.tables import cut, duration, entry, printable, short, span, table, visible
from poolmgr.model import AttemptInfo, Event, TaskInfo
from poolmgr.post_mortem import PostMortem
from poolmgr.worker_life import WorkerLife


def status_page(status: Mapping[str, Any]) -> str:
    """The answer to ``status``: the pool in a few lines, then a line for each worker."""
    return f"{metrics_page(status)}\n\n{worker_table(status['worker_list'])}"


def metrics_page(status: Mapping[str, Any]) -> str:
    """The answer to ``metrics``, which is ``status`` without its workers."""
    return "\n".join(_metrics_lines(status))


def _metrics_lines(status: Mapping[str, Any]) -> Iterator[str]:
    pool, workers, tasks = status["pool"], status["workers"], status["tasks"]
    queue, times, health = status["queue"], status["performance"], status["health"]
    yield _headline(status)
    counts = [f"{workers[state]} {state}" for state in _WORKER_STATES if workers[state]]
    yield entry("workers", [f"{workers['total']} of {pool['size']} ({pool['min']} to {pool['max']})", *counts])
    if (scaling := status.get("autoscale")) is not None:
        yield from _scaling_lines(scaling)
    if len(status.get("groups", ())) > 1:
        yield entry("groups", [_group_part(name, group) for name, group in status["groups"].items()])
    yield entry("app", [*(pool["app"] or ["none"]), f"{len(pool['tasks_known'])} handlers"])
    always = ("submitted", "completed", "running", "queued", "dead")
    seldom = ("failed_attempts", "retried", "scheduled", "cancelled", "expired", "interrupted", "preempted", "shed")
    shown = [*always, *(name for name in seldom if tasks[name])]
    yield entry("tasks", [f"{tasks[name]:,} {name.replace('_', ' ')}" for name in shown])
    waiting = [f"{queue['depth']:,} waiting", f"average wait {span(queue['average_wait_s'])}"]
    yield entry("queue", [*waiting, *(f"{name} paused" for name in queue["paused"])])
    if held := [each for each in status.get("breakers", ()) if each["state"] != "closed"]:
        yield entry("breakers", [f"{each['name']} {each['state']}, {each['failures']} failures" for each in held])
    yield entry(
        "speed",
        [f"{times['throughput_per_s']:,.1f} tasks/s", _spans("run", times["run_s"]), _spans("wait", times["wait_s"])],
    )
    memory = status["memory"]
    held = [] if memory["held_from"] is None else [f"priorities from {memory['held_from']} held"]
    yield entry("memory", [f"{memory['percent']:.0f}% in use", f"pressure {memory['level']}", *held])
    yield entry("health", [*_health_parts(health), f"worker reuse {times['worker_reuse_rate']:.4f}"])
    yield entry("limits", _limit_parts(status["memory_limits"]))
    if status["cgroup"]:
        yield entry("cgroups", ["one for each worker"])
    if status["store"]["error"]:
        yield entry("store", [f"refuses: {status['store']['error']}", f"{status['store']['pending']} waiting"])
    yield from _alert_lines(health)


def _scaling_lines(scaling: Mapping[str, Any]) -> Iterator[str]:
    """What the autoscaler did last, and why it does nothing now."""
    yield entry("scaling", scaling["reason"].split(), separator=" ")
    if (last := scaling["last"]) is not None:
        text = f"last, {_age(last['at'])} ago: from {last['before']} to {last['after']} workers: {last['reason']}"
        yield entry("", text.split(), separator=" ")


def _limit_parts(limits: Mapping[str, Any]) -> list[str]:
    """How much a worker may take, and which means are there to see to that."""
    limit_mb = limits["worker_memory_limit_mb"]
    told = {"RLIMIT_DATA": limits["rlimit_data"], "cgroup memory.max": limits["cgroup_memory_max"]}
    means = [name if what == "in force" else f"{name}: {what}" for name, what in told.items()]
    return [f"{limit_mb} MB a worker" if limit_mb else "no limit", f"statm {limits['statm']}", *means]


def _group_part(name: str, group: Mapping[str, Any]) -> str:
    offered = [each for each in group["capabilities"] if each != name]
    notes = [*offered, *(["reserved"] if group["reserved"] else [])]
    counted = f"{name} {group['of_use']} of {group['size']}"
    return f"{counted} ({' '.join(notes)})" if notes else counted


_WORKER_STATES: Final = ("ready", "busy", "starting", "draining", "unhealthy", "failed", "stuck")


def _headline(status: Mapping[str, Any]) -> str:
    state = "shutting down" if status["pool"]["shutting_down"] else f"up {duration(status['pool']['uptime_s'])}"
    known = ", ".join(f"{name} {value}" for name, value in (
        ("pid", status["pid"]), ("epoch", status["epoch"]), ("generation", status["pool"]["generation"]),
    ))  # fmt: skip
    version = f"{status['version']} (compiled)" if status["compiled"] else status["version"]
    return f"poolmgr {version}, {status['mode']}, {known}, {state}"


def _spans(what: str, seconds: Mapping[str, float | None]) -> str:
    return " ".join([what, *(f"{name} {span(seconds[name])}" for name in ("p50", "p95", "p99"))])


def _health_parts(health: Mapping[str, Any]) -> list[str]:
    return [health["status"], f"capacity {health['capacity']:.0%}"]


def _alert_lines(health: Mapping[str, Any]) -> Iterator[str]:
    for alert in health["alerts"]:
        yield entry("alert", alert.split(), separator=" ")


def reload_page(answer: Mapping[str, Any]) -> str:
    """The answer to ``reload``: one line, and one for each thing that deserves attention."""
    took = span(answer["took_s"])
    lines = [f"poolmgr: {answer['workers']} workers, generation {answer['generation']} of the code ({took})"]
    for name, text in _RELOAD_REMARKS.items():
        if found := answer[name]:
            lines.append(printable(f"{text}: {found if isinstance(found, int) else ', '.join(found)}"))
    return "\n".join(lines)


_RELOAD_REMARKS: Final = {
    "draining": "finish with the old code what they have begun",
    "tasks_added": "new tasks",
    "tasks_removed": "removed tasks",
    "tasks_dropped": "waited for a removed task, and are dead letters (unknown_task)",
    "restart_needed": "changed settings that only a restart takes over",
}


def health_page(health: Mapping[str, Any]) -> str:
    """The answer to ``health``: one line, and one for each alert."""
    workers = health["workers"]
    parts = [*_health_parts(health), f"{workers['healthy']} of {workers['total']} workers healthy"]
    return "\n".join([entry("health", [*parts, f"up {duration(health['uptime_s'])}"]), *_alert_lines(health)])


def worker_table(workers: Sequence[Mapping[str, Any]]) -> str:
    """A line for each worker (``WorkerInfo`` as maps), with its group where there are several."""
    head: tuple[str, ...] = ("worker", "pid", "state", "tasks", "running", "up", "cpu", "memory", "restarts")
    rows: list[tuple[str, ...]] = [_worker_row(each) for each in workers]
    if len({each["group"] for each in workers}) > 1:  # in place of restarts: 80 columns have no room for both
        head = (head[0], "group", *head[1:-1])
        rows = [(row[0], cut(each["group"], 8), *row[1:-1]) for row, each in zip(rows, workers, strict=True)]
    return table(head, rows, right="pid tasks up cpu memory restarts", flexible="running")


def _worker_row(worker: Mapping[str, Any]) -> tuple[str, ...]:
    running = worker["current_name"] or ""
    return (
        worker["id"],
        str(worker["pid"] or "-"),
        worker["state"],
        short(worker["tasks_executed"]),
        f"{running} {worker['current_task'][:8]}" if worker["current_task"] else "-",
        duration(worker["uptime_s"]) if worker["pid"] else "-",
        f"{worker['cpu_percent']:.0f}%",
        f"{worker['memory_mb']:.0f}M",
        short(worker["restarts"]),
    )


def life_table(lives: Sequence[WorkerLife]) -> str:
    """A line for each worker process that has ended."""
    head = ("worker", "process", "pid", "ended", "after", "tasks", "memory", "how")
    rows = [
        (
            each.worker, f"{each.epoch}.{each.incarnation}", str(each.pid), _moment(each.ended_at)[5:],
            duration(max(0.0, each.ended_at - each.spawned_at)), short(each.executed), f"{each.peak_memory_mb:.0f}M",
            f"{each.retired}, {each.how}" if each.retired else each.how,
        )
        for each in lives
    ]  # fmt: skip
    return table(head, rows, right="pid tasks memory", flexible="how")


def task_table(tasks: Sequence[TaskInfo]) -> str:
    """A line for each task."""
    head = ("id", "name", "state", "priority", "attempt", "age")
    rows = [
        (each.id, each.name, each.state, str(each.priority), str(each.attempt), _age(each.submitted_at))
        for each in tasks
    ]
    return table(head, rows, right="priority attempt age", flexible="name") if rows else "no tasks"


def dead_table(tasks: Sequence[TaskInfo]) -> str:
    """A line for each dead letter."""
    rows = [
        (each.id, each.name, each.cause or "", f"{'requeued: ' if each.requeued_as else ''}{each.message}")
        for each in tasks
    ]
    return table(("id", "name", "cause", "message"), rows, flexible="message") if rows else "no dead letters"


def task_page(task: TaskInfo) -> str:
    """All that is known of one task, and how each bad attempt ended."""
    known = [
        ("id", task.id),
        ("name", task.name),
        ("state", f"{task.state}{f', assigned to {task.assigned_to}' if task.assigned_to else ''}"),
        ("cause", f"{task.cause}: {task.message}" if task.cause else ""),
        ("options", f"priority {task.priority}, {'durable' if task.durable else 'not durable'}, group {task.group}"),
        ("attempts", f"{task.attempt}, {task.failures} failed, {task.max_retries} retries allowed"),
        ("stream", _stream(task)),
        ("submitted", _moment(task.submitted_at)),
        ("due", _moment(task.due_at)),
        ("started", _moment(task.started_at)),
        ("ended", _moment(task.ended_at)),
        ("origin", task.origin or ""),
        ("requeued", task.requeued_as or ""),
    ]
    lines = [f"{label:<11}{printable(value)}" for label, value in known if value]
    return "\n".join(lines + [part for attempt in task.attempts for part in _attempt_lines(attempt)])


def _stream(task: TaskInfo) -> str:
    found = [f"{task.chunks:,} chunks"] if task.chunks else []
    if task.resumes_at is not None:
        found.append(f"a checkpoint before chunk {task.resumes_at:,}")
    if task.waiting_for_reader:
        found.append(f"waits for a reader (poolmgr chunks {task.id} --follow)")
    return ", ".join(found)


def _attempt_lines(attempt: AttemptInfo) -> Iterator[str]:
    lasted = span(max(0.0, attempt.ended_at - attempt.started_at))
    what = f"{attempt.type}: {attempt.message}" if attempt.type else attempt.message
    yield f"\nattempt {attempt.attempt} on {attempt.worker}, {lasted}: {attempt.cause}: {printable(what)}"
    yield from _indented(attempt.traceback)
    if attempt.post_mortem is not None:
        yield from _post_mortem_lines(attempt.post_mortem)


OUTPUT_LINES: Final = 20  # of an attempt's output; all that is kept is in the JSON


def _post_mortem_lines(found: PostMortem) -> Iterator[str]:
    if found.how or found.peak_memory_mb:
        by = " by the kernel, for want of memory" if found.oom_killed else ""
        yield f"  process: {found.how or 'lives on'}{by}, peak memory {found.peak_memory_mb:,.0f} MB"
    if found.ran_before:
        yield f"  ran before: {', '.join(f'{printable(name)} {id}' for id, name in found.ran_before)}"
    if found.stacks:
        yield "  stacks:"
        yield from _indented(found.stacks)
    if found.output:
        lines = found.output.splitlines()
        before = len(lines) - OUTPUT_LINES
        yield (
            f"  output, the last {OUTPUT_LINES} of {len(lines):,} lines (--json has them all):"
            if before > 0
            else "  output:"
        )
        yield from _indented("\n".join(lines[-OUTPUT_LINES:]))


def _indented(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield f"    {visible(line)}".rstrip()


def event_line(event: Event) -> str:
    """One event: the local time, its name, its fields."""
    clock = time.strftime("%H:%M:%S", time.localtime(event.at)) + f"{event.at % 1:.3f}"[1:]
    known = " ".join(f"{name}={value}" for name, value in event.fields.items())
    return printable(f"{clock} {event.name:<16} {known}")


def _moment(wall_time: float | None) -> str:
    if wall_time is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall_time))


def _age(wall_time: float | None) -> str:
    return "-" if wall_time is None else duration(max(0.0, time.time() - wall_time))

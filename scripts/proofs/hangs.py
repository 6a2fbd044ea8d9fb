"""A worker that is silent is looked at before it is shot: only those that hang are replaced, and their stacks are kept.

Four workers at once, none of which lets its heart beat: one computes in native code with the GIL held for twice the
time after which it is suspected; one is stopped, and when it has been continued stopped again; one waits in native code
for a lock that it has itself. Then the daemon is stopped for a while, with tasks that end meanwhile. At full size the
settings are the default ones, and the GIL is held for 60 s.
"""

from __future__ import annotations

import os
import select
import signal
import tempfile
from pathlib import Path
from typing import Any

from poolmgr import Client, TaskFailed, TaskFuture
from poolmgr.manager import procfs
from poolmgr.model import AttemptInfo
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

GIL_S = 60.0
BLOCKED_S = 10.0
PATIENCE_S = 300.0


def prove(scale: float) -> Report:
    """At scale 1 with ``zombie_after_s`` 30, below with 1."""
    report = Report("hangs")
    small = scale < 1
    settings: dict[str, Any] = {"zombie_after_s": 1, "heartbeat_interval_s": 0.2} if small else {}
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
        pool = Pool(Path(directory), workers=4, task_timeout_s=PATIENCE_S, breaker_failures=0, **settings)
        with pool, pool.client() as client:
            _watch_workers(client, 1.6 if small else GIL_S, report)
            _block_the_manager(client, pool, 2.5 if small else BLOCKED_S, report)
    return report


def _watch_workers(client: Client, gil_s: float, report: Report) -> None:
    tasks = client.using(max_retries=0, timeout_s=PATIENCE_S)
    computing = tasks.submit("hold_the_gil", gil_s)
    deadlocked = tasks.submit("deadlock")
    resting = tasks.submit("rest", PATIENCE_S)
    pid = _process_of(client, resting)
    computes_in = _process_of(client, computing)
    continued = _stop(pid)
    os.kill(pid, signal.SIGSTOP)
    attempt = _failed(client, resting)
    report.figure("continued when it was stopped", int(continued), at_least=1)
    report.figure("replaced when it was stopped again", int(attempt.cause == "worker_died"), at_least=1)
    report.figure("  with its stack", int(_has_stack(attempt, "rest")), at_least=1)
    attempt = _failed(client, deadlocked)
    report.figure("replaced when it was deadlocked", int(attempt.cause == "worker_died"), at_least=1)
    report.figure("  with its stack", int(_has_stack(attempt, "deadlock")), at_least=1)
    report.figure("GIL held in native code", computing.result(timeout=PATIENCE_S), "s of CPU", at_least=gil_s)
    same = any(worker.pid == computes_in for worker in client.workers())
    report.figure("replaced for that", int(not same), at_most=0)


def _process_of(client: Client, future: TaskFuture[object]) -> int:
    """The process that runs the task."""
    return until(lambda: next((each.pid or 0 for each in client.workers() if each.current_task == future.id), 0))


def _stop(pid: int) -> bool:
    """Stop a process, and see it continued."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: "T" in procfs.states(pid), "it is stopped")
    return until(lambda: "T" not in procfs.states(pid), "it is continued", PATIENCE_S)


def _failed(client: Client, future: TaskFuture[object]) -> AttemptInfo:
    """The one attempt of a task that fails."""
    try:
        future.result(timeout=PATIENCE_S)
    except TaskFailed:
        return client.task(future.id).attempts[0]
    raise AssertionError(f"task {future.id} did not fail")


def _has_stack(attempt: AttemptInfo, function: str) -> bool:
    return attempt.post_mortem is not None and f" in {function}\n" in attempt.post_mortem.stacks


def _block_the_manager(client: Client, pool: Pool, blocked_s: float, report: Report) -> None:
    """Tasks that end while it is blocked, and whose time-outs it could only see afterwards."""
    until(lambda: [worker.state for worker in client.workers()] == ["ready"] * 4, "all are ready")
    before = {worker.id: worker.pid for worker in client.workers()}
    tasks = client.using(max_retries=0, timeout_s=0.9 * blocked_s)
    futures = [tasks.submit("rest", share * blocked_s) for share in (0.2, 0.4, 0.6)]
    for future in futures:
        _process_of(client, future)
    pool.signal(signal.SIGSTOP)
    select.select([], [], [], blocked_s)
    pool.signal(signal.SIGCONT)
    ended = [_result(future) for future in futures]
    select.select([], [], [], 2.5)  # within which it would judge
    after = {worker.id: worker.pid for worker in client.workers()}
    report.figure("seconds that the manager was blocked", blocked_s, "s")
    report.figure("tasks that ended meanwhile, and completed", sum(pid > 0 for pid in ended), at_least=len(futures))
    report.figure("workers that it killed for it", sum(before[each] != after[each] for each in before), at_most=0)


def _result(future: TaskFuture[int]) -> int:
    try:
        return future.result(timeout=PATIENCE_S)
    except TaskFailed:
        return 0

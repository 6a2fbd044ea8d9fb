"""A time-out is kept to within a quarter of a second, whatever the task does and however busy the machine is.

200 tasks with ``timeout_s=1``, half of which sleep in Python and half in native code with the GIL held, on 20 workers;
beside them two processes that compute without end. By how much each was too late is told by its own attempt.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poolmgr import Client, TaskFuture
from poolmgr.errors import TaskTimeout
from scripts.proofs.pool import Pool
from scripts.proofs.report import Report

TASKS = 200
TIMEOUT_S = 1.0
BUSY_LOOPS = 2


def prove(scale: float) -> Report:
    """Let ``scale`` times 200 tasks run into their time-outs."""
    report = Report("time-outs")
    tasks = max(20, round(TASKS * scale))
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
        pool = Pool(Path(directory), breaker_failures=0)  # all tasks of two names are to time out
        with pool, pool.client() as client, _busy_loops(BUSY_LOOPS):
            limited = client.using(timeout_s=TIMEOUT_S, max_retries=0)
            names = ("rest", "rest_natively")
            futures = [limited.submit(names[number % 2], 1000) for number in range(tasks)]
            ended = sum(map(_timed_out, futures))
            late_s = sorted(_overshoot_s(client, future) for future in futures)
    report.figure("tasks", tasks)
    report.figure("that timed out", ended, at_least=tasks)
    report.figure("too early", sum(each < 0 for each in late_s), at_most=0)
    report.figure("too late, median", 1000 * statistics.median(late_s), "ms")
    report.figure("too late, p99", 1000 * late_s[int(0.99 * (tasks - 1))], "ms", at_most=250)
    report.figure("too late, the worst", 1000 * late_s[-1], "ms")
    return report


@contextmanager
def _busy_loops(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _timed_out(future: TaskFuture[object]) -> bool:
    try:
        future.result(timeout=60)
    except TaskTimeout:
        return True
    return False


def _overshoot_s(client: Client, future: TaskFuture[object]) -> float:
    [attempt] = client.task(future.id).attempts
    return attempt.ended_at - attempt.started_at - TIMEOUT_S

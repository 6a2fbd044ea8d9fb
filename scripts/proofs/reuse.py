"""Workers are processes that stay: 50,000 tasks run in the same 20.

The reuse rate is the share of the tasks that found a process which had run a task before.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from scripts.proofs.pool import Pool
from scripts.proofs.report import Report

TASKS = 50_000
WORKERS = 20
PROMISED = 0.999


def prove(scale: float) -> Report:
    """Run ``scale`` times 50,000 tasks, at least so many that the promised rate can be reached."""
    report = Report("reuse")
    tasks = max(round(TASKS * scale), round(WORKERS / (1 - PROMISED)))
    with (
        tempfile.TemporaryDirectory(prefix="poolmgr-") as directory,
        Pool(Path(directory), workers=WORKERS) as pool,
        pool.client() as client,
    ):
        alive = {worker.pid for worker in client.workers()}
        ran = list(client.map("ran_in", range(tasks)))
        after = client.workers()
        metrics = client.metrics()
    right = sum(number == expected for (_, number), expected in zip(ran, range(tasks), strict=True))
    report.figure("tasks", len(ran), at_least=tasks)
    report.figure("right results, in their order", right, at_least=tasks)
    report.figure("processes that ran them", len({pid for pid, _ in ran}), at_most=WORKERS)
    report.figure("of which were there from the start", len({pid for pid, _ in ran} & alive))
    report.figure("workers still alive", len({worker.pid for worker in after} & alive), at_least=WORKERS)
    report.figure("reuse rate", metrics["performance"]["worker_reuse_rate"], at_least=PROMISED)
    return report

"""Ephemeral tasks have a fresh process each, which ends with them, and leaves no zombie."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from poolmgr.manager import procfs
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

TASKS = 1000
WORKERS = 20
PROMISED_PER_S = 300


def prove(scale: float) -> Report:
    """Run ``scale`` times 1,000 ephemeral tasks."""
    report = Report("ephemeral")
    tasks = max(50, round(TASKS * scale))
    with (
        tempfile.TemporaryDirectory(prefix="poolmgr-") as directory,
        Pool(Path(directory), workers=WORKERS) as pool,
        pool.client() as client,
    ):
        began = time.monotonic()
        ran = list(client.using(ephemeral=True).map("ran_in", range(tasks)))
        took_s = time.monotonic() - began
        until(lambda: all(worker.state == "ready" for worker in client.workers()), "the last have been replaced")
        children = pool.children()
        zombies = [pid for pid in children if procfs.states(pid) in ("", "Z")]
        failed = client.metrics()["tasks"]["failed_attempts"]
    pids = {pid for pid, _ in ran}
    report.figure("tasks", len(ran), at_least=tasks)
    report.figure("distinct processes", len(pids), at_least=tasks)
    report.figure("failed attempts", failed, at_most=0)
    report.figure("zombies", len(zombies), at_most=0)
    report.figure("children of the daemon afterwards", len(children), at_most=WORKERS + 1)
    report.figure("tasks per second", tasks / took_s, "/s", at_least=PROMISED_PER_S)
    return report

"""A pool that does nothing: how soon it is there, how much it takes, and how fast it says so.

Everything is measured from outside, as a user types it: whole commands, the interpreter's own start included.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.family import pss_mb
from scripts.proofs.pool import HERE, Pool
from scripts.proofs.report import Report

WORKERS = 20
ROUNDS = 9


def prove(scale: float) -> Report:
    """``idle``: 20 workers ready within 0.5 s of typing, status within 0.15 s, 80 MB in all."""
    report = Report("idle")
    rounds = max(1, int(ROUNDS * scale))
    report.note(f"median of {rounds} rounds of `poolmgr start`, `status` and `stop`, {WORKERS} workers")
    starts, answers, sizes = [], [], []
    with tempfile.TemporaryDirectory(prefix="pm-") as directory:
        pool = Pool(Path(directory), workers=WORKERS)
        _command(pool, "--version")  # whatever is still to be compiled
        for _ in range(rounds):
            starts.append(_command(pool, "start", "--app", "chores"))
            answers.append(statistics.median(_command(pool, "status") for _ in range(3)))
            sizes.append(pss_mb(set(pool.processes()) - {os.getpid()}))
            _command(pool, "stop")
    promised = scale >= 1  # a scaled run is one of the tests, and a test has no timing of its own
    report.figure(
        "typing `poolmgr start` to 20 ready workers", statistics.median(starts), "s", at_most=_if(promised, 0.5)
    )
    report.figure("poolmgr status", statistics.median(answers), "s", at_most=_if(promised, 0.150))
    report.figure("daemon, template and workers", statistics.median(sizes), "MB of PSS", at_most=80)
    return report


def _if(promised: bool, limit: float) -> float:
    return limit if promised else 60.0


def _command(pool: Pool, *arguments: str) -> float:
    """How long the command took, in seconds."""
    command = [str(Path(sys.executable).with_name("poolmgr")), *arguments]
    began = time.perf_counter()
    subprocess.run(command, cwd=HERE, env=pool.environ, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began

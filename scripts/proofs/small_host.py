"""Two workers of 400 MB and a queue of five fit into a gigabyte: the settings of examples/small-host, under load.

The example's own script measures: what the daemon, the template and the workers have of the machine's memory, all
together, while two agents run that use what they may, and the queue is full of large prompts; with agents of the usual
size; with some that work in chunks; and where one of two has given way, as memory was short. Every run must end well.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from scripts.proofs.report import Report

EXAMPLE: Final = Path(__file__).resolve().parents[2] / "examples" / "small-host"
LOADS: Final = ("pooled", "normal", "chunked", "shedding")


def prove(scale: float) -> Report:
    """``small-host``: the peaks are as promised. ``scale`` below 1: the normal load alone."""
    report = Report("small-host")
    for load in LOADS if scale >= 1 else ("normal",):
        command = [sys.executable, str(EXAMPLE / "measure.py"), load, "--json"]
        done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False)
        if done.returncode:
            report.note(done.stderr)
            report.skip(f"{load}: it was not measured")
            continue
        found = json.loads(done.stdout)
        report.figure(f"{load}: idle", found["idle_mb"], "MB")
        report.figure(f"{load}: the daemon, at most", found["daemon_mb"], "MB")
        report.figure(f"{load}: a worker, at most", found["worker_mb"], "MB", at_most=400)
        report.figure(f"{load}: all together, at most", found["peak_mb"], "MB", at_most=found["promised_mb"])
        report.figure(f"{load}: waited at a time", found["waited"], at_most=5)
        report.figure(f"{load}: runs that ended well", found["runs"], at_least=found["asked"])
    return report

"""A long task that reads many real files gives way to urgent work, and comes to the right answer all the same.

It runs examples/agent.py, as a user does, and reads what that prints.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from scripts.proofs.report import Report

EXAMPLE: Final = Path(__file__).resolve().parents[2] / "examples" / "agent.py"
MODULES: Final = 700  # about as many as there are


def prove(scale: float) -> Report:
    """``agent``: it reads ``scale`` times the whole of Python's standard library."""
    report = Report("agent")
    command = [sys.executable, str(EXAMPLE), *(["--modules", str(round(MODULES * scale))] if scale < 1 else [])]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    report.figure("exit code", done.returncode, at_least=0, at_most=0)
    if done.returncode:
        report.note(done.stderr)
    modules, size_mb, steps = _numbers(r"is to read ([\d,]+) modules, ([\d.]+) MB, in (\d+) steps", done.stdout)
    report.figure("modules that it read", int(modules), at_least=0.7 * MODULES * scale)
    report.figure("  of them all", size_mb, "MB")
    report.figure("  in steps, each with a checkpoint", int(steps), at_least=1)
    answers = [float(each) for each in re.findall(r"asked (\d+) ms ago", done.stdout)]
    report.figure("urgent questions that were answered meanwhile", len(answers), at_least=3)
    report.figure("  the slowest answer", max(answers, default=0.0), "ms")
    [preempted] = _numbers(r"preempted: (\d+) times", done.stdout)
    report.figure("times that it was preempted", int(preempted), at_least=1)
    report.figure("each module read once, in order", "in order: True" in done.stdout, at_least=True)
    report.figure("the same answer as without a pool", "in one go: True" in done.stdout, at_least=True)
    return report


def _numbers(pattern: str, text: str) -> list[float]:
    found = re.search(pattern, text)
    return [float(each.replace(",", "")) for each in found.groups()] if found else [0.0] * re.compile(pattern).groups

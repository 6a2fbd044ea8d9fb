"""Where the kernel can limit memory, it kills what no process's size shows; the right attempt pays, and no other.

It needs a command that boots a throw-away system, with systemd as its first process and cgroup v2 with the memory
controller, and runs a command in it as root, in this directory and with this standard output (a virtual machine will
do): $KERNEL_SANDBOX, else ``systemd-sandbox-uml`` on the PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile

from scripts.proofs.pool import HERE
from scripts.proofs.report import Report

ROUNDS = 3


def sandbox() -> str | None:
    """The command that runs another one on a kernel of its own; None where there is none."""
    return shutil.which(os.environ.get("KERNEL_SANDBOX") or "systemd-sandbox-uml")


def prove(scale: float) -> Report:
    """A service, in which ``scale`` times 3 tasks of each kind are killed."""
    report = Report("memory-kernel")
    command = sandbox()
    if command is None:
        report.skip("everything: no systemd-sandbox-uml is on the PATH, and $KERNEL_SANDBOX names none")
        return report
    inside = [sys.executable, "-P", "-m", "scripts.proofs.under_kernel", str(max(1, round(ROUNDS * scale)))]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("POOLMGR_")}
    environ["PYTHONPATH"] = str(HERE.parents[1])
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
        process = subprocess.Popen([command, *inside], stdout=subprocess.PIPE, text=True, cwd=directory, env=environ)
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("["):  # errors may come the same way
                    label, value, unit, limits = json.loads(line)
                    report.figure(label, value, unit, **limits)
                else:
                    report.note(line.rstrip())
    report.figure("exit code of the sandbox", process.returncode, at_least=0, at_most=0)
    return report

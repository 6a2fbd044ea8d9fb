"""The systemd units do what they say, in a real systemd: start, status, reload, watchdog, restart, activation, drain.

It needs a command that boots a throw-away system with systemd as its first process, and runs a command in it as root,
in this directory and with this standard output (a container or a virtual machine will do):
$SYSTEMD_SANDBOX, else ``systemd-sandbox`` on the PATH. Nothing of this machine's own systemd is touched.
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
    """The command that runs another one under a systemd of its own; None where there is none."""
    return shutil.which(os.environ.get("SYSTEMD_SANDBOX") or "systemd-sandbox")


def prove(scale: float) -> Report:
    """Go through the life of the service; it is hit ``scale`` times 3 times in each way."""
    report = Report("systemd")
    command = sandbox()
    if command is None:
        report.skip("everything: no systemd-sandbox is on the PATH, and $SYSTEMD_SANDBOX names none")
        return report
    inside = [sys.executable, "-P", "-m", "scripts.proofs.under_systemd", str(max(1, round(ROUNDS * scale)))]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("POOLMGR_")}
    environ["PYTHONPATH"] = str(HERE.parents[1])
    # What is written to this directory is really written; elsewhere, the sandbox is to forget it.
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
        process = subprocess.Popen([command, *inside], stdout=subprocess.PIPE, text=True, cwd=directory, env=environ)
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                label, value, unit, limits = json.loads(line)
                report.figure(label, value, unit, **limits)
    report.figure("exit code of the sandbox", process.returncode, at_least=0, at_most=0)
    return report

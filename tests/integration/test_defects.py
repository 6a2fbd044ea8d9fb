"""A defect in poolmgr itself ends the daemon, loudly. It does not go on with half of its mind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

# The daemon, in the foreground, with a scheduler that fails in the turn in which `broken` comes true.
PROGRAM = """
import sys
from poolmgr.cli.root import run
from poolmgr.core.scheduler import Scheduler

flush = Scheduler.flush

def failing(self, now):
    slots = self.state.slots.values()
    if {broken}:
        raise AttributeError("a defect, for this test")
    return flush(self, now)

Scheduler.flush = failing
sys.exit(run(["start", "--foreground", "--json", "--workers", "2"]))
"""


@pytest.mark.parametrize(
    "broken",
    ["slots", "any(slot.ready_at for slot in slots)", "self.state.shutting_down"],
    ids=["start", "ready", "stop"],
)
def test_a_defect_ends_the_daemon_and_its_workers(short_path: Callable[[], Path], broken: str) -> None:
    directory = short_path()
    environ = {**os.environ, "POOLMGR_SOCKET": f"{directory}/p.sock", "POOLMGR_STATE_DIR": f"{directory}/state"}
    program = PROGRAM.format(broken=broken)
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as daemon:
        try:
            assert daemon.stdout is not None
            if daemon.stdout.readline():  # it got ready, so it is to fail when it stops
                daemon.terminate()
            _, log = daemon.communicate(timeout=30)
        finally:
            daemon.kill()
    assert daemon.returncode == 70
    assert "AttributeError: a defect, for this test" in log
    assert "acknowledged work is on disk" in log
    _, alive = psutil.wait_procs(_started_in(directory), timeout=10)
    assert not alive


def _started_in(directory: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("POOLMGR_STATE_DIR") == f"{directory}/state":
                found.append(process)
        except psutil.Error:
            pass  # it has ended, or is somebody else's
    return found

"""poolmgr worker show: what became of worker processes, also of those of an earlier daemon."""

from __future__ import annotations

import os
import signal
import time

from tests.acceptance.shell import Shell


def test_each_end_is_kept_over_a_restart(shell: Shell) -> None:
    shell.start()
    assert shell.ask("worker", "show") == []
    shell.run("submit", "add", "1", "2", "--wait")
    killed = shell.ask("workers")[1]
    os.kill(killed["pid"], signal.SIGKILL)
    while not (lives := shell.ask("worker", "show", killed["id"])):
        pass  # each question takes a shell 0.1 s
    (life,) = lives
    assert (life["worker"], life["incarnation"], life["pid"], life["epoch"]) == (killed["id"], 1, killed["pid"], 1)
    assert "SIGKILL" in life["how"]
    assert life["peak_memory_mb"] > 5
    assert life["spawned_at"] <= life["ended_at"] <= time.time()

    shell.run("stop")
    shell.start()
    lives = shell.ask("worker", "show")
    assert {each["epoch"] for each in lives} == {1}
    assert {each["worker"] for each in lives} == {"worker-0", "worker-1", "worker-2"}
    assert sum(each["executed"] for each in lives) == 1
    assert shell.ask("worker", "show", "--limit", "2") == lives[:2]
    page = shell.run("worker", "show", killed["id"]).splitlines()
    assert page[0].split() == ["worker", "process", "pid", "ended", "after", "tasks", "memory", "how"]
    assert page[-1].split()[:3] == [killed["id"], "1.1", str(killed["pid"])]
    assert max(map(len, page)) <= 80

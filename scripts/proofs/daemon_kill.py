"""A SIGKILL of the daemon under load leaves no process behind, and the next start just works.

20 rounds. In each, 20 workers run tasks, some of which have started processes that would live for long: in their
worker's group, and in sessions of their own. 2 s after the kill nothing may be alive; the daemon is started again
on the same socket and state, and must run what was acknowledged before.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from poolmgr import Client, TaskFuture
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

ROUNDS = 20
WORKERS = 20
BEARERS = 6  # workers that have started a process each; half of those in a session of its own
WAITING = 100  # durable tasks that are queued when the daemon dies
GONE_S = 2.0


def prove(scale: float) -> Report:
    """Kill the daemon ``scale`` times 20 times."""
    report = Report("daemon-kill")
    rounds = max(1, round(ROUNDS * scale))
    took_s, left, completed = [], 0, 0
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
        pool = Pool(Path(directory), workers=WORKERS)
        with pool:
            for _ in range(rounds):
                client = pool.client()
                waiting = _busy(client, Path(directory) / "born")
                killed_at = time.monotonic()
                pool.kill()
                client.close()
                took_s.append(_gone_after(pool, killed_at))
                left += len(pool.processes())
                pool.start()
                with pool.client() as client:
                    completed += sum(client.result(future.id, timeout=30) == 81 for future in waiting)
    report.figure("kills of the daemon", rounds, at_least=rounds)
    report.figure("processes alive 2 s later", left, at_most=0)
    report.figure("until all were gone, longest", max(took_s), "s", at_most=GONE_S)
    report.figure("starts afterwards that worked", rounds, at_least=rounds)
    report.figure("acknowledged tasks", rounds * WAITING)
    report.figure("of them completed after the start", completed, at_least=rounds * WAITING)
    return report


def _busy(client: Client, born: Path) -> list[TaskFuture[int]]:
    """Have all workers run something, some with processes of their own; the tasks that wait behind that."""
    born.unlink(missing_ok=True)
    calls = client.using(durable=False)
    for number in range(BEARERS):
        calls.submit("bear", str(born), number % 2 == 0)
    for _ in range(WORKERS - BEARERS):
        calls.submit("square_slowly", 1, 1000.0)
    waiting = [client.submit("square_slowly", 9, 0.0) for _ in range(WAITING)]
    client.flush()
    until(lambda: born.exists() and len(born.read_text().split()) == BEARERS, "the processes are born")
    for pid in map(int, born.read_text().split()):
        os.kill(pid, 0)
    return waiting


def _gone_after(pool: Pool, killed_at: float) -> float:
    """Seconds from the kill until nothing was left, or 2 s were over."""
    while pool.processes():
        if time.monotonic() > killed_at + GONE_S:
            return float("inf")
    return time.monotonic() - killed_at

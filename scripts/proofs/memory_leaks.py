"""Handlers that leak: workers are replaced before they are over their limit, no task pays, and nothing slows down.

First one worker alone is fed with tasks that leak, until it has to go: that is one recycling, and nothing else happens.
Then, for half an hour, one task in five leaks. The daemon and all workers are measured from outside all the time.
"""

from __future__ import annotations

import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any, Final

from poolmgr import Client, TaskFailed
from poolmgr.manager import procfs
from poolmgr.worker.warden import WORKER, started_with
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report
from scripts.proofs.samples import resident_mb

SOAK_S: Final = 1800.0
LIMIT_MB: Final = 128
WORKERS: Final = 4
LEAK_MB: Final = 2.0
ONE_IN: Final = 5
TASK_S: Final = 0.02
EVERY_S: Final = 0.25
DAEMON_MB: Final = 100.0
SLACK: Final = 1.1  # what a worker has besides: a part of the template, and what its last task took


def prove(scale: float) -> Report:
    """The second part takes ``scale`` times half an hour."""
    report = Report("memory-leaks")
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
        # In turns, so that those that do not leak have something to do while one does.
        settings: dict[str, Any] = {"worker_memory_limit_mb": LIMIT_MB, "load_balancing": "round-robin"}
        pool = Pool(Path(directory), app="hogs", workers=WORKERS, **settings)
        with pool, pool.client() as client:
            _one_leaks(client, report)
            with _Watch(pool) as watch:
                failed, speeds = _soak(pool, SOAK_S * scale)
            recycled = client.metrics()["workers"]["spawned"] - WORKERS - 1
    tenth = max(1, len(speeds) // 10)
    first, last = (sum(part) / tenth for part in (speeds[1 : tenth + 1], speeds[-tenth:]))
    report.figure("soaked", SOAK_S * scale, "s")
    report.figure("workers recycled", recycled, at_least=1)
    report.figure("tasks", sum(speeds), at_least=100)
    report.figure("  that failed", failed, at_most=0)
    report.figure("a worker at most", watch.worker_mb, "MB of PSS", at_most=SLACK * LIMIT_MB)
    report.figure("the daemon at most", watch.daemon_mb, "MB", at_most=DAEMON_MB)
    report.figure("throughput in the first tenth", first, "tasks/s")
    report.figure("throughput at the end, of that", last / first, at_least=0.95)
    return report


def _one_leaks(client: Client, report: Report) -> None:
    """All on one worker, as long as that lives; the others have something to do, too."""
    line = client.using(affinity="leaky", max_retries=0)
    before = {each.id: each.incarnation for each in client.workers()}
    leaked_mb = 0.0
    while client.metrics()["workers"]["spawned"] == WORKERS and leaked_mb < 4 * LIMIT_MB:
        line.run("leak", LEAK_MB)
        leaked_mb += LEAK_MB
        client.run("square", 2, 0.01)
    for _ in range(WORKERS):
        line.run("leak", LEAK_MB)
    until(lambda: all(each.state == "ready" for each in client.workers()), "all are ready")
    after = {each.id: each.incarnation for each in client.workers()}
    report.figure("leaked by one worker, when it was recycled", leaked_mb, "MB", at_most=LIMIT_MB)
    report.figure("workers recycled for it", sum(after[each] - before[each] for each in before), at_least=1, at_most=1)


def _soak(pool: Pool, lasting_s: float) -> tuple[int, list[int]]:
    """How many tasks failed; and how many were done in each second."""
    failed = 0
    speeds: list[int] = []
    until_at = time.monotonic() + lasting_s
    with pool.client() as client:
        numbers = count()
        while time.monotonic() < until_at:
            second_at, done = time.monotonic() + 1.0, 0
            while time.monotonic() < second_at:
                batch = [next(numbers) for _ in range(2 * WORKERS)]
                futures = [
                    client.using(max_retries=0).submit("leak", LEAK_MB)
                    if number % ONE_IN == 0
                    else client.using(max_retries=0).submit("square", number, TASK_S)
                    for number in batch
                ]
                for future in futures:
                    try:
                        future.result(timeout=60)
                    except TaskFailed:
                        failed += 1
                    done += 1
            speeds.append(done)
    return failed, speeds


class _Watch:
    """Measures from outside, from a thread."""

    def __init__(self, pool: Pool) -> None:
        self.worker_mb = 0.0
        self.daemon_mb = 0.0
        self._pool = pool
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            self.daemon_mb = max(self.daemon_mb, resident_mb(self._pool.pid))
            workers = [pid for pid in self._pool.children() if started_with(pid, WORKER).startswith("worker-")]
            self.worker_mb = max(self.worker_mb, *(procfs.share_mb(pid) or 0.0 for pid in workers), 0.0)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

"""A task that always dies of memory is given up after exactly its allowed crashes, and the others hardly notice.

20 workers run tasks of 20 ms, as many as they can take. Half of the time, in turns, a task runs beside them that takes
all the memory that there is, and another as soon as it is dead. No worker is replaced but those that it has killed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from poolmgr import Client
from poolmgr.errors import OutOfMemory
from scripts.proofs.memory import Load
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

TURNS = 10
TURN_S = 2.0
WORKERS = 20
POISON_AFTER = 3
FEW_RETRIES = 1
LIMIT_MB = 64


def prove(scale: float) -> Report:
    """``scale`` times 10 turns of 2 s without and with such tasks."""
    report = Report("memory-deaths")
    turns = max(2, round(TURNS * scale))
    crashes: dict[int, list[int]] = {POISON_AFTER: [], FEW_RETRIES + 1: []}
    speeds: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
        pool = Pool(
            Path(directory), app="hogs", workers=WORKERS, poison_after=POISON_AFTER, worker_memory_limit_mb=LIMIT_MB,
            breaker_failures=0,
        )  # fmt: skip
        with pool, pool.client() as client, Load(pool) as load:
            until(lambda: load.done > 5 * WORKERS, "the load runs")
            for _ in range(turns):
                for beside in (False, True):
                    began, done = time.monotonic(), load.done
                    while time.monotonic() - began < TURN_S:
                        if beside:
                            for allowed, seen in crashes.items():
                                seen.append(_die_of_it(client, 10 if allowed == POISON_AFTER else FEW_RETRIES))
                        else:
                            time.sleep(0.05)
                    speeds[beside].append((load.done - done) / (time.monotonic() - began))
            until(lambda: all(worker.state in ("ready", "busy") for worker in client.workers()), "no slot has failed")
            spawned = client.metrics()["workers"]["spawned"] - WORKERS
    _judge(report, crashes, spawned)
    without, beside_it = (statistics.median(speeds[each]) for each in (False, True))
    report.figure("other tasks per second, without", without)
    report.figure("other tasks per second, beside it", beside_it)
    report.figure("share of the throughput that is left", beside_it / without, at_least=0.8)
    report.figure("other tasks with a wrong end", load.wrong, at_most=0)
    return report


def _judge(report: Report, crashes: dict[int, list[int]], spawned: int) -> None:
    for allowed, seen in crashes.items():
        what = "workers" if allowed == POISON_AFTER else "attempts"
        report.figure(f"tasks that may have {allowed} {what}", len(seen), at_least=1)
        report.figure("  had, the fewest", min(seen), at_least=allowed)
        report.figure("  had, the most", max(seen), at_most=allowed)
    killed = sum(map(sum, crashes.values()))
    report.figure("workers that they have killed", killed)
    report.figure("workers that were replaced", spawned, at_least=killed, at_most=killed)


def _die_of_it(client: Client, retries: int) -> int:
    """Submit one, and wait until it is dead; how many of its attempts were ended by that."""
    future = client.using(max_retries=retries, retry_backoff_s=0.05).submit("hog_in_a_loop", 100 * LIMIT_MB)
    try:
        future.result(timeout=60)
    except OutOfMemory:
        pass
    return sum(attempt.cause == "out_of_memory" for attempt in client.task(future.id).attempts)

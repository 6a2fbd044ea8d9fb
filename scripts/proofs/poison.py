"""A task that kills its workers is given up after exactly ``poison_after`` of them, and the others hardly notice.

20 workers run tasks of 20 ms, as many as they can take. Half of the time, in turns, a poisonous task runs beside them,
and another as soon as it is dead.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from itertools import count, repeat
from pathlib import Path

from poolmgr import Client
from poolmgr.errors import WorkerDied
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

TURNS = 10
TURN_S = 2.0
WORKERS = 20
POISON_AFTER = 3


def prove(scale: float) -> Report:
    """``scale`` times 10 turns of 2 s (below scale 1: shorter ones) without and with poison."""
    report = Report("poison")
    turns, turn_s = max(2, round(TURNS * scale)), TURN_S if scale >= 1 else TURN_S / 3
    kills: list[int] = []
    speeds: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
        pool = Pool(Path(directory), workers=WORKERS, poison_after=POISON_AFTER, breaker_failures=0)
        with pool, pool.client() as client, _Load(pool) as load:
            until(lambda: load.done > 5 * WORKERS, "the load runs")
            for _ in range(turns):
                for poisoned in (False, True):
                    began, done = time.monotonic(), load.done
                    while time.monotonic() - began < turn_s:
                        if poisoned:
                            kills.append(_poison(client))
                        else:
                            time.sleep(0.05)
                    speeds[poisoned].append((load.done - done) / (time.monotonic() - began))
            until(lambda: all(worker.state in ("ready", "busy") for worker in client.workers()), "no slot has failed")
            slots = len(client.workers())
    without, beside = (statistics.median(speeds[each]) for each in (False, True))
    report.figure("poisonous tasks", len(kills), at_least=turns)
    report.figure("workers killed by each, the fewest", min(kills), at_least=POISON_AFTER)
    report.figure("workers killed by each, the most", max(kills), at_most=POISON_AFTER)
    report.figure("slots that did not fail", slots, at_least=WORKERS)
    report.figure("other tasks per second, without", without)
    report.figure("other tasks per second, beside it", beside)
    report.figure("share of the throughput that is left", beside / without, at_least=0.8)
    report.figure("other tasks with a wrong end", load.wrong, at_most=0)
    return report


def _poison(client: Client) -> int:
    """Submit poison, and wait until it is dead; how many workers it has killed."""
    future = client.submit("kill_its_worker")
    try:
        future.result(timeout=60)
    except WorkerDied:
        pass
    known = client.task(future.id)
    assert "quarantined" in known.message, known.message
    return sum(attempt.cause == "worker_died" for attempt in known.attempts)


class _Load:
    """Keeps the workers busy, from a thread."""

    def __init__(self, pool: Pool) -> None:
        self.done = 0
        self.wrong = 0
        self._pool = pool
        self._stop = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._pool.client() as client:
            for number, result in enumerate(client.map("square_slowly", count(), repeat(0.02))):
                self.done += 1
                self.wrong += result != number * number
                if self._stop:
                    break

    def __enter__(self) -> _Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()

"""Random SIGKILLs of busy workers cost one worker each, and no task its result.

20 workers run tasks of 5 to 20 ms; one after the other, 1,000 of them are killed. For each kill the time until the
slot's next process is ready is measured, as the daemon's own event tells it, and the pids of all other workers are
compared. Every task (none is durable: what is on disk is daemon-kill's matter) must have exactly one final state, and
a completed one the right result.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from poolmgr import Client, PoolError, TaskFailed, TaskFuture
from poolmgr.model import Event, WorkerInfo
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

KILLS = 1000
WORKERS = 20
IN_FLIGHT = 20 * WORKERS  # tasks: 0.2 s of work, in which the oldest may be tried again before it is waited for
RUNS = "0"  # in place of a function: the process does not wait, or we may not know
FINAL = ("task-completed", "task-dead")  # events; nothing is cancelled here, and nothing expires


def prove(scale: float) -> Report:
    """Kill ``scale`` times 1,000 workers."""
    report = Report("kills")
    kills = max(10, round(KILLS * scale))
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory, Pool(Path(directory), workers=WORKERS) as pool:
        watch = Watch(pool)
        with pool.client() as client:
            killer = Killer(client, watch, random.Random(kills))
            load = Load(pool)
            until(lambda: watch.finals.total() > WORKERS, "the load runs")
            for _ in range(kills):
                killer.kill_one()
        results = load.finish()
        watch.finish(len(results))
    _tell(report, kills, killer, watch, results)
    return report


def _tell(report: Report, kills: int, killer: Killer, watch: Watch, results: dict[str, str]) -> None:
    report.figure("kills", kills, at_least=kills)
    report.figure("of busy workers", watch.busy_deaths, at_least=0.9 * kills)
    ends = Counter(results.values())
    right, killed = ends.pop("right", 0), ends.pop("worker_died", 0)
    report.figure("tasks", len(results))
    report.figure("with the right result", right)
    report.figure("dead, as three of their workers were killed", killed)
    report.figure("with any other end", ends.total(), at_most=0)
    report.figure("without exactly one final state", sum(watch.finals[id] != 1 for id in results), at_most=0)
    report.figure("other workers whose pid changed", killer.disturbed, at_most=0)
    report.figure("kill to ready, median", 1000 * statistics.median(killer.took_s), "ms", at_most=10)
    report.figure("kill to ready, p99", 1000 * statistics.quantiles(killer.took_s, n=100)[98], "ms")


class Watch:
    """Reads the daemon's events in a thread."""

    def __init__(self, pool: Pool) -> None:
        self.finals: Counter[str] = Counter()  # final states by task
        self.busy_deaths = 0
        self.started: dict[tuple[str, int], float] = {}  # (worker, incarnation) -> wall time
        self._client = pool.client()
        self._events = self._client.events()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for event in self._events:
            self._take(event)

    def _take(self, event: Event) -> None:
        fields = event.fields
        if event.name in FINAL:
            self.finals[fields["task_id"]] += 1
        elif event.name == "worker-started":
            self.started[fields["worker_id"], fields["incarnation"]] = event.at
        elif event.name == "task-failed" and fields["code"] == "worker_died":
            self.busy_deaths += 1

    def finish(self, tasks: int) -> None:
        """Read on until every task has ended."""
        until(lambda: len(self.finals) >= tasks, "the end of every task was told")
        self._events.close()
        self._thread.join()
        self._client.close()


class Load:
    """Keeps the pool busy from a thread, with tasks whose results it can check."""

    def __init__(self, pool: Pool) -> None:
        self._client = pool.client()
        self._enough = threading.Event()
        self._results: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        calls = self._client.using(durable=False)
        lengths = random.Random(1)
        waiting: list[tuple[int, TaskFuture[int]]] = []
        for number in self._numbers():
            seconds = lengths.uniform(0.005, 0.020)
            waiting.append((number, calls.submit("square_slowly", number, seconds)))
            if len(waiting) >= IN_FLIGHT:
                self._take(*waiting.pop(0))
        for each in waiting:
            self._take(*each)

    def _numbers(self) -> Iterator[int]:
        number = 0
        while not self._enough.is_set():
            yield number
            number += 1

    def _take(self, number: int, future: TaskFuture[int]) -> None:
        try:
            end = "right" if future.result(timeout=60) == number * number else "wrong"
        except TaskFailed as failure:
            end = failure.code
        except (PoolError, TimeoutError) as error:
            end = repr(error)
        self._results[future.id] = end

    def finish(self) -> dict[str, str]:
        """No more; how each task ended: "right", "wrong", or the code of its failure."""
        self._enough.set()
        self._thread.join()
        self._client.close()
        return self._results


class Killer:
    """Kills one busy worker at a time, and waits for the next process in its slot. To be made while all are idle."""

    def __init__(self, client: Client, watch: Watch, chance: random.Random) -> None:
        self.took_s: list[float] = []
        self.disturbed = 0
        self._client = client
        self._watch = watch
        self._chance = chance
        self._before = self._workers()
        self._idle_in = {_waits_in(worker.pid) for worker in self._before.values()} | {RUNS}

    def _workers(self) -> dict[str, WorkerInfo]:
        return {worker.id: worker for worker in self._client.workers()}

    def _victim(self) -> WorkerInfo:
        """A random worker whose handler sleeps at this moment. Else, as /proc may not tell, one that was busy last."""
        workers = list(self._before.values())
        self._chance.shuffle(workers)
        busy = [worker for worker in workers if worker.state == "busy"]
        return next((worker for worker in busy if _waits_in(worker.pid) not in self._idle_in), (busy or workers)[0])

    def kill_one(self) -> None:
        victim = self._victim()
        assert victim.pid is not None
        killed_at = time.time()
        os.kill(victim.pid, signal.SIGKILL)
        next_one = (victim.id, victim.incarnation + 1)
        until(lambda: next_one in self._watch.started, f"a new process in {victim.id}")
        self.took_s.append(self._watch.started[next_one] - killed_at)
        after = self._workers()
        others = self._before.keys() - {victim.id}
        self.disturbed += sum(self._before[each].pid != after[each].pid for each in others)
        self._before = after


def _waits_in(pid: int | None) -> str:
    """The kernel's function that the process waits in."""
    try:
        return Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return RUNS

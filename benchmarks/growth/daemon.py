"""One daemon whose cost is measured, and how: by the processor time of its own process, workers not included."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

from benchmarks.pairs import percentile, tasks_for
from benchmarks.peer import ROOT
from poolmgr import Client
from scripts.proofs.pool import Pool, until

Sample = dict[str, float]

APP: Final = "benchmarks.peers.poolmgr_app"
NAME: Final = "echo"  # what is measured
PAUSED: Final = "nap"  # what waits beside it
_PATIENCE_S: Final = 300.0
_FIRST_TASKS: Final = 500
_MOST_TASKS: Final = 200_000
_CALLS_SHARE: Final = 0.4  # of the time of a run
_SETTLED_S: Final = 0.05
_IDLE: Final = 0.02  # of a processor


class Daemon(Pool):
    """A private daemon with the benchmarks' app."""

    def __init__(self, directory: Path, workers: int) -> None:
        directory.mkdir()
        most = max(50, workers)
        super().__init__(directory, app=APP, app_directory=ROOT, workers=workers, max_workers=most)

    def cpu_us(self) -> float:
        """Processor time that its threads have taken so far, of the user and the system."""
        return sum(
            _thread_us(Path(f"/proc/{self.pid}/task/{thread}")) for thread in os.listdir(f"/proc/{self.pid}/task")
        )


def _thread_us(thread: Path) -> float:
    """To the microsecond where the kernel tells it, else in ticks of 10 ms."""
    try:
        return int((thread / "schedstat").read_text().split()[0]) / 1000
    except OSError:
        fields = (thread / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") * 1e6


class Serving:
    """Calls by one client of a daemon: many at once, then one after the other."""

    def __init__(self, daemon: Daemon, client: Client, run_s: float) -> None:
        self._daemon = daemon
        self._client = client
        self._map(_FIRST_TASKS)
        took_s = self._map(_FIRST_TASKS)
        self._tasks = tasks_for((1 - _CALLS_SHARE) * run_s, tried=_FIRST_TASKS, took_s=took_s, most=_MOST_TASKS)
        took_s = sum(self._calls(_FIRST_TASKS))
        self._calls_count = tasks_for(_CALLS_SHARE * run_s, tried=100, took_s=took_s * 100 / _FIRST_TASKS, most=20_000)

    def sample(self) -> Sample:
        """One run."""
        cpu_us = self._daemon.cpu_us()
        took_s = self._map(self._tasks)
        between_us = self._daemon.cpu_us()
        taken_s = self._calls(self._calls_count)
        after_us = self._daemon.cpu_us()
        return {
            "CPU of a task in a map": (between_us - cpu_us) / self._tasks,
            "CPU of a call by itself": (after_us - between_us) / len(taken_s),
            "map": self._tasks / took_s,
            "call by itself, p50": 1e6 * percentile(taken_s, 50),
        }

    def _map(self, tasks: int) -> float:
        began = time.perf_counter()
        if sum(self._client.map(NAME, [1] * tasks)) != tasks:
            raise AssertionError("wrong results")
        return time.perf_counter() - began

    def _calls(self, calls: int) -> list[float]:
        taken = []
        for _ in range(calls):
            began = time.perf_counter()
            self._client.run(NAME, 1)
            taken.append(time.perf_counter() - began)
        return taken


class Backlog:
    """A line of so many tasks, whose first ones are run while the rest waits behind them.

    Args:
        waiting: how many wait behind those of a run.
        tasks: how many a run has.
    """

    def __init__(self, daemon: Daemon, client: Client, *, durable: bool, waiting: int, tasks: int) -> None:
        self._daemon = daemon
        self._client = client
        self._submit = client.using(durable=durable).submit
        self._tasks = tasks
        self._line: deque[Any] = deque()  # the futures, in order
        client.pause(NAME)
        self._hand_over(waiting + tasks)

    def sample(self) -> Sample:
        """Run the first of the line, and hand over as many, at its end."""
        completed, cpu_us, began = self._completed(), self._daemon.cpu_us(), time.perf_counter()
        self._client.resume(NAME)
        for _ in range(self._tasks):
            if self._line.popleft().result(_PATIENCE_S) != 1:
                raise AssertionError("wrong results")
        took_s = time.perf_counter() - began
        self._client.pause(NAME)
        ran = until(self._at_rest, "what was begun has ended") - completed
        between_us = self._daemon.cpu_us()
        for _ in range(ran - self._tasks):  # before the pause was heard of
            self._line.popleft()
        self._hand_over(ran)
        return {
            "CPU of a task that runs": (between_us - cpu_us) / ran,
            "CPU of a submit": (self._daemon.cpu_us() - between_us) / ran,
            "run": self._tasks / took_s,
        }

    def _hand_over(self, tasks: int) -> None:
        self._line.extend(self._submit(NAME, 1) for _ in range(tasks))
        self._client.flush()

    def _completed(self) -> int:
        completed: int = self._client.status()["tasks"]["completed"]
        return completed

    def _at_rest(self) -> int:
        """How many have ended, ever; 0 while the daemon is busy with that: its store, too, and fetching the next."""
        before_us = self._daemon.cpu_us()
        time.sleep(_SETTLED_S)
        if self._daemon.cpu_us() - before_us > _IDLE * 1e6 * _SETTLED_S:
            return 0
        return 0 if self._client.status()["tasks"]["running"] else self._completed()

"""What a daemon takes, looked at again and again while it works: memory, descriptors, threads, files."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from scripts.proofs.disk import size_mb
from scripts.proofs.pool import Pool

_PAGE_MB: Final = os.sysconf("SC_PAGE_SIZE") / 2**20


def resident_mb(pid: int) -> float:
    """The resident memory of one process, in MiB: pages that it shares with others count whole."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_MB


class Sample(NamedTuple):
    """One look at a daemon."""

    at: float  # time.monotonic()
    pid: int
    memory_mb: float
    files: int
    threads: int
    disk_mb: float  # database, log and spool


class Sampler:
    """Looks every ``every_s`` seconds, from a thread, as a context manager. A daemon that is just dying is left out.

    Attributes:
        samples: in their order. With ``memory_alone`` the other fields are 0.
    """

    def __init__(self, pool: Pool, every_s: float, *, memory_alone: bool = False) -> None:
        self.samples: list[Sample] = []
        self._pool = pool
        self._every_s = every_s
        self._memory_alone = memory_alone
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._enough.wait(self._every_s):
            try:
                self.samples.append(self._look())
            except (OSError, IndexError, ValueError):  # it ends, or is a zombie
                pass

    def _look(self) -> Sample:
        pid = self._pool.pid
        memory_mb = resident_mb(pid)
        if not memory_mb:
            raise ValueError("a zombie has no memory")
        if self._memory_alone:
            return Sample(time.monotonic(), pid, memory_mb, 0, 0, 0.0)
        threads = len(os.listdir(f"/proc/{pid}/task"))
        return Sample(time.monotonic(), pid, memory_mb, self._pool.open_files(), threads, size_mb(self._pool.state))

    @property
    def most_mb(self) -> float:
        """The most memory that was ever seen."""
        return max((each.memory_mb for each in self.samples), default=float("nan"))


class Slope(NamedTuple):
    """A straight line through points, by least squares."""

    per_h: float
    error_per_h: float  # its standard error


def slope(points: Sequence[tuple[float, float]]) -> Slope:
    """How fast the second coordinates grow with the first, which are in seconds. Not a number for under 3 points."""
    if len(points) < 3:
        return Slope(float("nan"), float("nan"))
    hours, values = [at / 3600 for at, _ in points], [value for _, value in points]
    line = statistics.linear_regression(hours, values)
    left = sum((value - line.intercept - line.slope * hour) ** 2 for hour, value in zip(hours, values, strict=True))
    spread = sum((hour - statistics.fmean(hours)) ** 2 for hour in hours)
    return Slope(line.slope, (left / (len(points) - 2) / spread) ** 0.5)


def medians(samples: Iterable[Sample], window_s: float, value: Callable[[Sample], float]) -> list[tuple[float, float]]:
    """The middle ``value`` of each window of time, with the middle of the window."""
    return _windows(samples, window_s, lambda group: statistics.median(map(value, group)))


def floors(samples: Iterable[Sample], window_s: float, value: Callable[[Sample], float]) -> list[tuple[float, float]]:
    """The least ``value`` in each window of time, with the middle of the window: what comes and goes is left out."""
    return _windows(samples, window_s, lambda group: min(map(value, group)))


def _windows(
    samples: Iterable[Sample], window_s: float, of: Callable[[Iterable[Sample]], float]
) -> list[tuple[float, float]]:
    windows = groupby(samples, lambda each: each.at // window_s)
    return [((window + 0.5) * window_s, of(group)) for window, group in windows]

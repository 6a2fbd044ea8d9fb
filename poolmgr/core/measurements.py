"""Counts and times of what has happened, cheap enough to keep for every task."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

PREFETCH_MAX = 64  # docs/decisions/0015-up-to-64-are-prefetched.md
PREFETCH_SPAN_S = 0.001  # what is prefetched to one worker should take no longer than this
_SAMPLES_FIRST = 16
_SAMPLES_AGAIN = 64


def percentiles(samples: Iterable[float]) -> dict[str, float | None]:
    """p50, p95 and p99 by nearest rank; None where there are no samples."""
    found = sorted(samples)
    if not found:
        return {"p50": None, "p95": None, "p99": None}
    return {f"p{p}": found[-(-len(found) * p // 100) - 1] for p in (50, 95, 99)}


class RunTimes:
    """The run times of one name, and how deep it may be prefetched: ``min(64, 1 ms / p95)``, 1 while it is unknown."""

    __slots__ = ("_samples", "_until", "depth")

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=128)
        self._until = _SAMPLES_FIRST
        self.depth = 1

    def add(self, seconds: Sequence[float]) -> None:
        """Of some tasks, at least one."""
        self._samples.extend(seconds)
        self._until -= len(seconds)
        if self._until <= 0 or (self.depth > 1 and max(seconds) > PREFETCH_SPAN_S):
            self._until = _SAMPLES_AGAIN
            ordered = sorted(self._samples)
            p95 = ordered[len(ordered) * 95 // 100]
            self.depth = max(1, min(PREFETCH_MAX, int(PREFETCH_SPAN_S / p95))) if p95 > 0 else PREFETCH_MAX


class Statistics:
    """Totals since the daemon's start, and the last few thousand run and wait times (seconds)."""

    def __init__(self) -> None:
        self.submitted = 0
        self.completed = 0
        self.failed_attempts = 0
        self.retried = 0
        self.dead = 0
        self.cancelled = 0
        self.expired = 0
        self.interrupted = 0
        self.preempted = 0
        self.shed = 0
        self.spawned = 0
        self.executed = 0
        self.first_of_process = 0  # tasks that were the first of their process
        self.run_s: deque[float] = deque(maxlen=4096)
        self.wait_s: deque[float] = deque(maxlen=4096)
        self.by_name: dict[str, RunTimes] = {}
        self._marks: deque[tuple[float, int]] = deque(maxlen=61)

    def ran(self, name: str, run_s: Sequence[float], wait_s: Sequence[float]) -> None:
        """Some tasks of this name, at least one, have completed."""
        self.run_s.extend(run_s)
        self.wait_s.extend(wait_s)
        times = self.by_name.get(name)
        if times is None:
            times = self.by_name[name] = RunTimes()
        times.add(run_s)

    def mark(self, now: float) -> None:
        """Once a second or so: what the throughput is reckoned from."""
        self._marks.append((now, self.executed))

    def throughput_per_s(self, now: float) -> float:
        """Executed attempts a second over the last minute (or since the start)."""
        if not self._marks:
            return 0.0
        since, executed = self._marks[0]
        return (self.executed - executed) / (now - since) if now > since else 0.0

    def reuse_rate(self) -> float:
        """The share of tasks that ran in a process which had run one before; 1.0 while none has run."""
        return 1.0 - self.first_of_process / self.executed if self.executed else 1.0

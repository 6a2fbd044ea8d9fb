"""Bursts are met by more workers, a steady load leaves the pool alone, and an idle one goes back.

A pool that may have 2 to 16 workers. Three times: a burst of tasks that sleep, more than so few workers can take in
their time; then a load that keeps ten of them busy, one task after the other; then nothing. Every event that says that
the pool was scaled is counted, and each is to have its reason. A pool that grows and shrinks by turns would show itself
in how many there are: a burst is met by three doublings, and what is not needed goes one by one, once.

In the end loops keep all processors busy, and a burst comes that would have been met before.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from poolmgr import Client, TaskFuture
from poolmgr.model import Event
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

LEAST: Final = 2
MOST: Final = 16
DOUBLINGS: Final = 3  # from the least to the most
WAIT_S: Final = 0.5
IDLE_S: Final = 6.0
BURST: Final = 80
TASK_S: Final = 1.0
BUSY: Final = 10
BURSTS: Final = 3
_UP, _DOWN = "pool-scaled-up", "pool-scaled-down"
_PATIENCE_S: Final = 120.0


def prove(scale: float) -> Report:
    """At scale 1 three bursts; below, one, and shorter times."""
    report = Report("autoscale")
    bursts = max(1, round(BURSTS * scale))
    idle_s, burst = (IDLE_S, BURST) if scale >= 1 else (2.0, 40)
    settings: dict[str, Any] = {
        "min_workers": LEAST, "max_workers": MOST, "autoscale": True, "autoscale_wait_s": WAIT_S,
        "autoscale_idle_s": idle_s, "memory_thresholds": "98,99,100",
    }  # fmt: skip
    report.note(f"{LEAST} to {MOST} workers, bursts of {burst} tasks of {TASK_S:g} s")
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
        calm, busy = Path(directory) / "calm", Path(directory) / "busy"
        calm.mkdir()
        busy.mkdir()
        # What else the machine does is not to decide: tasks that sleep need none of it.
        with Pool(calm, workers=LEAST, autoscale_cpu_percent=100, **settings) as pool, pool.client() as client:
            with _Scalings(pool) as scalings:
                for number in range(bursts):
                    _burst(client, scalings, report, f"burst {number + 1}", burst)
                    _steady(client, scalings, report, 3 * idle_s)
                    _idle(client, scalings, report)
            report.figure("scalings without a reason", scalings.without_reason, at_most=0)
        with Pool(busy, workers=LEAST, **settings) as pool, pool.client() as client:
            _busy_machine(pool, client, report)
    return report


class _Scalings:
    """Counts what the pool is scaled, by the events that say so."""

    def __init__(self, pool: Pool) -> None:
        self._client = pool.client()
        self._stream = self._client.events(_UP, _DOWN)
        self._events: list[Event] = []
        self._thread = threading.Thread(target=self._hear, daemon=True)

    def _hear(self) -> None:
        for event in self._stream:
            self._events.append(event)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._thread.join()
        self._client.close()

    def since(self, mark: int) -> Counter[str]:
        """How many of each kind there were after the first ``mark``."""
        return Counter(event.name for event in self._events[mark:])

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self._events)

    @property
    def without_reason(self) -> int:
        """How many do not say why."""
        return sum(not event.fields["reason"] for event in self._events)


def _size(client: Client) -> int:
    return int(client.metrics()["pool"]["size"])


def _burst(client: Client, scalings: _Scalings, report: Report, name: str, burst: int) -> None:
    mark, before = scalings.count, _size(client)
    began = time.monotonic()
    futures = [client.using(durable=False).submit("rest", TASK_S) for _ in range(burst)]
    until(lambda: _size(client) == MOST, "the pool is as large as it may be", _PATIENCE_S)
    grown_s = time.monotonic() - began
    for future in futures:
        future.result(timeout=_PATIENCE_S)
    took_s = time.monotonic() - began
    seen = scalings.since(mark)
    report.figure(f"{name}: begins with", before, "workers", at_most=LEAST)
    report.figure(f"{name}: met by all that there may be after", grown_s, "s")
    report.figure(f"{name}: done in", took_s, "s", at_most=0.7 * burst * TASK_S / LEAST)
    report.figure(f"{name}: with {LEAST} workers it takes", burst * TASK_S / LEAST, "s")
    report.figure(f"{name}: scaled up", seen[_UP], "times", at_least=DOUBLINGS, at_most=DOUBLINGS)
    report.figure(f"{name}: scaled down meanwhile", seen[_DOWN], "times", at_most=0)


def _steady(client: Client, scalings: _Scalings, report: Report, seconds: float) -> None:
    """Some of the workers are busy all the time."""
    mark = scalings.count
    give_up_at = time.monotonic() + seconds
    running: list[TaskFuture[object]] = []
    calls = client.using(durable=False)
    while time.monotonic() < give_up_at:
        running = [future for future in running if not future.done()]
        running += [calls.submit("rest", 2 * TASK_S) for _ in range(BUSY - len(running))]
        time.sleep(0.01)
    seen = scalings.since(mark)
    report.figure(f"  steady at {BUSY} busy: scaled up", seen[_UP], "times", at_most=0)
    report.figure(f"  steady at {BUSY} busy: scaled down", seen[_DOWN], "times", at_most=MOST - BUSY)
    report.figure(f"  steady at {BUSY} busy: workers left", _size(client), at_least=BUSY + 1)
    for future in running:
        future.result(timeout=_PATIENCE_S)


def _idle(client: Client, scalings: _Scalings, report: Report) -> None:
    mark, before = scalings.count, _size(client)
    began = time.monotonic()
    until(lambda: len(client.workers()) == LEAST, "the pool is as small as it may be", _PATIENCE_S)
    seen = scalings.since(mark)
    report.figure("  idle: back at the least after", time.monotonic() - began, "s")
    report.figure("  idle: scaled down", seen[_DOWN], "times", at_most=before - LEAST)
    report.figure("  idle: scaled up", seen[_UP], "times", at_most=0)


def _busy_machine(pool: Pool, client: Client, report: Report) -> None:
    """More tasks than workers, and no processor that is free."""
    with _busy_loops(2 * (os.cpu_count() or 1)), _Scalings(pool) as scalings:
        until(lambda: (client.metrics()["autoscale"]["cpu_percent"] or 0) > 95, "the machine is busy", _PATIENCE_S)
        futures = [client.using(durable=False).submit("rest", TASK_S) for _ in range(6 * LEAST)]
        spared = until(lambda: "the machine is busy" in client.metrics()["autoscale"]["reason"], "it says so", 30.0)
        for future in futures:
            future.result(timeout=_PATIENCE_S)
        report.figure("where the machine is busy: scaled up", scalings.since(0)[_UP], "times", at_most=0)
        report.figure("  and it says why not", int(spared), at_least=1)


@contextmanager
def _busy_loops(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()

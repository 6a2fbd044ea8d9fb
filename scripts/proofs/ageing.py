"""An endless flood of CRITICAL work does not starve what is less urgent, with ageing; without it the order is strict.

Four clients have 200 CRITICAL calls (priority 0) of 5 ms under way at any time, on four workers: something of theirs
always waits. Meanwhile tasks of priorities 10, 50 and 100 are submitted, four times a second. With ``aging_s`` each of
them has to begin once it has waited longer by its priority times that: not before, since until then there is CRITICAL
work that goes first; and not later, but for the little that is in the queue then. Without it none of them may begin
before the flood stops, and then those that are more urgent begin first.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from poolmgr import Client, TaskFuture
from scripts.proofs.flood import Flood
from scripts.proofs.pool import Pool
from scripts.proofs.report import Report

CLIENTS: Final = 4
WORKERS: Final = 4
WINDOW: Final = 50  # calls of a client that are under way
TASK_S: Final = 0.005
PRIORITIES: Final = (10, 50, 100)
AGING_S: Final = 0.04
LATE_S: Final = 1.5  # what the flood has in the queue takes a third of a second; and the machine has other things to do
SECONDS: Final = 20.0  # of submitting, at scale 1
_EVERY_S: Final = 0.25
_PATIENCE_S: Final = 60.0
Waiting = list[tuple[int, float, TaskFuture[Any]]]  # priority, submitted at, and the future of when it began


def prove(scale: float) -> Report:
    """``ageing``: nothing starves with it, and without it nothing goes before what is more urgent."""
    report = Report("ageing")
    report.note(
        f"{CLIENTS} clients with {WINDOW} CRITICAL calls of {1000 * TASK_S:g} ms under way each, {WORKERS} workers"
    )
    seconds = SECONDS * scale
    with tempfile.TemporaryDirectory(prefix="pm-") as name:
        for kind, prove_it in (("on", _on), ("off", _off)):
            directory = Path(name) / kind
            directory.mkdir()
            prove_it(report, directory, seconds)
    return report


def _on(report: Report, directory: Path, seconds: float) -> None:
    pool = Pool(directory, workers=WORKERS, aging_s=AGING_S)
    with pool, pool.client() as client, Flood(pool.socket, CLIENTS, WINDOW, TASK_S) as flood:
        began = time.monotonic()
        waiting = _submit(client, seconds)
        ended = sum(_begun(future) for _, _, future in waiting)  # the flood goes on
        took_s = time.monotonic() - began
        critical = flood.stop()
    report.figure("aging_s", AGING_S, "s")
    report.figure("with ageing: tasks submitted", len(waiting))
    report.figure("with ageing: completed under the flood", ended, at_least=len(waiting))
    for priority in PRIORITIES:
        waits = _waits(waiting, priority)
        label = f"with ageing: wait of priority {priority}"
        report.figure(f"{label}, shortest", min(waits), "s", at_least=0.95 * priority * AGING_S)
        report.figure(f"{label}, longest", max(waits), "s", at_most=priority * AGING_S + LATE_S)
    report.figure("with ageing: CRITICAL calls meanwhile", critical / took_s, "calls/s")


def _off(report: Report, directory: Path, seconds: float) -> None:
    """On one worker, so that the order in which tasks begin is the order in which they were started."""
    pool = Pool(directory, workers=1)
    flooded_s = max(seconds, 2 * (max(PRIORITIES) * AGING_S + LATE_S) * min(1.0, seconds / SECONDS))
    with pool, pool.client() as client, Flood(pool.socket, CLIENTS, WINDOW, TASK_S) as flood:
        began = time.monotonic()
        waiting = _submit(client, seconds)
        time.sleep(max(0.0, began + flooded_s - time.monotonic()))  # the flood is what is under way
        early = sum(future.done() for _, _, future in waiting)
        flooded_s = time.monotonic() - began
        critical = flood.stop()
        ended = sum(_begun(future) for _, _, future in waiting)
    in_order = sorted(waiting, key=lambda each: float(each[2].result()))
    priorities = [priority for priority, _, _ in in_order]
    report.figure("without: the flood lasted", flooded_s, "s")
    report.figure("without: CRITICAL calls", critical)
    report.figure("without: tasks submitted", len(waiting))
    report.figure("without: begun under the flood", early, at_most=0)
    report.figure("without: completed after it", ended, at_least=len(waiting))
    report.figure("without: begun before a more urgent one", _inversions(priorities), at_most=0)


def _submit(client: Client, seconds: float) -> Waiting:
    """One task of each priority, four times a second."""
    waiting: Waiting = []
    began = time.monotonic()
    turns = max(2, round(seconds / _EVERY_S))
    for turn in range(turns):
        time.sleep(max(0.0, began + turn * _EVERY_S - time.monotonic()))  # the pace at which they are offered
        for priority in reversed(PRIORITIES):
            future = client.using(priority=priority).submit("now")
            waiting.append((priority, time.monotonic(), future))
    return waiting


def _begun(future: TaskFuture[Any]) -> bool:
    try:
        return bool(future.result(_PATIENCE_S))
    except TimeoutError:
        return False


def _waits(waiting: Waiting, priority: int) -> list[float]:
    """How long each of that priority has waited, of those that have begun."""
    done = [(at, future) for each, at, future in waiting if each == priority and future.done()]
    return [float(future.result()) - at for at, future in done] or [float("nan")]


def _inversions(priorities: Sequence[int]) -> int:
    return sum(any(later < priority for later in priorities[n + 1 :]) for n, priority in enumerate(priorities))

"""A task that takes far more memory than it may is dead within a second, never over twice its limit, and says why.

4 GB under a limit of 512 MB: in a loop, as one array, as shared memory, in programs that it starts, in an orphan.
Beside it the other workers go on with short tasks. How much there is at most is measured from outside, all the time,
by the kernel's own division of memory (PSS).
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from itertools import count, repeat
from pathlib import Path
from typing import Any, Final, NamedTuple

from poolmgr import Client, TaskFailed
from poolmgr.manager import procfs
from poolmgr.model import AttemptInfo
from poolmgr.worker.warden import WORKER, processes, started_with
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

LIMIT_MB: Final = 512
SMALL_LIMIT_MB: Final = 192
TIMES: Final = 8  # the limit: 4 GB
WORKERS: Final = 4
PATIENCE_S: Final = 60.0
LABELS_S: Final = 0.05

# What is called, with which arguments (of the limit), and whether it is refused, rather than seen.
HOGS: Final[dict[str, Callable[[int], tuple[Any, ...]]]] = {
    "hog_in_a_loop": lambda limit_mb: (TIMES * limit_mb,),
    "hog_at_once": lambda limit_mb: (TIMES * limit_mb,),
    "hog_at_once, less than is refused": lambda limit_mb: (limit_mb * 3 // 2,),
    "hog_shared": lambda limit_mb: (TIMES * limit_mb,),
    "hog_in_file": lambda limit_mb: (TIMES * limit_mb,),
    "hog_in_children": lambda limit_mb: (TIMES * limit_mb, 1),
    "hog_in_children, several": lambda limit_mb: (TIMES * limit_mb, 4),
    "hog_in_orphan": lambda limit_mb: (TIMES * limit_mb,),
}


class Course(NamedTuple):
    """What was seen of one task."""

    peak_mb: float
    over_s: float  # from when it was seen over its limit until all of it was gone
    attempt: AttemptInfo


def prove(scale: float) -> Report:
    """Each way ``scale`` times 3 times (below scale 1: once, under a smaller limit)."""
    report = Report("memory")
    limit_mb, rounds = (LIMIT_MB, max(1, round(3 * scale))) if scale >= 1 else (SMALL_LIMIT_MB, 1)
    report.note(f"limit {limit_mb} MB; the tasks would take {TIMES * limit_mb:,} MB")
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
        pool = Pool(Path(directory), app="hogs", workers=WORKERS, worker_memory_limit_mb=limit_mb, breaker_failures=0)
        with pool, pool.client() as client, Load(pool) as load:
            until(lambda: load.done > WORKERS, "the load runs")
            for what, arguments in HOGS.items():
                courses = [_watch(client, what.partition(",")[0], arguments(limit_mb), limit_mb) for _ in range(rounds)]
                _judge(report, what, courses, limit_mb)
            shared_mb = limit_mb * 3 // 4
            held = client.using(max_retries=0).run("share_with_children", shared_mb, 3, 1.0)
            before = {each.id: each.incarnation for each in client.workers()}
            done = load.done
            until(lambda: load.done > done + WORKERS, "the load goes on")
            after = {each.id: each.incarnation for each in client.workers()}
    report.figure("shared with three forks, and not counted thrice", held, "MB", at_least=shared_mb)
    report.figure("workers lost after that", len(before.items() - after.items()), at_most=0)
    report.figure("tasks beside it", load.done, at_least=WORKERS)
    report.figure("  that failed, or gave a wrong result", load.wrong, at_most=0)
    return report


def _judge(report: Report, what: str, courses: list[Course], limit_mb: int) -> None:
    report.figure(f"{what}: peak", max(each.peak_mb for each in courses), "MB of PSS", at_most=2 * limit_mb)
    report.figure("  gone after it passed the limit", max(each.over_s for each in courses), "s", at_most=1.0)
    labelled = sum(each.attempt.cause == "out_of_memory" for each in courses)
    report.figure("  labelled out_of_memory", labelled, at_least=len(courses))
    told = [each.attempt.post_mortem.peak_memory_mb if each.attempt.post_mortem else 0.0 for each in courses]
    report.figure("  peak in its post-mortem", min(told), "MB", at_least=1)
    report.note(f"  {courses[0].attempt.message}")


def _watch(client: Client, name: str, arguments: tuple[Any, ...], limit_mb: int) -> Course:
    future = client.using(max_retries=0).submit(name, *arguments)
    family = until(lambda: _runs_in(client, future.id), "it runs")
    assert family is not None
    peak_mb, over_at, used_mb = 0.0, float("inf"), 0.0
    while not future.done() or used_mb > limit_mb / 4:  # a worker that was refused memory goes a moment later
        used_mb = family.weighs_mb()
        peak_mb = max(peak_mb, used_mb)
        if used_mb > limit_mb:
            over_at = min(over_at, time.monotonic())
    gone_at = time.monotonic()
    try:
        future.result(timeout=PATIENCE_S)
    except TaskFailed:
        pass
    [attempt] = client.task(future.id).attempts
    return Course(peak_mb, max(0.0, gone_at - over_at), attempt)


def _runs_in(client: Client, task: str) -> Family | None:
    """Who runs it; nobody, if it has ended already."""
    for each in client.workers():
        if each.current_task == task and each.pid is not None:
            return Family(each.pid, f"{each.id}.{each.incarnation}")
    return Family(0, "") if client.task(task).attempts else None


class Family:
    """A worker, and what it has started: children of children, and what has its label."""

    def __init__(self, pid: int, label: str) -> None:
        self._pid = pid
        self._label = label
        self._looked_at = 0.0
        self._labelled: list[int] = []

    def weighs_mb(self) -> float:
        """What they have together, in MB of PSS."""
        shares = [procfs.share_mb(each) for each in self.members()]
        return sum([each for each in shares if each is not None])

    def members(self) -> list[int]:
        """Those that there are now; the dearer look is not taken every time."""
        if not self._pid:
            return []
        if time.monotonic() - self._looked_at > LABELS_S:
            self._looked_at = time.monotonic()
            self._labelled = [each for each in processes() if started_with(each, WORKER) == self._label]
        found = list(dict.fromkeys((self._pid, *self._labelled)))
        for each in found:
            found.extend(child for child in procfs.children(each) if child not in found)
        return found


class Load:
    """Short tasks on the other workers, from a thread."""

    def __init__(self, pool: Pool) -> None:
        self.done = 0
        self.wrong = 0
        self._pool = pool
        self._stop = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._pool.client() as client:
            try:
                for number, result in enumerate(client.using(max_retries=0).map("square", count(), repeat(0.02))):
                    self.done += 1
                    self.wrong += result != number * number
                    if self._stop:
                        break
            except TaskFailed:
                self.wrong += 1

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()

"""A million durable tasks in the queue, a million that wait for their time, 4 GB of payloads: the daemon stays small.

One client hands over 1,000,000 tasks of 100 bytes, of a name that is paused, while the daemon's resident memory is
sampled. Then the daemon is killed, and started again on the same state: it must answer its first command, and have run
its first task, within 10 s of being started, remember all of them, and run them in the order in which they came. The
same again with tasks that are delayed by a day, but for the last few; and with 500 of 4 MB each, in the queue and then
in the schedule, which all run after the restart. The daemon is to stay under 300 MB all the time.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

from poolmgr import Client
from poolmgr.core.measurements import PREFETCH_MAX
from scripts.proofs.disk import file_system, real_disk, size_mb
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report
from scripts.proofs.samples import Sampler, resident_mb

TASKS: Final = 1_000_000
WORKERS: Final = 20
RUN: Final = 10_000  # of those that were queued, the first ones, whose order is looked at: many times OUT_OF_PLACE
SOON: Final = 100  # of those that were delayed, the last ones, which are due at once
BATCH: Final = 10_000
PADDING: Final = "x" * 40  # with the rest of the arguments, some 100 bytes
LARGE: Final = 500  # tasks with large payloads
LARGE_FEWEST: Final = 40
LARGE_BYTES: Final = 4 << 20
DAY_S: Final = 86_400.0
DUE_S: Final = 1.0  # after their submit, tasks with large payloads
MEMORY_MB: Final = 300
SERVING_S: Final = 10.0
PATIENCE_S: Final = 300.0  # one that takes longer to start is told as a figure, and short
SAMPLE_S: Final = 0.02
# Tasks start in their order. Twenty workers, which hold up to so many each, do not end them in it.
OUT_OF_PLACE: Final = WORKERS * PREFETCH_MAX


def prove(scale: float) -> Report:
    """``depth``: what waits is on disk."""
    report = Report("depth")
    tasks = max(2 * RUN, round(TASKS * scale))
    parent = real_disk()
    if parent is None:
        report.skip("a directory on a real disk (looked in TMPDIR and /var/tmp)")
        return report
    report.note(f"{tasks:,} tasks each time, {WORKERS} workers; state on {file_system(parent)}")
    large = max(LARGE_FEWEST, round(LARGE * scale))
    report.note(f"{large} tasks of {LARGE_BYTES >> 20} MB, twice")
    for name, prove_one in (("queued", _queued), ("delayed", _delayed), ("large", _large)):
        with tempfile.TemporaryDirectory(prefix="pm-", dir=parent) as directory:
            pool = Pool(Path(directory), workers=WORKERS)
            with pool, Sampler(pool, SAMPLE_S, memory_alone=True) as sampler:
                prove_one(report, pool, Path(directory) / "noted", large if prove_one is _large else tasks)
            report.figure(f"{name}: memory of the daemon, most", sampler.most_mb, "MB", at_most=MEMORY_MB)
    return report


def _queued(report: Report, pool: Pool, noted: Path, tasks: int) -> None:
    with pool.client() as client:
        client.pause("note")
        _hand_over(report, "queued", client, pool, noted, tasks)
    first_task_s = _start_again(report, "queued", pool, noted)
    with pool.client() as client:
        until(lambda: _lines(noted) >= RUN, "the first of them have run", timeout_s=PATIENCE_S)
        client.pause("note")
        known = client.status()["tasks"]
    report.figure("queued: known after the restart", _alive(known) + known["completed"], at_least=tasks)
    report.figure("queued: restart to the first task run", first_task_s, "s", at_most=SERVING_S)
    numbers = [int(line) for line in noted.read_text().split("\n")[:RUN]]
    report.figure("queued: order looked at", len(numbers), "tasks", at_least=RUN)
    furthest = max(abs(number - place) for place, number in enumerate(numbers))
    report.figure("queued: furthest out of place", furthest, "places", at_most=OUT_OF_PLACE)


def _delayed(report: Report, pool: Pool, noted: Path, tasks: int) -> None:
    with pool.client() as client:
        client.pause("note")
        _hand_over(report, "delayed", client, pool, noted, tasks - SOON, delay_s=DAY_S)
        soon = client.using(delay_s=0.001)
        for number in range(SOON):
            soon.submit("note", str(noted), number, PADDING)
        client.flush()
    first_task_s = _start_again(report, "delayed", pool, noted)
    until(lambda: _lines(noted) == SOON, "those that are due have run", timeout_s=PATIENCE_S)
    with pool.client() as client:
        known = client.status()["tasks"]
    report.figure("delayed: known after the restart", _alive(known) + known["completed"], at_least=tasks)
    report.figure("delayed: of them run, though they are not due", known["completed"] - SOON, at_most=0)
    report.figure("delayed: restart to the first due task run", first_task_s, "s", at_most=SERVING_S)


def _large(report: Report, pool: Pool, noted: Path, tasks: int) -> None:
    payload = bytes(LARGE_BYTES)
    with pool.client() as client:
        client.pause("note")
        began = time.perf_counter()
        for delay_s in (0.0, DUE_S):
            submit = client.using(delay_s=delay_s).submit
            for number in range(tasks):
                submit("note", str(noted), number, payload)
            client.flush()
        took_s = time.perf_counter() - began
        report.figure("large: handed over and acknowledged", 2 * tasks * LARGE_BYTES / 1e6 / took_s, "MB/s")
        report.figure("large: memory of the daemon then", resident_mb(pool.pid), "MB")
    _start_again(report, "large", pool, noted)
    until(lambda: _lines(noted) >= 2 * tasks, "all of them have run", timeout_s=PATIENCE_S)
    with pool.client() as client:
        until(lambda: client.status()["tasks"]["completed"] == 2 * tasks, "that is known")
    report.figure("large: run after the restart", _lines(noted), "tasks", at_least=2 * tasks, at_most=2 * tasks)


def _hand_over(
    report: Report, name: str, client: Client, pool: Pool, noted: Path, tasks: int, **options: float
) -> None:
    """Submit all tasks, as fast as they are taken; their futures are dropped."""
    submit = client.using(**options).submit
    file = str(noted)
    began = time.perf_counter()
    for number in range(tasks):
        submit("note", file, number, PADDING)
    client.flush()
    took_s = time.perf_counter() - began
    report.figure(f"{name}: handed over and acknowledged", tasks / took_s, "tasks/s")
    report.figure(f"{name}: database and log", size_mb(pool.state), "MB")
    report.figure(f"{name}: memory of the daemon then", resident_mb(pool.pid), "MB")


def _start_again(report: Report, name: str, pool: Pool, noted: Path) -> float:
    """Seconds from the start of the next daemon until the first task has run."""
    pool.kill()
    until(lambda: not pool.processes(), "all of it is gone")
    began = time.monotonic()
    pool.start(PATIENCE_S)
    with pool.client() as client:
        client.status()
        report.figure(f"{name}: restart to the first answer", time.monotonic() - began, "s", at_most=SERVING_S)
        until(noted.exists, "the first task has run", timeout_s=PATIENCE_S)
    return time.monotonic() - began


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _alive(known: dict[str, int]) -> int:
    return known["queued"] + known["scheduled"] + known["running"]

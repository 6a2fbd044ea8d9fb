"""Half an hour of everything at once, with kills: the daemon does not grow, its files are bounded, nothing is lost.

Clients hand over durable tasks, make calls, come and go; tasks are retried, die, wait, are cancelled, run in fresh
processes, carry a few bytes or some hundred KB; workers are killed every other second, and in the first minutes the
daemon is, three times. Results are kept for a minute, so that forgetting them is at work too.

The daemon that lives through the last 20 minutes is looked at each second. Its memory in a minute is the median of the
samples: what comes and goes moves the least and the most by one or two megabytes, and the median by 0.2. Through those
goes a straight line by least squares. The promise is on its slope, and on the slope's standard error: with a large one
the slope would say nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Final

from poolmgr import PoolError
from scripts.proofs.disk import file_system, real_disk
from scripts.proofs.pool import Pool
from scripts.proofs.report import Report
from scripts.proofs.samples import Sample, Sampler, floors, medians, slope
from scripts.proofs.soak_load import KINDS, Load

MINUTES: Final = 30.0
WORKERS: Final = 8
DAEMON_KILLS: Final = (1 / 60, 1 / 30, 1 / 15)  # when, as parts of the whole: a daemon grows in its first minutes
JUDGED: Final = 2 / 3  # of the whole, its end: that is looked at
KILL_A_WORKER_S: Final = 2.0
SAMPLES: Final = 1800
WINDOWS: Final = 20  # minutes, at scale 1
GROWTH_MB_PER_H: Final = 1.0
DISK_GROWTH: Final = 1.1  # the most of the second half of what is judged, against the most of its first half
DISK_SLACK_MB: Final = 8.0  # two times what the log may take
DESCRIPTORS_SLACK: Final = 5  # of clients that are just coming or going; what leaks with them would be hundreds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``scripts/prove soak`` can be told besides its scale."""
    parser.add_argument("--minutes", type=float, metavar="M", help=f"how long (default: {MINUTES:g})")


def prove(scale: float, minutes: float | None = None) -> Report:
    """``soak``: ``scale`` times 30 minutes of mixed load; or so many ``minutes``."""
    report = Report("soak")
    scale = scale if minutes is None else minutes / MINUTES
    whole_s = MINUTES * 60 * scale
    parent = real_disk()
    if parent is None:
        report.skip("a directory on a real disk (looked in TMPDIR and /var/tmp)")
        return report
    report.note(f"{whole_s:,.0f} s, {WORKERS} workers; state on {file_system(parent)}; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="pm-", dir=parent) as directory:
        # Tasks are to fail; and where a start takes as long as the time between two kills, one may meet them all.
        pool = Pool(Path(directory), workers=WORKERS, breaker_failures=0, poison_after=len(DAEMON_KILLS) + 1)
        with pool, Sampler(pool, whole_s / SAMPLES) as sampler:
            load = Load(pool)
            began = time.monotonic()
            workers, lives = _kill(pool, began, whole_s)
            ends = time.monotonic()
            load.finish()
        _tell_load(report, load, workers, len(lives))
        begins = max(began + (1 - JUDGED) * whole_s, *lives)
        judged = [each for each in sampler.samples if begins <= each.at <= ends]
        promised = scale >= 1
        judged_min = (ends - begins) / 60
        report.figure("what is judged", judged_min, "min", at_least=0.99 * JUDGED * MINUTES if promised else None)
        _tell_daemon(report, judged, (ends - begins) / WINDOWS, promised)
    return report


def _kill(pool: Pool, began: float, whole_s: float) -> tuple[int, list[float]]:
    """Kill workers until the time is over, and the daemon at its times; how many, and when each next daemon was up."""
    daemons_at = [began + part * whole_s for part in DAEMON_KILLS]
    chance = random.Random(1)
    workers = 0
    lives = []
    at = began
    while (at := at + KILL_A_WORKER_S) < began + whole_s:
        while (left_s := at - time.monotonic()) > 0:  # the load goes on; this is its clock
            time.sleep(left_s)
        if daemons_at and time.monotonic() >= daemons_at[0]:
            daemons_at.pop(0)
            pool.kill()
            pool.start()
            lives.append(time.monotonic())
        else:
            workers += _kill_a_worker(pool, chance)
    return workers, lives


def _kill_a_worker(pool: Pool, chance: random.Random) -> bool:
    try:
        with pool.client() as client:
            pid = chance.choice([worker.pid for worker in client.workers() if worker.pid is not None] or [0])
    except PoolError:
        return False
    if pid:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
    return pid != 0


def _tell_load(report: Report, load: Load, workers: int, daemons: int) -> None:
    report.figure("workers killed", workers, at_least=1)
    report.figure("daemons killed", daemons, at_least=len(DAEMON_KILLS))
    for kind in KINDS:
        report.figure(f"{kind}: as they should end", load.right[kind], at_least=1)
    report.figure("lost with their daemon, as calls are", load.excused.total())
    report.figure("acknowledged, and lost", len(load.lost), at_most=0)
    report.figure("with a wrong end", len(load.wrong), at_most=0)
    for line in [*load.lost[:3], *load.wrong[:3]]:
        report.note(line)


def _tell_daemon(report: Report, judged: list[Sample], window_s: float, promised: bool) -> None:
    """What the last daemon took. A short run promises no limits: the first minutes of a life do grow."""
    report.figure("daemons in what is judged", len({each.pid for each in judged}), at_most=1)
    memory = medians(judged, window_s, lambda each: each.memory_mb)
    line = slope(memory)
    report.note(f"memory, window by window: {' '.join(f'{value:.1f}' for _, value in memory)} MB")
    report.figure("memory at the begin of that", memory[0][1], "MB")
    report.figure("memory at the end of it", memory[-1][1], "MB")
    report.figure("slope of the memory", line.per_h, "MB/h", at_most=GROWTH_MB_PER_H if promised else None)
    report.figure("its standard error", line.error_per_h, "MB/h", at_most=GROWTH_MB_PER_H if promised else None)
    middle = len(judged) // 2
    first, second = (max(each.disk_mb for each in half) for half in (judged[:middle], judged[middle:]))
    report.figure("files at most, first half", first, "MB")
    bound = DISK_GROWTH * first + DISK_SLACK_MB
    report.figure("files at most, second half", second, "MB", at_most=bound if promised else None)
    for what, value, slack in (
        ("descriptors", lambda each: each.files, DESCRIPTORS_SLACK),
        ("threads", lambda each: each.threads, 0),
    ):
        least = [int(each) for _, each in floors(judged, window_s, value)]
        report.figure(f"{what} that stay, first window", least[0])
        report.figure(f"{what} that stay, last window", least[-1], at_most=least[0] + slack if promised else None)

"""Durable no-op tasks from one client, submit to result in hand: at FULL, at NORMAL, and beside three queues on Redis.

Every round is `Client.submit` of all tasks, then the result of each. At FULL a power loss loses nothing that was
acknowledged; Redis is set to the same (`appendfsync always`), on the same disk, which must be a real one. Rounds
alternate between ours and a peer, because machines and disks drift: what counts is the ratio of each pair. The price of
one fdatasync there is printed beside it all, and what a task costs each of our processes.

A scaled run is without the peers, and promises no speed.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.peer import Peer, make_environment
from poolmgr import Client
from scripts.proofs.chores import echo
from scripts.proofs.disk import fdatasync_us, file_system, real_disk
from scripts.proofs.pool import Pool
from scripts.proofs.report import Report

WORKERS: Final = 20
ROUNDS: Final = 5  # of each kind
TASKS: Final = 30_000  # a round of ours, at scale 1
PEER_ROUND_S: Final = 4.0  # a round of a peer has as many tasks as it does in about so long
FIRST_TASKS: Final = 300  # by which that is found out
PER_SECOND: Final = 15_000
RATIO: Final = 15.0
PEERS: Final = ("celery", "dramatiq", "huey")


def prove(scale: float) -> Report:
    """``durable-speed``: what is durable is fast, and faster than what is as durable."""
    report = Report("durable-speed")
    tasks, promised = max(500, int(TASKS * scale)), scale >= 1
    parent = real_disk()
    if parent is None:
        report.skip("a directory on a real disk (looked in TMPDIR and /var/tmp)")
        return report
    if promised:
        make_environment()
    with tempfile.TemporaryDirectory(prefix="pm-", dir=parent) as directory, ExitStack() as stack:
        report.note(f"{tasks:,} tasks a round, medians of {ROUNDS} rounds; state on {file_system(Path(directory))}")
        report.note(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        report.figure("fdatasync after 4 KiB, p50 before", fdatasync_us(Path(directory)), "us")
        full, normal = (
            stack.enter_context(Ours(Path(directory) / level.lower(), level)) for level in ("FULL", "NORMAL")
        )
        _ours(report, full, normal, tasks, promised)
        if promised:
            best = min(_beside(report, full, name, Path(directory), tasks) for name in PEERS)
            report.figure("against the best of them", best, "times", at_least=RATIO)
        report.figure("fdatasync after 4 KiB, p50 after", fdatasync_us(Path(directory)), "us")
    return report


def _ours(report: Report, full: Ours, normal: Ours, tasks: int, promised: bool) -> None:
    for each in (full, normal):
        each.round(tasks)  # to warm up
    rounds = [(full.round(tasks), normal.round(tasks)) for _ in range(ROUNDS)]
    at_full, at_normal = ([each.per_s for each in which] for which in zip(*rounds, strict=True))
    _spread(report, "FULL", at_full, "tasks/s", at_least=PER_SECOND if promised else None)
    _spread(report, "NORMAL", at_normal, "tasks/s")
    for part in Cpu._fields:
        value = statistics.median(getattr(each.cpu_us, part) for each, _ in rounds)
        report.figure(f"CPU of a task at FULL, {part.replace('_', ' ')}", value, "us")
    right = sum(each.right for pair in rounds for each in pair)
    report.figure("results that were right", right, at_least=2 * ROUNDS * tasks)


def _beside(report: Report, ours: Ours, name: str, directory: Path, tasks: int) -> float:
    """How many times as fast we are as one peer: the median of the pairs' ratios."""
    with Peer(name, directory, durable=True) as peer:
        report.note(peer.about)
        peer.ask("start", workers=peer.fastest)
        count = max(FIRST_TASKS, int(peer.ask("submit_rate", tasks=FIRST_TASKS)["rate"] * PEER_ROUND_S))
        pairs = [(ours.round(tasks).per_s, peer.ask("submit_rate", tasks=count)["rate"]) for _ in range(ROUNDS)]
    _spread(report, name, [theirs for _, theirs in pairs], "tasks/s")
    ratios = [mine / theirs for mine, theirs in pairs]
    _spread(report, f"poolmgr against {name}", ratios, "times")
    return statistics.median(ratios)


def _spread(report: Report, label: str, values: Sequence[float], unit: str, at_least: float | None = None) -> None:
    report.figure(f"{label}, median", statistics.median(values), unit, at_least=at_least)
    report.figure(f"{label}, least", min(values), unit)
    report.figure(f"{label}, most", max(values), unit)


class Cpu(NamedTuple):
    """Processor time of a task, in microseconds."""

    client: float
    daemon_loop: float
    daemon_store: float
    workers: float


class Round(NamedTuple):
    """What one round found."""

    per_s: float
    right: int  # results
    cpu_us: Cpu


class Ours(ExitStack):
    """A daemon and one client, as a context manager."""

    def __init__(self, directory: Path, synchronous: str) -> None:
        super().__init__()
        directory.mkdir()
        self._pool = Pool(directory, workers=WORKERS, synchronous=synchronous)
        self._client: Client

    def __enter__(self) -> Ours:
        super().__enter__()
        self.enter_context(self._pool)
        self._client = self.enter_context(self._pool.client())
        return self

    def round(self, tasks: int) -> Round:
        before = self._cpu_s()
        began = time.perf_counter()
        futures = [self._client.submit(echo, number) for number in range(tasks)]
        right = sum(future.result() == number for number, future in enumerate(futures))
        took_s = time.perf_counter() - began
        spent = Cpu(*((after - earlier) / tasks * 1e6 for after, earlier in zip(self._cpu_s(), before, strict=True)))
        return Round(tasks / took_s, right, spent)

    def _cpu_s(self) -> Cpu:
        """Spent so far, in seconds. The daemon's threads beside its loop are the store's."""
        daemon = Path(f"/proc/{self._pool.pid}")
        whole, loop = _cpu_s(daemon), _cpu_s(daemon / "task" / daemon.name)
        workers = sum(_cpu_s(Path(f"/proc/{pid}")) for pid in self._pool.children())
        return Cpu(time.process_time(), loop, whole - loop, workers)


def _cpu_s(process: Path) -> float:
    """User and system time of a process, or of one thread of it."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""Calls by an Executor, beside pool.submit and pool.map, and the standard library's executor.

All in one run on one machine, with as many workers each; nothing is durable. Each figure is the median of a few rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from poolmgr import Executor
from scripts.proofs.chores import echo
from scripts.proofs.pool import HERE, Pool
from scripts.proofs.report import Report
from scripts.proofs.speed import ROUNDS, latencies, rate, submit_all

WORKERS = 20
TASKS = 20_000
SEQUENTIAL = 2_000


def prove(scale: float) -> Report:
    """``executor``: what a future costs, against ``pool.submit``; and against ProcessPoolExecutor."""
    report = Report("executor")
    tasks, sequential = max(1000, int(TASKS * scale)), max(100, int(SEQUENTIAL * scale))
    with tempfile.TemporaryDirectory(prefix="pm-") as directory:
        pool = Pool(Path(directory), workers=WORKERS)
        pool.environ["PYTHONPATH"] = str(HERE.parents[1])
        with pool, pool.client() as client, Executor(client=client) as ours:
            submitted, called = _in_turn(lambda: submit_all(client, tasks), lambda: _call_all(ours, tasks), tasks)
            mapped, mapped_calls = _in_turn(
                lambda: sum(1 for _ in client.map(echo, range(tasks))),
                lambda: sum(1 for _ in ours.map(echo, range(tasks))),
                tasks,
            )
            run = latencies(lambda: ours.submit(echo, 1).result(), sequential)
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("fork")) as standard:
        peer_called = rate(lambda: _call_all(standard, tasks // 4), tasks // 4)
        peer_run = latencies(lambda: standard.submit(echo, 1).result(), sequential)
    promised = scale >= 1
    report.figure("pool.submit and result", submitted, "tasks/s")
    report.figure("Executor.submit and result", called, "calls/s")
    report.figure("... against pool.submit", called / submitted, "times")
    report.figure("pool.map", mapped, "tasks/s")
    report.figure("Executor.map", mapped_calls, "calls/s")
    report.figure("... against pool.map", mapped_calls / mapped, "times")
    report.figure("Executor.submit, one after the other: p50", run[0], "us")
    report.figure("Executor.submit, one after the other: p99", run[1], "us")
    report.figure("ProcessPoolExecutor.submit and result", peer_called, "calls/s")
    report.figure("ProcessPoolExecutor.submit, one after the other: p50", peer_run[0], "us")
    report.figure(
        "Executor.submit, against ProcessPoolExecutor.submit",
        called / peer_called,
        "times",
        at_least=2 if promised else 0,
    )
    return report


def _in_turn(one: Callable[[], object], other: Callable[[], object], tasks: int) -> tuple[float, float]:
    """Tasks a second of both: the medians of rounds that alternate, as the machine's other load comes and goes."""
    taken: tuple[list[float], list[float]] = ([], [])
    for round_ in range(ROUNDS + 1):  # the first warms up
        for work, times in zip((one, other), taken, strict=True):
            began = time.perf_counter()
            work()
            if round_:
                times.append(time.perf_counter() - began)
    return tasks / statistics.median(taken[0]), tasks / statistics.median(taken[1])


def _call_all(executor: StandardExecutor, calls: int) -> None:
    for future in [executor.submit(echo, number) for number in range(calls)]:
        future.result()

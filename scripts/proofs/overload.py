"""Ten times more work than the pool can do: what is CRITICAL is as quick as ever, memory is bounded, nothing is lost.

Tasks of 10 to 30 ms on 20 workers. First it is measured how many a second they can be. Then four clients offer a
quarter more than that, so that no worker is ever idle, and then ten times as many, in turn; meanwhile one more client
makes CRITICAL calls (priority 0), one after the other. Their latencies under both loads stand beside each other. All of
it with durable tasks and with calls, with and without ``max_queue_depth``. In the end every task that was not refused
must have completed, and the only refusals are those of a queue that is full.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.pairs import percentile
from poolmgr import Client
from scripts.proofs.disk import file_system, real_disk
from scripts.proofs.offered import CALLS, DURABLE, Clients, Offered, lengths
from scripts.proofs.pool import Pool
from scripts.proofs.report import Report
from scripts.proofs.samples import Sampler

WORKERS: Final = 20
TASK_S: Final = 0.020  # on average: half of it to three halves
TIMES: Final = 10  # the sustainable rate
BUSY: Final = 1.25  # times that: no worker is idle, and a queue is there
ROUNDS: Final = 3
SECONDS: Final = 4.0  # of offering, at scale 1
DEPTH: Final = 200  # max_queue_depth, where there is one
MEMORY_MB: Final = 300
P50_TIMES: Final = 2.0
P99_TIMES: Final = 3.0
_MEASURED: Final = 1_000  # tasks by which the sustainable rate is found
_SAMPLE_S: Final = 0.02
_CRITICAL: Final = 0


class _Latency(NamedTuple):
    """Of CRITICAL calls, in microseconds."""

    p50: float
    p99: float


class _Round(NamedTuple):
    """The same calls under both loads, and what became of the loads."""

    busy: _Latency
    over: _Latency
    offered: float  # times the sustainable rate
    ends: tuple[Offered, Offered]


def prove(scale: float) -> Report:
    """``overload``: CRITICAL work stays quick, memory bounded, and nothing is lost."""
    report = Report("overload")
    seconds, rounds = max(0.5, SECONDS * scale), max(1, round(ROUNDS * scale))
    report.note(f"{WORKERS} workers, tasks of {1000 * TASK_S:g} ms on average; {rounds} rounds of {seconds:g} s a load")
    with tempfile.TemporaryDirectory(prefix="pm-", dir=real_disk()) as name:
        report.note(f"state on {file_system(Path(name))}")
        per_s = 0.0
        for depth in (0, DEPTH):
            directory = Path(name) / str(depth)
            directory.mkdir()
            pool = Pool(directory, workers=WORKERS, max_queue_depth=depth)
            with pool, Sampler(pool, _SAMPLE_S, memory_alone=True) as sampler, pool.client() as client:
                title = f"max_queue_depth {depth}" if depth else "no limit"
                if not depth:  # all of these tasks are there at once, or nearly
                    per_s = _sustainable(client, directory / "never")
                    report.figure("sustainable rate", per_s, "tasks/s")
                for kind in (DURABLE, CALLS):
                    found = [
                        _round(pool, client, directory / f"{kind}-{number}", kind, per_s, seconds)
                        for number in range(rounds)
                    ]
                    _tell(report, f"{kind}, {title}", found, limited=bool(depth))
                report.figure(f"{title}: memory of the daemon, most", sampler.most_mb, "MB", at_most=MEMORY_MB)
    return report


def _sustainable(client: Client, never: Path) -> float:
    """Tasks a second, with every worker busy all the time."""
    _map(client, never, WORKERS)  # the first ones are not known to be as long as they are
    return _MEASURED / _map(client, never, _MEASURED)


def _map(client: Client, never: Path, tasks: int) -> float:
    began = time.perf_counter()
    for _ in client.map("rest_unless", [str(never)] * tasks, lengths(tasks, TASK_S)):
        pass
    return time.perf_counter() - began


def _round(pool: Pool, client: Client, release: Path, kind: str, per_s: float, seconds: float) -> _Round:
    busy, _, calm = _under(pool, client, release.with_suffix(".busy"), kind, BUSY * per_s, seconds)
    over, offered, ends = _under(pool, client, release.with_suffix(".over"), kind, TIMES * per_s, seconds)
    return _Round(busy, over, offered / per_s, (calm, ends))


def _under(
    pool: Pool, client: Client, release: Path, kind: str, per_s: float, seconds: float
) -> tuple[_Latency, float, Offered]:
    """The latency of CRITICAL calls while so much is offered; how much that was; what became of it."""
    with Clients(pool.socket, release, kind, per_s, seconds, TASK_S) as clients:
        clients.begun()
        taken_us = list(_critical(client, seconds))
        offered = clients.offered()
        return _Latency(percentile(taken_us, 50), percentile(taken_us, 99)), offered, clients.ended()


def _critical(client: Client, seconds: float) -> Iterator[float]:
    """How long each call takes, in microseconds."""
    run = client.using(priority=_CRITICAL).run
    give_up_at = time.perf_counter() + seconds
    while (began := time.perf_counter()) < give_up_at:
        assert run("echo", 1) == 1
        yield 1e6 * (time.perf_counter() - began)


def _tell(report: Report, title: str, rounds: Sequence[_Round], *, limited: bool) -> None:
    promised = len(rounds) >= ROUNDS  # a scaled run only shows that it works
    offered = statistics.median(each.offered for each in rounds)
    report.figure(f"{title}: offered", offered, "times", at_least=0.9 * TIMES if promised else None)
    for name, at_most in (("p50", P50_TIMES), ("p99", P99_TIMES)):
        busy = [getattr(each.busy, name) for each in rounds]
        over = [getattr(each.over, name) for each in rounds]
        report.figure(f"{title}: CRITICAL {name}, busy", statistics.median(busy), "us")
        report.figure(f"{title}: CRITICAL {name}, overloaded", statistics.median(over), "us")
        times = statistics.median(after / before for before, after in zip(busy, over, strict=True))
        report.figure(f"{title}: CRITICAL {name}", times, "times", at_most=at_most if promised else None)
    ends = [end for each in rounds for end in each.ends]
    tasks, refused = sum(end.tasks for end in ends), sum(end.refused for end in ends)
    report.figure(f"{title}: tasks offered", tasks)
    report.figure(f"{title}: refused, the queue was full", refused, at_least=int(limited), at_most=tasks * limited)
    report.figure(f"{title}: ended neither so nor so", sum(sum(end.otherwise.values()) for end in ends), at_most=0)
    completed = sum(end.completed for end in ends)
    report.figure(f"{title}: taken, and not completed", tasks - refused - completed, at_most=0)

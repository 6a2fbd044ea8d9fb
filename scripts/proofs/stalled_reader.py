"""A reader that stands still before a stream of 10 GB costs the daemon no memory, and other clients no time.

The stream is ``chores.flood``, in chunks of 1 MB. Its reader takes five chunks, and no more. Once the task waits for
it, other clients make calls, and so they do when there is no stream, in turns: what the 99th percentile of their times
is with it and without it is compared over all turns. Each has two halves, which are judged each by itself: what has
just begun to stand still has just moved 10 MB, which its disk may still be at. That is done with a stream that is
durable, and with one that is not. Then both are read to their ends, and the daemon's memory is looked at as they go by.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from poolmgr import Client
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

STREAM_MB: Final = 10 * 1024
CHUNK_BYTES: Final = 1 << 20
TAKEN: Final = 5
WORKERS: Final = 4
TURNS: Final = 30
CALLS: Final = 300  # of each client in one turn
CLIENTS: Final = 2
_LOOK_S: Final = 0.05


def prove(scale: float) -> Report:
    """``scale`` times 10 GB, and 30 turns."""
    report = Report("stalled-reader")
    size = max(64, round(STREAM_MB * scale))
    turns = max(3, round(TURNS * scale))
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as folder, Pool(Path(folder), workers=WORKERS) as pool:
        for durable in (False, True):
            kind = "durable" if durable else "not durable"
            with pool.client() as client:
                _compare(report, pool, client, size, turns, durable=durable)
                grown_mb, took_s = _read_through(pool, client, size, durable=durable)
            report.figure(f"{kind}: daemon grows, read to its end", grown_mb, "MB", at_most=100)
            report.figure(f"{kind}: read at", size / took_s, "MB/s")
    return report


def _compare(report: Report, pool: Pool, client: Client, size: int, turns: int, *, durable: bool) -> None:
    kind = "durable" if durable else "not durable"
    with Load(pool) as load:
        load.turn()
        before_mb = resident_mb(pool.pid)
        grown_mb = 0.0
        times: dict[bool, list[float]] = {False: [], True: []}
        at_once: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(2 * turns):
            if turn % 2:
                with _stalled(client, size, durable=durable) as kept:
                    at_once[True] += load.turn()
                    times[True] += load.turn()
                    grown_mb = max(grown_mb, resident_mb(pool.pid) - before_mb)
                assert kept < 40, f"{kept} chunks came, and nobody took them"
            else:
                at_once[False] += load.turn()
                times[False] += load.turn()
    report.figure(f"{kind}: daemon grows, its reader stands still", grown_mb, "MB", at_most=100)
    for half, found in (("at once", at_once), ("then", times)):
        with_it, without = (_p99(found[stalled]) * 1000 for stalled in (True, False))
        report.figure(f"{kind}: calls of others {half}, p99, with it", with_it, "ms")
        report.figure(f"{kind}: calls of others {half}, p99, without", without, "ms")
        report.figure(f"{kind}: p99 {half} with it, of that without", with_it / without, at_most=1.2)


@contextmanager
def _stalled(client: Client, size: int, *, durable: bool) -> Iterator[int]:
    """A stream that waits for its reader; how many of its chunks the daemon has."""
    with client.using(durable=durable, timeout_s=None).stream("flood", size, CHUNK_BYTES) as stream:
        for _ in range(TAKEN):
            next(stream)
        until(lambda: client.task(stream.id).waiting_for_reader, "it waits")
        yield client.task(stream.id).chunks
    if durable:
        client.cancel(stream.id)
    until(lambda: client.metrics()["streams"]["live"] == 0, "it has ended")
    if durable:
        client.purge(stream.id)


def _read_through(pool: Pool, client: Client, size: int, *, durable: bool) -> tuple[float, float]:
    """By how much the daemon grows at most, as it is read, and how long that takes."""
    before_mb = largest_mb = resident_mb(pool.pid)
    began = looked = time.monotonic()
    count = 0
    for chunk in client.using(durable=durable, timeout_s=None).stream("flood", size, CHUNK_BYTES):
        count += len(chunk)
        if time.monotonic() > looked + _LOOK_S:
            looked = time.monotonic()
            largest_mb = max(largest_mb, resident_mb(pool.pid))
    assert count == size << 20, f"{count} bytes came of {size} MB"
    return largest_mb - before_mb, time.monotonic() - began


class Load:
    """Clients that call, one call after the other, when they are told to."""

    def __init__(self, pool: Pool) -> None:
        self._clients = [pool.client() for _ in range(CLIENTS)]

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._clients:
            each.close()

    def turn(self) -> list[float]:
        """What each call took, in seconds."""
        took: list[float] = []
        threads = [threading.Thread(target=_call, args=(each, took.append)) for each in self._clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return took


def _call(client: Client, tell: Callable[[float], None]) -> None:
    for number in range(CALLS):
        began = time.perf_counter()
        client.run("echo", number)
        tell(time.perf_counter() - began)


def _p99(took: list[float]) -> float:
    return statistics.quantiles(took, n=100)[98]


def resident_mb(pid: int) -> float:
    """What of a process is in memory, files that it shares with others included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)

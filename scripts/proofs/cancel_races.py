"""10,000 tasks are cancelled at about the time at which they end: each has the end that the answer says, no other's.

Four clients, each with a task of 1 to 3 ms that it cancels at some time up to 4 ms later, every third by a kill; and
behind it another task, that nobody cancels, and that may find itself in the same worker.
"""

from __future__ import annotations

import random
import select
import tempfile
import threading
from collections import Counter
from pathlib import Path

from poolmgr import Client, PoolError, TaskFuture
from poolmgr.errors import NotFound, TaskCancelled
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

RACES = 10_000
CLIENTS = 4
WORKERS = 20


def prove(scale: float) -> Report:
    """Race ``scale`` times 10,000 cancels against the ends of their tasks."""
    report = Report("cancel-races")
    races = max(100, round(RACES * scale)) // CLIENTS
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
        pool = Pool(Path(directory), workers=WORKERS)
        with pool, pool.client() as client:
            racers = [threading.Thread(target=_race, args=(pool, seed, races, seen)) for seed in range(CLIENTS)]
            for racer in racers:
                racer.start()
            for racer in racers:
                racer.join()
            ready = until(lambda: _ready(client) == WORKERS and WORKERS, "all workers are ready")
            slots = len(client.workers())
            dead = len(client.dead_letters())
            spawned = client.metrics()["workers"]["spawned"] - WORKERS
    report.figure("races", seen["races"], at_least=races * CLIENTS)
    for label in ("cancelled before it began or by a kill", "completed, and so answered"):
        report.figure(label, seen[label], at_least=1)
    report.figure("workers killed for it", spawned)
    report.figure("with another end than the answer", seen["other end"], at_most=0)
    report.figure("others that did not complete", seen["victims"], at_most=0)
    report.figure("dead letters", dead, at_most=0)
    report.figure("slots", slots, at_least=WORKERS, at_most=WORKERS)
    report.figure("  ready", ready, at_least=WORKERS)
    return report


def _race(pool: Pool, seed: int, races: int, seen: Counter[str]) -> None:
    chance = random.Random(seed)
    found: Counter[str] = Counter()
    with pool.client() as client:
        calls = client.using(durable=False, max_retries=0)
        for number in range(races):
            raced = calls.submit("square_slowly", number, chance.uniform(0.001, 0.003))
            other = calls.submit("square_slowly", number, 0.0)
            select.select([], [], [], chance.uniform(0.0, 0.004))
            cancelled = _cancel(client, raced, kill=number % 3 == 0)
            found["races"] += 1
            end = _end(raced, number)
            if end == ("cancelled" if cancelled else "completed"):
                found["cancelled before it began or by a kill" if cancelled else "completed, and so answered"] += 1
            else:
                found["other end"] += 1
            found["victims"] += _end(other, number) != "completed"
    seen.update(found)


def _cancel(client: Client, future: TaskFuture[int], *, kill: bool) -> bool:
    try:
        return client.cancel(future.id, kill=kill)
    except NotFound:  # a call that has ended is forgotten
        return False


def _end(future: TaskFuture[int], number: int) -> str:
    try:
        return "completed" if future.result(timeout=30) == number * number else "wrong"
    except TaskCancelled:
        return "cancelled"
    except PoolError as error:
        return error.code


def _ready(client: Client) -> int:
    return sum(worker.state == "ready" for worker in client.workers())

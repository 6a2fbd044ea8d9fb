"""Streams that are cut at every place go on: their readers see each chunk once, and the same bytes, whatever was cut.

Each stream is one of ``chores.pages``: 100 chunks of 0 to 200 KB, most of them small, and a checkpoint after some. What
its reader sees is compared with what the same generator yields here. Streams are cut in four ways: the task is asked to
give way (as it makes each of its chunks, and at random), its worker is killed, the daemon is killed, or it is stopped;
each as the reader has a random chunk. Under the next daemon the reader goes on by itself.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from poolmgr import Client, TaskFuture
from poolmgr.errors import ConnectionLost, NotFound, WrongState
from poolmgr.model import TaskInfo
from scripts.proofs.chores import page
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

CHUNKS: Final = 100
CUTS: Final = 1000  # at random places, beside those at every place
WORKERS: Final = 8
SHARES: Final = {"given way": 0.3, "worker killed": 0.5, "daemon killed": 0.1, "daemon stopped": 0.1}
_CUTS_A_STREAM: Final = 10
_LIVES_A_STREAM: Final = 2  # of daemons, that end under a task; then it would have to run alone
_EVERY: Final = 7  # chunks between two checkpoints of the streams that make any


def prove(scale: float) -> Report:
    """Cut streams ``scale`` times 1,000 times; and one at every ``1 / scale``-th of its chunks."""
    report = Report("stream-cuts")
    cuts = max(20, round(CUTS * scale))
    chance = random.Random(cuts)
    settings: dict[str, Any] = {"breaker_failures": 0, "poison_after": 10_000, "graceful_shutdown_timeout_s": 0.5}
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as folder:
        pool = Pool(Path(folder), workers=WORKERS, **settings)
        with pool:
            cutter = Cutter(pool, chance)
            places = range(0, CHUNKS, max(1, round(1 / scale)))
            cutter.at_every_chunk(places, Path(folder))
            for how, share in SHARES.items():
                cutter.at_random(how, max(2, round(cuts * share)))
            cutter.close()
            with pool.client() as client:
                again = sum(_same(client, id, seed) for id, seed in cutter.streams.items())
    _tell(report, cutter, cuts, len(places), again)
    return report


def _tell(report: Report, cutter: Cutter, cuts: int, places: int, again: int) -> None:
    report.figure("streams of 100 chunks", len(cutter.streams))
    report.figure("gave way at each of its chunks", cutter.places, at_least=3 * places)
    report.figure("random cuts", cutter.made.total(), at_least=cuts)
    for how, count in cutter.made.items():
        report.figure(f"  {how}", count)
    report.figure("attempts", cutter.attempts)
    report.figure("streams whose reader saw other bytes", len(cutter.wrong), at_most=0)
    report.figure("streams that read the same once more", again, at_least=len(cutter.streams))
    for text in cutter.wrong[:3]:
        report.note(text)


def _same(client: Client, id: str, seed: int) -> bool:
    return list(client.chunks(id)) == expected(seed)


def expected(seed: int) -> list[bytes]:
    """What a stream yields that nobody cuts."""
    return [page(seed, number) for number in range(CHUNKS)]


class Cutter:
    """Runs streams, reads them, and cuts them as they go."""

    def __init__(self, pool: Pool, chance: random.Random) -> None:
        self.streams: dict[str, int] = {}  # by their ids, what they are made of
        self.made: Counter[str] = Counter()
        self.places = 0
        self.attempts = 0
        self.wrong: list[str] = []
        self._pool = pool
        self._chance = chance
        self._client = pool.client()
        self._seed = 0

    def close(self) -> None:
        """No more."""
        self._client.close()

    def at_every_chunk(self, places: range, folder: Path) -> None:
        """Streams whose tasks are asked to give way as they make each of these chunks; they do when that is yielded."""
        for every in (0, _EVERY, 1):
            gates = folder / f"gates-{every}"
            gates.mkdir()
            future = self.submit("gated_pages", every, str(gates))
            with ThreadPoolExecutor(1) as reader:
                seen = reader.submit(list, iter(future))
                for number in range(CHUNKS):
                    if number in places:
                        self._give_way_at(future, number, gates)
                        self.places += 1
                    (gates / str(number)).touch()
                self.check(future.id, seen.result())

    def _give_way_at(self, future: TaskFuture[Any], number: int, gates: Path) -> None:
        attempt = until(lambda: self.task(future.id).attempt)
        until(lambda: future.progress == (number / CHUNKS, str(attempt)), f"attempt {attempt} makes chunk {number}")
        assert self._client.preempt(future.id), "it runs, and is not asked"
        (gates / str(number)).touch()
        until(lambda: self.task(future.id).attempt > attempt or number == CHUNKS - 1, "another attempt goes on")

    def at_random(self, how: str, cuts: int) -> None:
        """Cut streams at random places, until so many cuts are made."""
        before = self.made[how]
        while self.made[how] - before < cuts:
            if how.startswith("daemon"):
                self._cut_all(how)
            else:
                self._cut_one(how, min(_CUTS_A_STREAM, cuts - (self.made[how] - before)))

    def _cut_one(self, how: str, cuts: int) -> None:
        stream = Read(self, self._chance.choice((0, _EVERY, 1)))
        cut = self._give_way if how == "given way" else self._kill_worker
        for place in sorted(self._chance.choices(range(CHUNKS), k=cuts)):
            if stream.to(place) and cut(stream.id):
                self.made[how] += 1
        stream.finish()

    def _cut_all(self, how: str) -> None:
        """End the daemon under as many streams as there are workers."""
        streams = [Read(self, self._chance.choice((0, _EVERY, 1))) for _ in range(WORKERS)]
        with ThreadPoolExecutor(WORKERS) as threads:
            for _ in range(_LIVES_A_STREAM):
                places = [self._chance.randrange(CHUNKS) for _ in streams]
                list(threads.map(Read.to, streams, places))
                self.made[how] += sum(self.task(stream.id).state == "running" for stream in streams)
                if how == "daemon killed":
                    self._pool.kill()
                else:
                    self._pool.stop()
                until(lambda: not self._pool.processes(), "nothing of it is left")
                self._pool.start()
            list(threads.map(Read.finish, streams))

    def _give_way(self, id: str) -> bool:
        before = self.task(id).attempt
        try:
            if not self._client.preempt(id):
                return False
        except (NotFound, WrongState):
            return False
        return self._until(id, lambda: self.task(id).attempt > before)

    def _kill_worker(self, id: str) -> bool:
        pid = self._runs_in(id)
        if not pid:
            return False
        os.kill(pid, signal.SIGKILL)
        return self._until(id, lambda: self._runs_in(id) not in (0, pid))

    def _runs_in(self, id: str) -> int:
        """The process that runs a task; 0: none does."""
        return next((each.pid or 0 for each in self._client.workers() if each.current_task == id), 0)

    def _until(self, id: str, goes_on: Callable[[], bool]) -> bool:
        """Whether it goes on after a cut. Else it has just ended."""

        def what() -> str:
            if goes_on():
                return "goes on"
            return "ended" if self.task(id).ended_at is not None else ""

        return until(what, "a stream goes on that was cut") == "goes on"

    def task(self, id: str) -> TaskInfo:
        """What is known of a stream. The connection may be one that has broken."""
        while True:
            with suppress(ConnectionLost):
                return self._client.task(id)

    def submit(self, name: str, every: int, *arguments: Any) -> TaskFuture[Any]:
        """A new stream: its future."""
        self._seed += 1
        patient = self._client.using(max_retries=10_000, retry_backoff_s=0.0, timeout_s=None)
        future = patient.submit(name, self._seed, CHUNKS, every, *arguments)
        self.streams[future.id] = self._seed
        return future

    def check(self, id: str, seen: list[bytes]) -> None:
        """A reader has come to the end."""
        self.attempts += self.task(id).attempt
        wanted = expected(self.streams[id])
        if seen != wanted:
            at = next((n for n, (a, b) in enumerate(zip(seen, wanted, strict=False)) if a != b), min(len(seen), CHUNKS))
            self.wrong.append(f"stream {self.streams[id]}: {len(seen)} chunks, another from {at} on")


class Read:
    """One stream and its reader, which goes on when it is told to."""

    def __init__(self, cutter: Cutter, every: int) -> None:
        self._cutter = cutter
        self._future = cutter.submit("pages", every)
        self.id: str = self._future.id
        self._stream: Iterator[bytes] = iter(self._future)
        self._seen: list[bytes] = []

    def to(self, place: int) -> bool:
        """Read up to this chunk, and that one; whether it has not come so far before."""
        if place < len(self._seen) - 1:
            return False
        while len(self._seen) <= place:
            self._seen.append(next(self._stream))
        return True

    def finish(self) -> None:
        """Read the rest."""
        self._seen += self._stream
        self._cutter.check(self.id, self._seen)

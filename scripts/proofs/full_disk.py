"""A full disk, or a locked database, costs nothing that was acknowledged; and what needs no disk goes on.

The state directory is a tmpfs of a few megabytes, which is filled to the last byte while tasks run and wait. From the
moment that the daemon knows: durable submits are refused with ``store_unavailable``, none is started, and the results
of those that ran are held back; calls, which are not durable, go on, and the daemon does not grow. Then there is room
again, and everything ends as if nothing had been. In every third round another process holds the database's lock in
the place of the full disk, and in every third the daemon is killed meanwhile, and cannot start until there is room.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from poolmgr import Client, PoolError, TaskFuture
from poolmgr.config.locations import DATABASE
from poolmgr.errors import StoreUnavailable
from poolmgr.manager import procfs
from scripts.proofs.marks import result
from scripts.proofs.pool import NotStarted, Pool, until
from scripts.proofs.report import Report
from scripts.proofs.small_disk import SmallDisk, can_mount

ROUNDS: Final = 12
WORKERS: Final = 4
WAITING: Final = 30  # durable tasks behind those that run
REFUSALS: Final = 2_000  # durable submits meanwhile, of 4 KB each
CALLS: Final = 200
SIZE_MB: Final = 8
FULL, LOCKED, KILLED = "full", "locked", "full, and the daemon is killed"
_KINDS: Final = (FULL, KILLED, LOCKED)
_REASONS: Final = {FULL: "the disk is full", KILLED: "the disk is full", LOCKED: "another process has locked it"}
_LEAK_MB: Final = 4.0
# Another process, which holds the lock until its standard input ends.
_LOCK: Final = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


def prove(scale: float) -> Report:
    """``scale`` times 12 rounds."""
    report = Report("full-disk")
    if not can_mount():
        report.skip("a small tmpfs to fill: none can be mounted here")
        return report
    rounds = max(len(_KINDS), round(ROUNDS * scale))
    found: Counter[str] = Counter()
    sizes_mb: list[float] = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
            _Round(Path(directory), _KINDS[number % len(_KINDS)], found, sizes_mb).run()
    held = rounds * WORKERS
    report.figure("disks filled, or databases locked", rounds, at_least=rounds)
    report.figure("durable submits meanwhile", rounds * REFUSALS)
    report.figure("of them refused, store_unavailable", found["refused"], at_least=rounds * REFUSALS)
    report.figure("refusals that say why", found["reasons"], at_least=rounds * REFUSALS)
    report.figure("growth of the daemon, at most", max(sizes_mb), "MB", at_most=_LEAK_MB)
    report.figure("calls meanwhile, with the right result", found["calls"], at_least=rounds * CALLS)
    report.figure("durable tasks that were started", found["started"], at_most=0)
    report.figure("results that were held back", found["held"], at_least=held)
    report.figure("daemons killed that did not start on a full disk", found["not started"])
    report.figure("of them, without saying why", found["without the reason"], at_most=0)
    report.figure("acknowledged tasks", found["acknowledged"])
    report.figure("acknowledged and lost", found["acknowledged"] - found["right"], at_most=0)
    report.figure("submits in doubt, and then accepted", found["in doubt"])
    return report


class _Round:
    """One daemon, from the time in which all is well to the time in which it is so again."""

    def __init__(self, directory: Path, kind: str, found: Counter[str], sizes_mb: list[float]) -> None:
        self._kind = kind
        self._found = found
        self._sizes_mb = sizes_mb
        self._gate = directory / "gate"
        self._marks = directory / "marks"
        self._marks.touch()
        self._pool = Pool(directory, app="marks", workers=WORKERS)
        self._pool.state.mkdir(mode=0o700)
        self._pool.environ["MARKS"] = str(self._marks)
        self._calls = 0

    def run(self) -> None:
        with SmallDisk(self._pool.state, SIZE_MB) as disk:
            self._pool.command[:0] = disk.enter(self._pool.app_directory)
            with self._pool as pool:
                client = pool.client()
                running = [client.submit("work_until", number, str(self._gate)) for number in range(WORKERS)]
                waiting = [client.submit("work", number, 0.0, 0, 16) for number in range(WAITING)]
                client.flush()
                until(lambda: self._runs() == WORKERS, "all workers are busy")
                with self._trouble(disk):
                    accepted, in_doubt = self._refused(client)
                    self._goes_on(client, running)
                    up = self._kind != KILLED or self._starts_again(client)
                if self._kind == KILLED:
                    client, in_doubt = (pool if up else pool.start()).client(), []
                self._all_end(client, [*running, *waiting, *accepted], in_doubt)
                client.close()

    @contextmanager
    def _trouble(self, disk: SmallDisk) -> Iterator[None]:
        if self._kind == LOCKED:
            with subprocess.Popen(
                [*disk.enter(self._pool.app_directory), sys.executable, "-c", _LOCK, str(self._pool.state / DATABASE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as other:
                assert other.stdout is not None
                assert other.stdout.readline() == b"locked\n"
                yield
                other.communicate()
        else:
            disk.fill()
            yield
            disk.free()

    def _runs(self) -> int:
        return self._marks.read_bytes().count(b"\n")

    def _refused(self, client: Client) -> tuple[list[TaskFuture[bytes]], list[TaskFuture[bytes]]]:
        """Submit until the first is refused, and then many. Which were accepted before, and which are in doubt."""
        accepted, in_doubt = [], []
        while client.status()["store"]["error"] is None:
            future = client.submit("work", 0, 0.0, 0, 16, bytes(4096))
            try:
                future.accepted(timeout=0.1)
            except TimeoutError:
                in_doubt.append(future)
            except StoreUnavailable:
                pass
            else:
                accepted.append(future)
        before_mb = procfs.resident_mb(self._pool.pid)
        futures = [client.submit("work", 0, 0.0, 0, 16, bytes(4096)) for _ in range(REFUSALS)]
        for future in futures:
            try:
                future.accepted(timeout=30)
            except StoreUnavailable as error:
                self._found["refused"] += 1
                self._found["reasons"] += _REASONS[self._kind] in str(error)
        self._sizes_mb.append(procfs.resident_mb(self._pool.pid) - before_mb)
        return accepted, in_doubt

    def _goes_on(self, client: Client, running: list[TaskFuture[bytes]]) -> None:
        """Those that run end, and their workers make calls, but start nothing durable."""
        self._gate.touch()
        until(lambda: {worker.state for worker in client.workers()} == {"ready"}, "all workers are idle")
        before = self._runs()
        for number in range(CALLS):
            self._found["calls"] += client.run("work", number, 0.0, 0, 16) == result(number, 16)
        self._found["started"] += self._runs() - before - CALLS
        self._found["held"] += sum(not future.done() for future in running)

    def _starts_again(self, client: Client) -> bool:
        """Whether it does, killed while the disk is full."""
        self._pool.kill()
        client.close()
        try:
            self._pool.start()
        except NotStarted as error:
            self._found["not started"] += 1
            self._found["without the reason"] += "the disk is full" not in error.text
            return False
        return True

    def _all_end(self, client: Client, kept: list[TaskFuture[bytes]], in_doubt: list[TaskFuture[bytes]]) -> None:
        numbers = [*range(WORKERS), *range(WAITING)]
        numbers += [0] * (len(kept) - len(numbers))
        self._found["acknowledged"] += len(kept)
        for number, future in zip(numbers, kept, strict=True):
            self._found["right"] += _result(client, future.id) == result(number, 16)
        self._found["in doubt"] += sum(future.result(timeout=30) == result(0, 16) for future in in_doubt)


def _result(client: Client, id: str) -> bytes | None:
    """None where it is lost."""
    try:
        found: bytes = client.result(id, timeout=30)
    except PoolError:
        return None
    return found

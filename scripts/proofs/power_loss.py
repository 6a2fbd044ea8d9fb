"""The power fails after every write, and amid 1,000 others in any order: what was acknowledged is there.

A process drives the SQLite store through hundreds of commits, with checkpoints, truncated logs, closes and openings,
under strace. disk_model.py says what the disk may hold, by POSIX alone: after every system call, all that was written
until then, and only what was synced; and at 1,000 random calls, of what was written since the last sync any sectors.
Each of these is opened. At FULL it must hold every step that was done when the power failed, and of the one that was
under way all or nothing; at NORMAL it may lack the last ones, and must be whole. The same while an old file migrates.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from poolmgr.config.locations import DATABASE
from poolmgr.core.shelf import START
from poolmgr.errors import StoreUnavailable
from poolmgr.store.schema import load_migrations
from poolmgr.store.sqlite import SqliteStore
from scripts.proofs.disk_model import Disk, Image
from scripts.proofs.pool import HERE
from scripts.proofs.recorded import Steps
from scripts.proofs.report import Report
from scripts.proofs.traced import Call, record

STEPS: Final = 100  # of each recording
REORDERINGS: Final = 1000  # for each level of ``synchronous``
LEVELS: Final = ("FULL", "NORMAL")
OLD_TASKS: Final = 50
STATE: Final = "state"  # the state directory, in a directory that was there before
# Where images are made and opened: thousands of times, so where a sync costs nothing.
_FAST: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Recording(NamedTuple):
    """What was done to a directory that held ``before``, and the digests of what the store held after each step."""

    before: Image
    calls: list[Call]
    digests: list[str]


class Promise(NamedTuple):
    """What was certain and what was possible at one moment: steps done, steps begun; the last epoch that began."""

    done: int = 0
    begun: int = 0
    epoch: int = 0

    def after(self, said: bytes) -> Promise:
        """It has said so."""
        word, number, *epoch = said.split()
        if word == b"begins":
            return self._replace(begun=int(number))
        return Promise(int(number), self.begun, int(epoch[0]) if epoch else self.epoch)


def prove(scale: float) -> Report:
    """With ``scale`` times as many steps and reorderings."""
    report = Report("power-loss")
    if shutil.which("strace") is None:
        report.skip("the writes of the store: there is no strace")
        return report
    steps, reorderings = max(8, round(STEPS * scale)), max(10, round(REORDERINGS * scale))
    for level in LEVELS:
        recording = _record(level, f"{level} {steps}", steps, {})
        _lose_power(report, level, recording, reorderings, level == "FULL")
    _lose_power(report, "migration", _record("FULL", "old", 2, _old_file()), reorderings // 10, True)
    return report


def _record(level: str, seed: str, steps: int, before: Image) -> Recording:
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as place:
        directory = Path(place) / "disk"
        _write(before, directory)
        command = [sys.executable, "-P", str(HERE / "recorded.py"), str(directory / STATE), level, seed, str(steps)]
        calls = record(command, directory, Path(place) / "trace")
    with tempfile.TemporaryDirectory(prefix="poolmgr-", dir=_FAST) as place:
        digests = list(_digests(before, Path(place), seed, steps))
    return Recording(before, calls, digests)


def _digests(before: Image, directory: Path, seed: str, steps: int) -> Iterator[str]:
    """What a store holds before the first step, and after each."""
    _write(before, directory)
    path = directory / STATE / DATABASE
    path.parent.mkdir(exist_ok=True)
    store = SqliteStore(path, synchronous="NORMAL")
    store.open()
    yield _digest(store)
    for step in Steps(seed).draw(steps):
        step.take(store)
        yield _digest(store)
    store.close()


def _digest(store: SqliteStore) -> str:
    """Of all that a store can tell."""
    found = hashlib.sha256()
    for info in store.tasks(limit=1_000_000):
        id = bytes.fromhex(info.id)
        found.update(repr((store.task(id), store.record(id), store.outcome(id))).encode())
    found.update(repr([record.id for record in store.in_hand()]).encode())
    for line, tasks, _ in store.shelves():
        found.update(repr([record.id for record in store.shelf(line, START, tasks)]).encode())
    return found.hexdigest()


def _old_file() -> Image:
    """A file of the first schema, with tasks."""
    with tempfile.TemporaryDirectory(prefix="poolmgr-") as place:
        path = Path(place) / DATABASE
        connection = sqlite3.connect(path)
        connection.executescript(f"PRAGMA journal_mode = WAL; {load_migrations()[0]} PRAGMA user_version = 1;")
        row = """
            INSERT INTO tasks (id, name, "group", position, options, state, submitted_at,
                               attempt, failures, kills, interruptions, payload)
            VALUES (?, 'work', 'g', ?, x'80', 'queued', 1.0, 0, 0, 0, 0, x'c0')
        """
        connection.executemany(row, [(number.to_bytes(16), number) for number in range(OLD_TASKS)])
        connection.commit()
        connection.close()
        return {f"{STATE}/{DATABASE}": path.read_bytes()}


# ---------------------------------------------------------------------------------------- losing it


def _lose_power(report: Report, title: str, recording: Recording, reorderings: int, full: bool) -> None:
    chance = random.Random(title)
    disk, promise = Disk(recording.before), Promise()
    drawn = Counter(chance.randrange(len(recording.calls)) for _ in range(reorderings))
    found: Counter[str] = Counter()
    for number, call in enumerate(recording.calls):
        if call.call == "say":
            promise = promise.after(call.data)
            continue
        disk.apply(call)
        found["calls"] += 1
        found["syncs"] += call.call == "sync"
        found["checkpoints"] += call == Call("sync", f"{STATE}/{DATABASE}")
        images = [disk.whole()] if disk.certain else [disk.whole(), disk.least()]
        found["prefixes"] += len(images)
        images += [disk.any(chance) for _ in range(drawn[number])]
        for image in images:
            kind, why = _recovered(image, promise, recording.digests, full)
            found[kind] += 1
            if kind not in ("whole", "shorter"):
                report.note(
                    f"{title}: {kind}, of {len(images)} images at call {number}, {call.call} {call.name}: {why}"
                )
    report.note(
        f"{title}: {promise.done} steps, {found['calls']} calls, {found['syncs']} of them syncs, "
        f"{found['checkpoints']} of the database itself"
    )
    report.figure(f"{title}: prefixes recovered", found["prefixes"], at_least=found["calls"])
    report.figure(f"{title}: reorderings recovered", drawn.total(), at_least=reorderings)
    report.figure(f"{title}: whole, up to the last step done", found["whole"], at_least=1)
    if not full:
        report.figure(f"{title}: whole, without the last ones", found["shorter"], at_least=1)  # it does lose
    report.figure(f"{title}: steps that were done, and lost", found["lost"], at_most=0)
    report.figure(f"{title}: half a step, or another state", found["torn"], at_most=0)
    report.figure(f"{title}: not to be opened, or damaged", found["damaged"], at_most=0)


def _recovered(image: Image, promise: Promise, digests: list[str], full: bool) -> tuple[str, str]:
    """What a daemon finds that opens this: "whole", "shorter" (what NORMAL allows), "lost", "torn" or "damaged"; and
    what more there is to say of it."""
    with tempfile.TemporaryDirectory(prefix="poolmgr-", dir=_FAST) as place:
        directory = Path(place)
        _write(image, directory)
        path = directory / STATE / DATABASE
        path.parent.mkdir(exist_ok=True)
        store = SqliteStore(path, synchronous="NORMAL")
        try:
            epoch = store.open()
            digest = _digest(store)
        except StoreUnavailable as error:
            return "damaged", str(error)
        finally:
            store.close()
        connection = sqlite3.connect(path)
        [(sound,), *_] = connection.execute("PRAGMA integrity_check").fetchall()
        connection.close()
    if sound != "ok":
        return "damaged", sound
    if digest in digests[promise.done : promise.begun + 1] and (epoch > promise.epoch or not full):
        return "whole", ""
    if digest not in digests[: promise.begun + 1]:
        return "torn", f"what it holds was never so, at {promise}"
    return ("lost" if full else "shorter"), f"of {promise}, step {digests.index(digest)} and epoch {epoch} are left"


def _write(image: Image, directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    for name, data in image.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

"""500 SIGKILLs of a loaded daemon, at random moments and at every commit point: nothing acknowledged is lost.

Three clients that remember (witness.py) submit durable tasks of all kinds: short, long, delayed, failing, cancelled,
large, not to be run twice. Half of the kills come at a random moment, some of them while the daemon starts; the other
half where ``deadly`` strikes: before and after each statement of a commit, the news of it, the acknowledgement, the
migration, the end of old results, the emptying of the log, the close. The next daemon starts on the same directory.

After each kill the files are looked at, as they lie. After every 25, a daemon is left alone until every task has ended;
then what the witnesses were told, what is kept, and the marks that the handlers have left must agree.
"""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

from poolmgr.config.locations import DATABASE
from poolmgr.store.sqlite import SqliteStore
from scripts.proofs import deadly
from scripts.proofs.pool import HERE, NotStarted, Pool, until
from scripts.proofs.report import Report
from scripts.proofs.witness import Sent, Witness

KILLS: Final = 500
A_CHAPTER: Final = 25  # kills on one state directory
WITNESSES: Final = 3
WORKERS: Final = 2
RECOVERED_S: Final = 5.0
SIDES: Final = (deadly.BEFORE, deadly.AFTER)
_KILLED: Final = -signal.SIGKILL
_LOAD: Final = 1 << 30  # tasks that a witness sends in one life, if that is long enough
_LITTLE: Final = 50  # ... where the death comes when all is done
_WHEN_IDLE: Final = ("expire BEGIN", "expire COMMIT", "expire checkpoint", "close")
_LONGEST_LIFE_S: Final = 0.5  # of those that end at a random moment
_PATIENCE_S: Final = 20.0  # for a point to be passed as often as was drawn


class Plan(NamedTuple):
    """When a daemon is to die. ``point`` '' is at a random moment after it is ready, ``clock`` at one before that."""

    point: str
    side: str = ""
    after: float = 0


def prove(scale: float) -> Report:
    """Kill ``scale`` times 500 daemons."""
    report = Report("crash")
    kills = max(10, round(KILLS * scale))
    plans = list(_plans(kills, random.Random(kills)))
    found: Counter[str] = Counter()
    starts_s: list[float] = []
    for number, first in enumerate(range(0, kills, A_CHAPTER)):
        with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
            chapter = Chapter(Path(directory), number, found, starts_s)
            chapter.run(plans[first : first + A_CHAPTER])
    _tell(report, plans, found, starts_s)
    return report


def _plans(kills: int, chance: random.Random) -> Iterator[Plan]:
    """One for each kill. A migration is made once a chapter, at its begin."""
    rare = [(point, side) for point, side in product(deadly.POINTS, SIDES) if point != "open migration"]
    drawn: list[tuple[str, str]] = []
    for number in range(kills):
        if number % A_CHAPTER == 0:
            side = SIDES[number // A_CHAPTER % 2]
            yield Plan("open migration", side, chance.randint(1, deadly.POINTS["open migration"]))
        elif number % 2:
            drawn = drawn or chance.sample(rare, len(rare))
            point, side = drawn.pop()
            yield Plan(point, side, chance.randint(1, deadly.POINTS[point]))
        elif chance.random() < 0.2:
            yield Plan(deadly.CLOCK, "", chance.uniform(0.0, 0.5))
        else:
            yield Plan("", "", chance.uniform(0.0, _LONGEST_LIFE_S))


def _tell(report: Report, plans: list[Plan], found: Counter[str], starts_s: list[float]) -> None:
    report.figure("kills", found["kills"], at_least=len(plans))
    report.figure("of them before it was ready", found["kills at the start"])
    points = {(plan.point, plan.side) for plan in plans if plan.side}
    reached = sum(found[f"{point} {side}"] > 0 for point, side in points)
    report.figure("commit points, each before and after", len(deadly.POINTS) * 2)
    report.figure("of those drawn, killed at", reached, at_least=len(points))
    report.figure("drawn, and not passed as often as that", found["not reached"])
    report.figure("tasks acknowledged", found["acknowledged"], at_least=len(plans))
    report.figure("acknowledged and lost", found["lost"], at_most=0)
    report.figure("runs", found["runs"])
    report.figure("ends that were told", found["told"], at_least=found["acknowledged"] - found["forgotten"])
    report.figure("acknowledged, without an end", found["endless"], at_most=0)
    report.figure("with another end than expected", found["wrong end"], at_most=0)
    report.figure("final states that changed", found["changed"], at_most=0)
    report.figure("finished tasks that were run again", found["run again"], at_most=0)
    report.figure("not to be run twice, and were", found["run twice"], at_most=0)
    report.figure("files that were damaged", found["damaged"], at_most=0)
    report.figure("starts that took over", len(starts_s), at_least=1)
    report.figure("slowest of them", max(starts_s, default=float("nan")), "s", at_most=RECOVERED_S)


class Chapter:
    """One state directory, and the daemons that die on it.

    Args:
        directory: empty, short.
        number: seeds what the witnesses do.
        found: counts what came of it.
        starts_s: how long each start took that was not cut short.
    """

    def __init__(self, directory: Path, number: int, found: Counter[str], starts_s: list[float]) -> None:
        marks = directory / "marks"
        marks.touch()
        # What interrupts a task so often that it is thought to kill daemons, is us; and its failures are meant to be.
        self._pool = Pool(directory, app="marks", workers=WORKERS, poison_after=1_000, breaker_failures=0)
        self._pool.command[1:4] = ["-P", str(HERE / "deadly.py")]
        self._pool.environ["MARKS"] = str(marks)
        self._marks = marks
        self._witnesses = [Witness(self._pool.socket, marks, f"{number} {each}") for each in range(WITNESSES)]
        self._finals: dict[bytes, tuple[str, float]] = {}  # what was final when we looked: its state, and since when
        self._found = found
        self._starts_s = starts_s

    def run(self, plans: list[Plan]) -> None:
        """All the deaths, and the one life after them."""
        try:
            for plan in plans:
                self._live(plan)
                self._look()
            self._live_on()
            self._look()
            self._account()
        finally:
            self._pool.end()

    # ------------------------------------------------------------------------------------------ lives

    def _live(self, plan: Plan) -> None:
        self._pool.environ[deadly.VARIABLE] = f"{plan.point}|{plan.side}|{plan.after}" if plan.point else ""
        self._found["kills"] += 1
        began_at = time.monotonic()
        try:
            self._pool.start()
        except NotStarted as error:
            if error.code != _KILLED:
                raise
            self._found["kills at the start"] += 1
            self._found[f"{plan.point} {plan.side}"] += 1
            return
        self._starts_s.append(time.monotonic() - began_at)
        for witness in self._witnesses:
            witness.connect(_LITTLE if plan.point in _WHEN_IDLE else _LOAD)
        try:
            self._die(plan)
        finally:
            for witness in self._witnesses:
                witness.leave()

    def _die(self, plan: Plan) -> None:
        pool = self._pool
        if plan.point == "close":
            pool.signal(signal.SIGTERM)
        try:
            code = pool.wait(_PATIENCE_S if plan.side else plan.after)
        except subprocess.TimeoutExpired:
            pool.kill()
            self._found["not reached"] += bool(plan.side)
        else:
            assert code == _KILLED, f"{plan}: exit code {code}\n{pool.log.read_text()}"
            self._found[f"{plan.point} {plan.side}"] += 1

    def _live_on(self) -> None:
        self._pool.environ[deadly.VARIABLE] = ""
        self._pool.start()
        for witness in self._witnesses:
            witness.connect(0)
        until(lambda: all(witness.satisfied for witness in self._witnesses), "the end of every task", 30)
        for witness in self._witnesses:
            witness.leave()
        assert self._pool.stop() == 0

    # ------------------------------------------------------------------------------------------ what is kept

    def _look(self) -> None:
        """Read a copy of the files: SQLite takes the log over into it, as it will for the next daemon."""
        source = self._pool.state / DATABASE
        with tempfile.TemporaryDirectory(prefix="poolmgr-") as directory:
            copy = Path(directory) / DATABASE
            for suffix in ("", "-wal"):
                if (kept := source.with_name(DATABASE + suffix)).exists():
                    shutil.copyfile(kept, copy.with_name(DATABASE + suffix))
            connection = sqlite3.connect(copy)
            self._found["damaged"] += connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            rows = connection.execute("SELECT id, state, ended_at FROM tasks") if "tasks" in tables else []
            self._compare({id: (state, ended_at) for id, state, ended_at in rows})
            connection.close()

    def _compare(self, kept: dict[bytes, tuple[str, float | None]]) -> None:
        finals = {id: (state, ended_at) for id, (state, ended_at) in kept.items() if ended_at is not None}
        self._found["changed"] += sum(finals.get(id, end) != end for id, end in self._finals.items() if id in kept)
        self._found["changed"] += sum(id not in finals for id in self._finals if id in kept)
        self._finals.update(finals)
        for sent in self._sent():
            if sent.acknowledged and sent.kind != "fleeting":
                self._found["lost"] += sent.id not in kept
            if sent.end is not None and sent.id in kept:
                self._found["changed"] += finals.get(sent.id, ("",))[0] != sent.end[0]

    def _sent(self) -> Iterator[Sent]:
        for witness in self._witnesses:
            yield from witness.sent.values()

    # ------------------------------------------------------------------------------------------ the account

    def _account(self) -> None:
        """Everything has ended. What was told, what is kept and what was done must agree."""
        found = self._found
        runs = _runs(self._marks)
        found["runs"] += sum(map(len, runs.values()))
        store = SqliteStore(self._pool.state / DATABASE)
        store.open()
        for witness in self._witnesses:
            found["changed"] += witness.wrong.pop("told two ends", 0)
            found["lost"] += witness.wrong.total()
        for sent in self._sent():
            at = runs.get(sent.id.hex(), [])
            found["acknowledged"] += sent.acknowledged
            found["told"] += sent.end is not None
            found["forgotten"] += sent.gone
            found["lost"] += sent.gone and not at
            found["endless"] += sent.acknowledged and sent.end is None and not sent.gone
            found["run twice"] += sent.kind == "once" and len(at) > 1
            if sent.end is not None:
                found["run again"] += any(offset >= sent.ended_at_mark for offset in at)
                found["wrong end"] += not _expected(sent, bool(at))
                kept = store.outcome(sent.id)
                if kept is not None or sent.kind != "fleeting":
                    found["changed"] += kept is None or (kept.state.value, kept.outcome) != sent.end
        store.close()


def _runs(marks: Path) -> dict[str, list[int]]:
    """By a task's id, where in the file each mark begins that it has left."""
    runs: dict[str, list[int]] = {}
    offset = 0
    for line in marks.read_bytes().splitlines(keepends=True):
        id, _attempt = line.split()
        runs.setdefault(id.decode(), []).append(offset)
        offset += len(line)
    return runs


def _expected(sent: Sent, ran: bool) -> bool:
    """Whether a task of that kind may end so."""
    assert sent.end is not None
    state, outcome = sent.end
    if state == "completed":
        return sent.kind != "failing always" and ran and outcome == sent.result
    if state == "dead":
        return sent.kind in ("failing always", "once")  # once: its daemon died under it
    return state == "cancelled" and sent.kind == "cancelled"

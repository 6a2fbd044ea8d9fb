"""Has the peers run the scenarios, each in turn with poolmgr, and collects the pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.pairs import Pair, tasks_for
from benchmarks.peer import OURS, Failed, Lost, Missing, Peer
from benchmarks.rows import Row, told
from benchmarks.scenarios import Kind, Scenario
from scripts.proofs.disk import fdatasync_us

WORKERS: Final = 20
_TRIES: Final = 4  # to find out how many tasks make a run
_QUEUED_TASKS: Final = 20_000


@dataclass(frozen=True)
class Plan:
    """How thoroughly: pairs of runs of each kind, and about how long a run takes."""

    pairs: int
    run_s: float


class _LostInScenario(Exception):
    """A peer was lost, and the rows tell so."""


class Driver:
    """Runs scenarios with one peer after the other.

    Args:
        directory: on a real disk; for all that is written.
        say: told what happens, as it happens.

    Attributes:
        rows: what was found.
        about: of each that ran, its version and settings.
        missing: peers that are not here, with the reason.

    What it has found so far stands in these at any time, also when ``run`` is interrupted.
    """

    def __init__(self, scenarios: Sequence[Scenario], plan: Plan, directory: Path, say: Callable[[str], None]) -> None:
        self.rows: list[Row] = []
        self.about: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self._scenarios = scenarios
        self._plan = plan
        self._directory = directory
        self._say = say

    def run(self, name: str) -> None:
        """All scenarios with one peer; with ``OURS``, poolmgr runs them alone, and is its own peer in every pair."""
        before = len(self.rows)
        try:
            self._run(name)
        except BaseException:
            for row in self.rows[before:]:
                if len(row.pairs) < self._plan.pairs and not row.failed:
                    row.failed = "interrupted"
            raise

    def _run(self, name: str) -> None:
        try:
            with Peer(name, self._directory) as peer:
                self.about[name], cannot = peer.about, peer.cannot
        except (Missing, Lost) as error:
            self.missing[name] = str(error)
            self._say(f"{name}: left out: {error}")
            return
        for kind in Kind:
            scenarios = []
            for scenario in self._scenarios:
                if scenario.kind is kind and scenario.name in cannot:
                    self.rows += [Row(scenario, each, name, failed=cannot[scenario.name]) for each in scenario.figures]
                elif scenario.kind is kind:
                    scenarios.append(scenario)
            if scenarios and kind is Kind.FRESH:
                self._run_fresh(name, scenarios)
            elif scenarios:
                self._run_kept(name, scenarios, kind)

    def _run_kept(self, name: str, scenarios: Sequence[Scenario], kind: Kind) -> None:
        """Those for which a pool is started once."""
        durable = kind is Kind.DURABLE
        left = list(scenarios)
        while left:
            try:
                with self._started(name, kind, durable) as theirs, self._started(OURS, kind, durable) as ours:
                    while left:
                        self._run_pairs(left.pop(0), name, theirs, ours)
            except _LostInScenario:  # which costs that scenario; it is started again for the others
                continue
            except Failed as error:
                self._fail(left, name, f"did not start: {error}")
                return

    @contextmanager
    def _started(self, name: str, kind: Kind, durable: bool) -> Iterator[Peer]:
        with Peer(name, self._directory, durable=durable) as peer:
            self.about[name] = peer.about
            peer.ask("start", workers=WORKERS if kind is Kind.RECOVERY else peer.fastest)
            yield peer

    def _fail(self, scenarios: Sequence[Scenario], name: str, why: str) -> None:
        self._say(f"{name}: {why}")
        for scenario in scenarios:
            self.rows += [Row(scenario, each, name, failed=why) for each in scenario.figures]

    def _run_pairs(self, scenario: Scenario, name: str, theirs: Peer, ours: Peer) -> None:
        """Pairs of runs: of the peer, of poolmgr, of the peer, ..."""
        rows = [Row(scenario, each, name) for each in scenario.figures]
        self.rows += rows
        lost = False
        try:
            of_theirs, of_ours = (self._arguments(scenario, each) for each in (theirs, ours))
            for number in range(self._plan.pairs):
                if rows[0].durable:
                    for row in rows:
                        row.fdatasync_us.append(fdatasync_us(self._directory))
                if not scenario.sized:
                    of_theirs = of_ours = {"number": number}
                their_figures = theirs.ask(scenario.measure, **of_theirs)
                our_figures = ours.ask(scenario.measure, **of_ours)
                for row in rows:
                    row.pairs.append(Pair(their_figures[row.figure.key], our_figures[row.figure.key]))
        except Failed as error:
            for row in rows:
                row.failed = str(error)
            lost = isinstance(error, Lost)
        self._tell(rows)
        if lost:
            raise _LostInScenario

    def _arguments(self, scenario: Scenario, peer: Peer) -> dict[str, Any]:
        """Of a measure that takes a number of tasks: the number that makes a run of about the planned time."""
        if not scenario.sized:
            return {}
        tasks, took_s = scenario.least, 0.0
        for _ in range(_TRIES):  # which warm up, too
            took_s = peer.ask(scenario.measure, tasks=tasks, **scenario.arguments)["seconds"]
            if took_s > self._plan.run_s / 4:
                break
            tasks = tasks_for(self._plan.run_s / 2, tried=tasks, took_s=took_s, most=scenario.most)
        tasks = tasks_for(self._plan.run_s, tried=tasks, took_s=took_s, most=scenario.most)
        return {"tasks": tasks, **scenario.arguments}

    def _run_fresh(self, name: str, scenarios: Sequence[Scenario]) -> None:
        """Those that need a pool of their own for each run. One start serves them all."""
        rows = [Row(scenario, each, name) for scenario in scenarios for each in scenario.figures]
        self.rows += rows
        try:
            for _ in range(self._plan.pairs):
                figures = [self._fresh(each, scenarios) for each in (name, OURS)]
                for row in rows:
                    row.pairs.append(Pair(*(each[row.scenario.name, row.figure.key] for each in figures)))
        except Failed as error:
            for row in rows:
                row.failed = str(error)
        self._tell(rows)

    def _fresh(self, name: str, scenarios: Sequence[Scenario]) -> dict[tuple[str, str], float]:
        found: dict[tuple[str, str], float] = {}
        with Peer(name, self._directory) as peer:
            self.about[name] = peer.about
            answers = {"start": peer.ask("start", workers=WORKERS)}
            if any(each.measure == "queue_memory" for each in scenarios):
                answers["queue_memory"] = peer.ask(
                    "queue_memory", tasks_at_most=_QUEUED_TASKS, seconds=5 * self._plan.run_s
                )
        for scenario in scenarios:
            for figure in scenario.figures:
                found[scenario.name, figure.key] = answers[scenario.measure][figure.key]
        return found

    def _tell(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._say(told(row))

"""Many seeds, on as many cores as there are, and what they have seen together."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from tests.simulation.simulator import Run, SimulationFailed, simulate

DIGESTS_KEPT: Final = 20
_CHUNK: Final = 25
_COUNTERS: Final = ("faults", "refusals", "inputs", "effects", "finals", "codes", "events")


@dataclass(slots=True)
class Sweep:
    """The sum of many runs, from seed ``first`` on. ``failures`` holds the report of each that failed, by seed."""

    first: int = 0
    seeds: int = 0  # that held
    steps: int = 0
    virtual_s: float = 0.0
    epochs: int = 0
    digest: str = ""  # of all logs, in the order of their seeds
    digests: dict[int, str] = field(default_factory=dict)  # of the first logs, by seed
    faults: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    inputs: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    finals: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def next(self) -> int:
        """The seed to go on with."""
        return self.first + self.seeds + len(self.failures)

    def add(self, run: Run) -> None:
        """Count a run that held."""
        self.seeds += 1
        self.steps += run.steps
        self.virtual_s += run.virtual_s
        self.epochs += run.epochs
        for counter in _COUNTERS:
            getattr(self, counter).update(getattr(run, counter))
        if len(self.digests) < DIGESTS_KEPT:
            self.digests[run.seed] = run.digest
        self.digest = hashlib.sha256(f"{self.digest}\n{run.seed} {run.digest}".encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write all of it to a file; what was there is replaced in one step."""
        new = path.with_name(f"{path.name}.new")
        kept = {each.name: getattr(self, each.name) for each in fields(self)}
        new.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        new.replace(path)


def load(path: Path) -> Sweep:
    """What ``save`` has written. Raises ``ValueError`` or ``TypeError`` if it is something else."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    found = Sweep(**{**kept, **{name: Counter(kept[name]) for name in _COUNTERS}})
    found.failures, found.digests = _by_seed(found.failures), _by_seed(found.digests)
    return found


def _by_seed(texts: dict[int, str]) -> dict[int, str]:
    """JSON knows no numbers as keys."""
    return {int(seed): text for seed, text in texts.items()}


def sweep(
    seeds: int,
    *,
    total: Sweep | None = None,
    processes: int | None = None,
    tell: Callable[[Sweep], None] = lambda total: None,
) -> Sweep:
    """Run so many seeds in all, those in ``total`` included; that is added to and returned.

    Args:
        seeds: how many, from ``total.first`` on.
        total: what earlier runs have seen; by default nothing, from seed 0 on.
        processes: by default one a core.
        tell: is shown ``total`` after each seed.
    """
    total = total or Sweep()
    for seed, run in _runs(range(total.next, total.first + seeds), processes or os.cpu_count() or 1):
        if isinstance(run, Run):
            total.add(run)
        else:
            total.failures[seed] = run
        tell(total)
    return total


def _runs(seeds: Sequence[int], processes: int) -> Iterable[tuple[int, Run | str]]:
    if processes == 1:
        return map(_try, seeds)
    return _spread(seeds, processes)


def _spread(seeds: Sequence[int], processes: int) -> Iterator[tuple[int, Run | str]]:
    context = multiprocessing.get_context("spawn")  # nothing is inherited: each starts as a replay would
    with context.Pool(processes, initializer=_end_tidily) as pool:
        yield from pool.imap(_try, seeds, chunksize=_CHUNK)
        pool.close()  # they end by themselves: a SIGTERM may be lost in them, and would be waited for
        pool.join()


def _end_tidily() -> None:
    """SIGTERM, with which an interrupted pool ends its processes, leaves no simulation's files behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())


def _try(seed: int) -> tuple[int, Run | str]:
    try:
        return seed, simulate(seed)
    except SimulationFailed as failed:
        return seed, str(failed)

"""Many seeds, on as many cores as there are, and what they have seen together."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.simulation.simulator import Run, SimulationFailed, simulate

_CHUNK: Final = 25


@dataclass(slots=True)
class Sweep:
    """The sum of many runs. ``failures`` holds the report of each that failed, by seed."""

    seeds: int = 0
    steps: int = 0
    virtual_s: float = 0.0
    epochs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    inputs: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    finals: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)

    def digest(self) -> str:
        """One hash of all logs, in the order of their seeds."""
        return hashlib.sha256("\n".join(self.digests).encode()).hexdigest()

    def add(self, run: Run) -> None:
        """Count a run that held."""
        self.seeds += 1
        self.steps += run.steps
        self.virtual_s += run.virtual_s
        self.epochs += run.epochs
        for counter in ("faults", "refusals", "inputs", "effects", "finals", "codes", "events"):
            getattr(self, counter).update(getattr(run, counter))
        self.digests.append(f"{run.seed} {run.digest}")


def sweep(seeds: Sequence[int], processes: int | None = None) -> Sweep:
    """Run all seeds. One process by default where there are few, else one a core."""
    total = Sweep()
    for seed, run in _runs(seeds, processes or os.cpu_count() or 1):
        if isinstance(run, Run):
            total.add(run)
        else:
            total.failures[seed] = run
    return total


def _runs(seeds: Sequence[int], processes: int) -> Iterable[tuple[int, Run | str]]:
    if processes == 1:
        return map(_try, seeds)
    return _spread(seeds, processes)


def _spread(seeds: Sequence[int], processes: int) -> Iterator[tuple[int, Run | str]]:
    context = multiprocessing.get_context("spawn")  # nothing is inherited: each starts as a replay would
    with context.Pool(processes) as pool:
        yield from pool.imap(_try, seeds, chunksize=_CHUNK)


def _try(seed: int) -> tuple[int, Run | str]:
    try:
        return seed, simulate(seed)
    except SimulationFailed as failed:
        return seed, str(failed)

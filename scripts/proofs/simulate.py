"""The scheduler keeps its promises in 10,000 simulated lives full of faults, and each can be replayed."""

from __future__ import annotations

import time
from typing import Final

from poolmgr.core.effects import Effect
from scripts.proofs.report import Report
from tests.simulation.faults import KINDS
from tests.simulation.simulator import simulate
from tests.simulation.sweep import sweep

SEEDS: Final = 10_000
_FEWEST: Final = 150  # in fewer not every kind of fault strikes
_REPLAYED: Final = 20


def prove(scale: float) -> Report:
    """Run the seeds from 0 on. A seed that fails shows its log's end, and how to see it again."""
    report = Report("simulate")
    seeds = range(max(_FEWEST, round(SEEDS * scale)))
    began = time.perf_counter()
    found = sweep(seeds)
    took_s = time.perf_counter() - began
    report.figure("seeds that held", found.seeds, at_least=len(seeds))
    report.figure("seeds that failed", len(found.failures), at_most=0)
    report.figure("kinds of faults that struck", len(found.faults), f"of {len(KINDS)}", at_least=len(KINDS))
    kinds = len(Effect.__args__)
    report.figure("kinds of effects that were performed", len(found.effects), f"of {kinds}", at_least=kinds)
    again = sum(f"{seed} {simulate(seed).digest}" in found.digests for seed in seeds[:_REPLAYED])
    report.figure("runs with the same log when run again", again, f"of {_REPLAYED}", at_least=_REPLAYED)
    report.figure("faults", found.faults.total())
    report.figure("steps", found.steps)
    report.figure("steps a second", found.steps / took_s)
    report.figure("tasks submitted", found.inputs["submit"])
    report.figure("lives of the daemon", found.epochs)
    report.figure("virtual time", found.virtual_s / 3600, "h")
    report.figure("time", took_s, "s")
    for kind, count in sorted(found.faults.items()):
        report.figure(f"  {kind}", count)
    report.note(f"hash of all logs: {found.digest()}")
    for text in list(found.failures.values())[:3]:
        print(text)
    return report

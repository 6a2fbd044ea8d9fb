"""Nothing acknowledged is lost in 100,000 simulated lives full of faults, on the real store; each can be replayed.

The seeds of a long run need not be run at once. ``--from`` and ``--seeds`` choose a range; with ``--progress FILE``
the sums are kept there as they grow, and a run that was interrupted goes on where it was:

    scripts/prove simulate --progress lives.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Final

from poolmgr.core.effects import Effect
from poolmgr.core.preemption import DRAIN, MEMORY, URGENT, USER
from poolmgr.model import FINAL
from scripts.proofs.report import Report
from tests.simulation.faults import KINDS
from tests.simulation.medium import TROUBLES
from tests.simulation.simulator import simulate
from tests.simulation.sweep import DIGESTS_KEPT, Sweep, load, sweep

SEEDS: Final = 100_000
_FEWEST: Final = 300  # in fewer not every kind of fault strikes
_TELL_EVERY_S: Final = 10.0
_SHOWN: Final = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this proof can be told beside its scale."""
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="SEED", help="begin with this seed")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"run so many (default: {SEEDS:,} times the scale)")
    parser.add_argument(
        "--progress", type=Path, metavar="FILE", help="keep the sums here, and go on from what it holds"
    )


def prove(scale: float, first: int = 0, seeds: int | None = None, progress: Path | None = None) -> Report:
    """Run the seeds from ``first`` on. A seed that fails shows its log's end, and how to see it again."""
    report = Report("simulate")
    seeds = seeds or max(_FEWEST, round(SEEDS * scale))
    total = Sweep(first)
    if progress is not None and progress.exists():
        total = load(progress)
        if total.first != first:
            raise SystemExit(f"{progress} holds a run from seed {total.first}, not {first}: choose another file")
    before = total.steps
    began = time.perf_counter()
    sweep(seeds, total=total, tell=_Teller(report, seeds, progress))
    took_s = time.perf_counter() - began
    report.figure("seeds that held", total.seeds, at_least=seeds)
    report.figure("seeds that failed", len(total.failures), at_most=0)
    _kinds(report, total, limited=seeds >= _FEWEST)
    again = sum(simulate(seed).digest == digest for seed, digest in total.digests.items())
    report.figure("runs with the same log when run again", again, at_least=min(seeds, DIGESTS_KEPT))
    report.figure("faults", total.faults.total())
    report.figure("steps", total.steps)
    report.figure("steps a second, just now", (total.steps - before) / took_s)
    report.figure("tasks submitted", total.inputs["submit"])
    report.figure("lives of the daemon", total.epochs)
    report.figure("virtual time", total.virtual_s / 3600, "h")
    report.figure("time, just now", took_s, "s")
    for kind, count in sorted(total.faults.items()):
        report.figure(f"  {kind}", count)
    for kind, count in sorted(total.refusals.items()):
        report.figure(f"  refused, as the store was {kind}", count)
    report.note(f"hash of all logs: {total.digest}")
    for text in list(total.failures.values())[:_SHOWN]:
        print(text)
    return report


def _kinds(report: Report, total: Sweep, *, limited: bool) -> None:
    """A simulation in which something never happens proves nothing about it."""
    for what, seen, all_kinds in (
        ("faults that struck", total.faults, set(KINDS)),
        ("troubles in which the store refused", total.refusals, set(TROUBLES)),
        ("effects that were performed", total.effects, {effect.__name__ for effect in Effect.__args__}),
        ("ends that tasks came to", total.finals, {str(state) for state in FINAL}),
        ("events of schedules", total.events, {"schedule-missed", "schedule-held"}),
        ("reasons to give way", total.events, {f"preempted: {why}" for why in (USER, URGENT, DRAIN, MEMORY)}),
    ):
        missing = sorted(all_kinds - set(seen))
        limit = len(all_kinds) if limited else None
        report.figure(f"kinds of {what}", len(all_kinds) - len(missing), f"of {len(all_kinds)}", at_least=limit)
        if missing:
            report.note(f"never seen: {', '.join(missing)}")


class _Teller:
    """Says how far it is now and then, and keeps it."""

    def __init__(self, report: Report, seeds: int, progress: Path | None) -> None:
        self._report = report
        self._seeds = seeds
        self._progress = progress
        self._told_at = time.perf_counter()

    def __call__(self, total: Sweep) -> None:
        now = time.perf_counter()
        done = total.next - total.first
        if done < self._seeds and now < self._told_at + _TELL_EVERY_S:
            return
        self._told_at = now
        if self._progress is not None:
            total.save(self._progress)
        failed = f", failed: {', '.join(map(str, total.failures))}" if total.failures else ""
        self._report.note(f"{done:,} of {self._seeds:,} seeds, the next is {total.next}{failed}")

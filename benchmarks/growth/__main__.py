"""Measures how cost grows: ``benchmarks/scale``, or ``python -m benchmarks.growth`` where the environments are made."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from benchmarks import family
from benchmarks.growth.axes import AXES, NAMES, Axis
from benchmarks.growth.connections import allow_files
from benchmarks.growth.report import Report, told
from benchmarks.growth.rows import rows_of
from benchmarks.peer import ROOT
from benchmarks.report import machine
from scripts.proofs.disk import file_system, real_disk

_FILES: Final = 4096  # a daemon with 1,000 clients or 200 workers has fewer


class Plan(NamedTuple):
    """How thoroughly: rounds, about how long a run takes, and how far things grow, at most."""

    rounds: int
    run_s: float
    most: int


_THOROUGH: Final = Plan(rounds=7, run_s=1.0, most=1_000_000)
_QUICK: Final = Plan(rounds=3, run_s=0.25, most=100_000)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 where all that was asked for was measured."""
    options = _parser().parse_args(arguments)
    usual = _QUICK if options.quick else _THOROUGH
    plan = Plan(options.rounds or usual.rounds, options.run_s or usual.run_s, options.most or usual.most)
    allow_files(_FILES)
    family.adopt_orphans()
    signal.signal(signal.SIGTERM, _terminated)
    settings = machine() | {"rounds": str(plan.rounds), "seconds a run": f"{plan.run_s:g}"}
    report = Report(time.strftime("%Y-%m-%d %H:%M"), settings)
    # The path is short, as sockets are in it.
    with tempfile.TemporaryDirectory(prefix="pm-", dir=real_disk(), ignore_cleanup_errors=True) as name:
        report.settings["disk"] = file_system(Path(name))
        try:
            for axis in AXES:
                if not options.only or axis.name in options.only:
                    _measure(report, axis, plan, Path(name))
                    report.write(options.out)  # what comes may be interrupted
        finally:
            family.end_all()
            report.settings["load average after"] = ", ".join(f"{each:.1f}" for each in os.getloadavg())
            for file in [*report.write(options.out), *report.draw(options.out)]:
                print(file)
    return 1 if report.failed else 0


def _measure(report: Report, axis: Axis, plan: Plan, directory: Path) -> None:
    """All points at once, which take turns: what the machine does meanwhile, it does to all of them."""
    points = [point for point in axis.points if point <= plan.most]
    try:
        with ExitStack() as stack:
            made = [axis.make(directory / f"{axis.name}-{point}", point, plan.run_s) for point in points]
            subjects = [stack.enter_context(each) for each in made]
            rounds = [[subject.sample() for subject in subjects] for _ in range(plan.rounds)]
    except Exception as error:
        report.failed[axis.name] = f"{type(error).__name__}: {error}"
        print(f"{axis.name}: {report.failed[axis.name]}", flush=True)
        return
    rows = rows_of(axis, points, rounds)
    report.rows += rows
    print(f"{axis.name:<52} {' '.join(f'{point:>9,}' for point in points)}", flush=True)
    for row in rows:
        print(told(row), flush=True)


def _terminated(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/scale", description="Measures how poolmgr's cost grows.")
    parser.add_argument("--only", nargs="+", metavar="WHAT", choices=NAMES, help=f"of: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs: to see that it works")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"(default: {_THOROUGH.rounds})")
    parser.add_argument("--run-s", type=float, metavar="S", help=f"how long a run takes (default: {_THOROUGH.run_s})")
    parser.add_argument(
        "--most", type=int, metavar="N", help=f"leave out points beyond it (default: {_THOROUGH.most:,})"
    )
    out = ROOT / "build" / "benchmarks"
    parser.add_argument("--out", type=Path, metavar="DIR", default=out, help="default: build/benchmarks")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

"""Compares poolmgr with its peers: ``benchmarks/run``, or ``python -m benchmarks`` where the environments are made."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from benchmarks import family, limits, report
from benchmarks.driver import Driver, Plan
from benchmarks.peer import OURS, PEERS, ROOT
from benchmarks.scenarios import NAMES, SCENARIOS
from scripts.proofs.disk import file_system, real_disk

_THOROUGH = Plan(pairs=5, run_s=1.5)
_QUICK = Plan(pairs=3, run_s=0.3)
_LIMIT_S = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 where at least one peer ran."""
    options = _parser().parse_args(arguments)
    usual = _QUICK if options.quick else _THOROUGH
    plan = Plan(options.pairs or usual.pairs, options.run_s or usual.run_s)
    scenarios = [each for each in SCENARIOS if not options.only or each.name in options.only]
    peers = options.peers or list(PEERS)
    parent = real_disk()
    if parent is None:
        print("benchmarks: TMPDIR and /var/tmp are in memory: what is said to be durable is not on a disk here")
    family.adopt_orphans()
    signal.signal(signal.SIGTERM, _terminated)
    began = time.strftime("%Y-%m-%d %H:%M")
    settings = report.machine()
    # The path is short, as the sockets are in it.
    with tempfile.TemporaryDirectory(prefix="pm-", dir=parent, ignore_cleanup_errors=True) as name:
        directory = Path(name)
        settings["disk"] = file_system(directory)
        settings["pairs"], settings["seconds a run"] = str(plan.pairs), f"{plan.run_s:g}"
        driver = Driver(scenarios, plan, directory, lambda line: print(line, flush=True))
        found = limits.measure(directory, min(_LIMIT_S, plan.run_s))
        run = report.Run(began, settings, found, driver.about, driver.missing, driver.rows)
        try:
            for peer in peers:
                driver.run(peer)
                family.end_all()
                report.write(run, options.out)  # what comes may be interrupted
        finally:
            family.end_all()
            settings["load average after"] = ", ".join(f"{each:.1f}" for each in os.getloadavg())
            for file in [*report.write(run, options.out), *report.draw(options.out)]:
                print(file, flush=True)
    return 0 if driver.about else 1


def _terminated(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description="Compares poolmgr with its peers.")
    parser.add_argument("--only", nargs="+", metavar="SCENARIO", choices=NAMES, help=f"of: {', '.join(NAMES)}")
    names = (*PEERS, OURS)
    parser.add_argument("--peers", nargs="+", metavar="NAME", choices=names, help=f"of: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs: to see that it works")
    parser.add_argument("--pairs", type=int, metavar="N", help=f"pairs of runs (default: {_THOROUGH.pairs})")
    parser.add_argument("--run-s", type=float, metavar="S", help=f"how long a run takes (default: {_THOROUGH.run_s})")
    out = ROOT / "build" / "benchmarks"
    parser.add_argument("--out", type=Path, metavar="DIR", default=out, help="default: build/benchmarks")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

"""The simulator, scaled down: some seeds of ``scripts/prove simulate``, and that a seed means the same everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from poolmgr.core.effects import Effect
from poolmgr.model import FINAL
from tests.simulation.faults import KINDS
from tests.simulation.simulator import simulate
from tests.simulation.sweep import Sweep, sweep

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(150)


def _regressions() -> list[int]:
    lines = (Path(__file__).parent / "regressions.txt").read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def swept() -> Sweep:
    return sweep(SEEDS, processes=1)


def test_every_promise_holds_in_every_seed(swept: Sweep) -> None:
    assert not swept.failures, next(iter(swept.failures.values()))
    assert swept.seeds == len(SEEDS)


def test_every_kind_of_fault_struck_and_every_effect_was_performed(swept: Sweep) -> None:
    """A simulation in which something never happens proves nothing about it."""
    assert set(swept.faults) == set(KINDS)
    assert set(swept.effects) == {effect.__name__ for effect in Effect.__args__}
    assert set(swept.finals) == {str(state) for state in FINAL}


@pytest.mark.parametrize("seed", _regressions())
def test_what_was_once_broken_holds(seed: int) -> None:
    simulate(seed)


def test_the_same_seed_is_the_same_run_also_under_another_hash_seed() -> None:
    program = "from tests.simulation.simulator import simulate; print(*(simulate(seed).digest for seed in (3, 7, 8)))"
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True,
        ).stdout
        for hash_seed in ("0", "1", "4711")
    }  # fmt: skip
    assert found == {" ".join(simulate(seed).digest for seed in (3, 7, 8)) + "\n"}


def test_different_seeds_are_different_runs(swept: Sweep) -> None:
    assert len({line.split()[1] for line in swept.digests}) == len(SEEDS)

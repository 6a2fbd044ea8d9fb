"""The simulator, scaled down: some seeds of ``scripts/prove simulate``, and that a seed means the same everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.proofs import simulate as simulate_proof
from tests.simulation.simulator import simulate
from tests.simulation.sweep import Sweep, load, sweep

ROOT = Path(__file__).resolve().parents[2]
SCALE = 0.003  # 300 seeds


def _regressions() -> list[int]:
    lines = (Path(__file__).parent / "regressions.txt").read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.timeout(600)  # some 15 s of computing; on a busy machine that takes a while
def test_every_promise_holds_in_every_seed() -> None:
    assert simulate_proof.prove(SCALE).ok


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


def test_different_seeds_are_different_runs() -> None:
    assert len({simulate(seed).digest for seed in range(5)}) == 5


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = sweep(6, total=Sweep(7), processes=1)
    sweep(4, total=Sweep(7), processes=1).save(tmp_path / "progress.json")
    assert sweep(6, total=load(tmp_path / "progress.json"), processes=1) == whole
    assert whole.next == 13

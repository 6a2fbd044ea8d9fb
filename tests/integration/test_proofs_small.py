"""The proofs of this folder's promises, scaled down: the same code, a few seconds in all. No figure of speed counts."""

from __future__ import annotations

import pytest

from scripts.proofs import (
    cancel_races,
    daemon_kill,
    ephemeral,
    executor,
    frames,
    hangs,
    hostile,
    kills,
    poison,
    reload,
    reuse,
    systemd,
    time_outs,
)
from scripts.proofs.report import Figure, Report

# What depends on how busy the machine is with other things. The aim at busy workers goes by the clock.
SPEEDS = (
    "of busy workers",
    "kill to ready, median",
    "tasks per second",
    "slowest parting of a client",
    "too late, p99",
    "share of the throughput that is left",
)


@pytest.fixture(autouse=True)
def _without_speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = Report.figure

    def tell(report: Report, label: str, value: Figure, unit: str = "", **limits: Figure | None) -> bool:
        return figure(report, label, value, unit, **({} if label in SPEEDS else limits))

    monkeypatch.setattr(Report, "figure", tell)


def test_kills() -> None:
    assert kills.prove(0.05).ok


def test_daemon_kill() -> None:
    assert daemon_kill.prove(0.1).ok


def test_reload() -> None:
    assert reload.prove(0.1).ok


def test_reuse() -> None:
    assert reuse.prove(0.01).ok


def test_ephemeral() -> None:
    assert ephemeral.prove(0.1).ok


def test_hangs() -> None:
    assert hangs.prove(0.01).ok


def test_time_outs() -> None:
    assert time_outs.prove(0.1).ok


def test_cancel_races() -> None:
    assert cancel_races.prove(0.02).ok


def test_poison() -> None:
    assert poison.prove(0.1).ok


def test_executor() -> None:
    assert executor.prove(0.01).ok


@pytest.mark.skipif(
    systemd.sandbox() is None, reason="no systemd-sandbox is on the PATH: see scripts/proofs/systemd.py"
)
def test_systemd() -> None:
    assert systemd.prove(0.1).ok


def test_frames() -> None:
    assert frames.prove(0.01).ok


def test_hostile() -> None:
    assert hostile.prove(0.06).ok

"""The proofs of this folder's promises, scaled down: the same code, a few seconds in all. No figure of speed counts."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from scripts.proofs import (
    ageing,
    autoscale,
    cancel_races,
    crash,
    daemon_kill,
    depth,
    durable_speed,
    ephemeral,
    executor,
    frames,
    full_disk,
    hangs,
    hostile,
    kills,
    memory,
    memory_deaths,
    memory_kernel,
    memory_leaks,
    overload,
    page_cache,
    poison,
    power_loss,
    pressure,
    reload,
    reuse,
    small_disk,
    small_host,
    soak,
    stalled_reader,
    stream_cuts,
    systemd,
    time_outs,
)
from scripts.proofs.memory_group import one_can_be_made
from scripts.proofs.report import Figure, Report

# What depends on how busy the machine is with other things. The aim at busy workers goes by the clock.
SPEEDS = (
    "burst 1: done in",
    "of busy workers",
    "kill to ready, median",
    "tasks per second",
    "slowest parting of a client",
    "too late, p99",
    *(
        f"{kind}: p99 {half} with it, of that without"
        for kind in ("not durable", "durable")
        for half in ("at once", "then")
    ),
    "share of the throughput that is left",
    "queued: restart to the first answer",
    "queued: restart to the first task run",
    "delayed: restart to the first answer",
    "delayed: restart to the first due task run",
    "slowest of them",
    "with ageing: wait of priority 10, shortest",
    "with ageing: wait of priority 50, shortest",
    "with ageing: wait of priority 100, shortest",
    "with ageing: wait of priority 10, longest",
    "with ageing: wait of priority 50, longest",
    "with ageing: wait of priority 100, longest",
    *(f"{hog}: peak" for hog in memory.HOGS),
    "  gone after it passed the limit",
    "throughput at the end, of that",
)


# On the machine as a whole it would be in everybody's way, and depend on what else runs.
IN_A_GROUP = pytest.mark.skipif(not one_can_be_made(), reason="no control group that limits memory can be made here")


@pytest.fixture(autouse=True)
def _without_speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = Report.figure

    def tell(report: Report, label: str, value: Figure, unit: str = "", **limits: Figure | None) -> bool:
        return figure(report, label, value, unit, **({} if label in SPEEDS else limits))

    monkeypatch.setattr(Report, "figure", tell)


@pytest.mark.parametrize(
    ("prove", "scale"),
    [
        (kills.prove, 0.05),
        (daemon_kill.prove, 0.1),
        (crash.prove, 0.02),
        pytest.param(
            power_loss.prove,
            0.04,
            marks=pytest.mark.skipif(shutil.which("strace") is None, reason="no strace records what is written"),
        ),
        (reload.prove, 0.1),
        (reuse.prove, 0.01),
        (ephemeral.prove, 0.1),
        (hangs.prove, 0.01),
        (time_outs.prove, 0.1),
        (cancel_races.prove, 0.02),
        (stream_cuts.prove, 0.03),
        (stalled_reader.prove, 0.02),
        pytest.param(page_cache.prove, 0.15, marks=IN_A_GROUP),
        pytest.param(pressure.prove, 0.3, marks=IN_A_GROUP),
        pytest.param(
            full_disk.prove,
            0.25,
            marks=pytest.mark.skipif(not small_disk.can_mount(), reason="no small tmpfs can be mounted here"),
        ),
        (poison.prove, 0.1),
        (executor.prove, 0.01),
        (frames.prove, 0.01),
        (durable_speed.prove, 0.02),
        (depth.prove, 0.004),
        (overload.prove, 0.1),
        (ageing.prove, 0.05),
        (small_host.prove, 0.5),
        (autoscale.prove, 0.1),
        (soak.prove, 0.006),
        (hostile.prove, 0.06),
        (memory.prove, 0.1),
        (memory_deaths.prove, 0.2),
        (memory_leaks.prove, 0.005),
        pytest.param(
            memory_kernel.prove,
            0.3,
            marks=pytest.mark.skipif(
                memory_kernel.sandbox() is None,
                reason="no systemd-sandbox-uml is on the PATH: see scripts/proofs/memory_kernel.py",
            ),
        ),
        pytest.param(
            systemd.prove,
            0.1,
            marks=pytest.mark.skipif(
                systemd.sandbox() is None, reason="no systemd-sandbox is on the PATH: see scripts/proofs/systemd.py"
            ),
        ),
    ],
    ids=lambda value: value.__module__.rpartition(".")[2] if callable(value) else "",
)
def test_it_holds(prove: Callable[[float], Report], scale: float) -> None:
    assert prove(scale).ok

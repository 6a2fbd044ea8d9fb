"""Short memory holds LOW tasks, sheds, has one task after the other give way, and starts nothing but CRITICAL ones.

A program beside the pool takes memory step by step, over one threshold after the other, and gives it back; all that was
held then runs, and what gave way has its right result. The thresholds are low, so that nothing really runs out.
"""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from poolmgr.core.pressure import SETTLES_S
from poolmgr.errors import TaskShed
from poolmgr.model import LOW_LEAST
from scripts.proofs.ballast import Ballast
from scripts.proofs.heard import Heard
from scripts.proofs.memory_group import Ground, ground
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

LIMIT_MB: Final = 1024
THRESHOLDS: Final = (40, 55, 70)  # of that; of a machine: so many points above what is in use anyway
ABOVE: Final = (4, 8, 12)
RUNNING: Final = {"a": 20, "b": 30, "c": 30, "d": 40}  # by priority, in the order in which they begin
GIVE_WAY: Final = ["d", "c", "b"]  # in this order; the last one that runs goes on
_PATIENCE_S: Final = 60.0


class Round(NamedTuple):
    """What happened in one."""

    gave_way: list[str]
    shortest_gap_s: float
    shed: int
    began: int  # of what was held
    wrong: int


def prove(scale: float) -> Report:
    """``pressure``: each level holds back what it should, one task gives way at a time, and all is well afterwards."""
    report = Report("pressure")
    count = max(1, round(3 * scale))
    with tempfile.TemporaryDirectory(prefix="pm-") as name, ground(LIMIT_MB) as here:
        thresholds = _thresholds(here)
        where = "a control group" if here.group is not None else "the machine"
        report.note(f"{where} of {here.total_mb:,} MB, thresholds {thresholds}, {count} rounds")
        pool = Pool(
            Path(name), app="pressure_tasks", workers=8, worker_memory_limit_mb=0, preempt_min_run_s=0.1,
            preempt_grace_s=0.2, memory_thresholds=",".join(map(str, thresholds)),
        )  # fmt: skip
        pool.command = here.command(pool.command)
        with pool:
            rounds = [_round(pool, here, thresholds, Path(name) / f"go-{number}") for number in range(count)]
    report.figure("sheddable tasks that were shed", sum(each.shed for each in rounds), at_least=2 * count)
    report.figure("tasks that began although they were held", sum(each.began for each in rounds), at_most=0)
    right = sum(each.gave_way == GIVE_WAY for each in rounds)
    report.figure("rounds in which the right ones gave way", right, at_least=count)
    gap_s = min(each.shortest_gap_s for each in rounds)
    report.figure("shortest time between two of them", gap_s, "s", at_least=SETTLES_S)
    report.figure("tasks with a wrong end, or that paid for it", sum(each.wrong for each in rounds), at_most=0)
    return report


def _thresholds(here: Ground) -> tuple[int, ...]:
    if here.group is not None:
        return THRESHOLDS
    return tuple(int(here.in_use().percent) + each for each in ABOVE)


def _round(pool: Pool, here: Ground, thresholds: tuple[int, ...], go: Path) -> Round:
    with pool.client() as client, pool.client() as listening, Ballast(here) as ballast:
        heard = Heard(listening, "memory-pressure", "task-preempted")
        running = {}
        for label, priority in RUNNING.items():
            running[label] = client.using(priority=priority).submit("hold", str(go), label)
            until(lambda: client.task(running[label].id).state == "running", f"{label} runs")  # noqa: B023
        ballast.fill_to(thresholds[0] + 1)
        _reaches(heard, "high")
        low = client.using(priority=LOW_LEAST).submit("echo", 1)
        shed = [client.using(sheddable=True, priority=priority).submit("echo", 2) for priority in (60, 100)]
        expired = sum(isinstance(each.exception(timeout=_PATIENCE_S), TaskShed) for each in shed)
        wrong = int(client.submit("echo", 3).result(timeout=_PATIENCE_S) != 3)
        began = int(client.task(low.id).state != "queued")

        ballast.fill_to(thresholds[1] + 1)
        _reaches(heard, "critical")
        until(lambda: len(heard.of("task-preempted")) >= len(GIVE_WAY), "they give way", _PATIENCE_S)

        ballast.fill_to(thresholds[2] + 1)
        _reaches(heard, "emergency")
        normal = client.submit("echo", 4)
        wrong += client.using(priority=0).submit("echo", 5).result(timeout=_PATIENCE_S) != 5
        began += client.task(normal.id).state != "queued"

        ballast.hold(0)
        _reaches(heard, "normal")
        wrong += low.result(timeout=_PATIENCE_S) != 1
        wrong += normal.result(timeout=_PATIENCE_S) != 4
        go.touch()
        wrong += sum(future.result(timeout=_PATIENCE_S) != label for label, future in running.items())
        wrong += sum(client.task(future.id).failures != 0 for future in running.values())
        labels = {future.id: label for label, future in running.items()}
        preempted = heard.of("task-preempted")
        gaps = [later.at - earlier.at for earlier, later in pairwise(preempted)]
        return Round([labels[each.fields["task_id"]] for each in preempted], min(gaps), expired, began, wrong)


def _reaches(heard: Heard, level: str) -> None:
    until(lambda: heard.of("memory-pressure", level=level), f"the pressure is {level}", _PATIENCE_S)

"""Who of those that could, does."""

from __future__ import annotations

from collections import deque

import msgpack
import pytest

from poolmgr.core.balancer import BALANCERS, Affine, LeastLoaded, MostRecent, RoundRobin, Waiting, proves
from poolmgr.core.slot import Slot
from poolmgr.core.task import Task
from poolmgr.model import TaskOptions
from poolmgr.wire.pickled import CALL, RAISED, RETURNED, UNUSABLE


def _task(**options: str) -> Task:
    return Task(b"\0" * 16, "work", b"", TaskOptions(**options), "g", 1, 0, 0.0, 0.0)  # type: ignore[arg-type]


def _slot(
    number: int, *, held: int = 0, cpu: float = 0.0, memory: float = 0.0, keys: str = "", proven: bool = False
) -> Slot:
    slot = Slot(f"worker-{number}")
    slot.proven = proven
    slot.in_flight = deque([_task()] * held)
    slot.cpu_percent, slot.memory_mb, slot.affinities = cpu, memory, dict.fromkeys(keys)
    return slot


@pytest.mark.parametrize(
    ("proven", "chosen"),
    [("213", "worker-3"), ("21", "worker-1"), ("2", "worker-2"), ("", "worker-2")],
)
def test_most_recent_takes_the_one_that_completed_a_task_last_or_else_each_in_turn(proven: str, chosen: str) -> None:
    slots = [_slot(number, proven=str(number) in proven) for number in (2, 1, 3)]
    assert MostRecent().choose(_task(), slots).id == chosen
    assert MostRecent().choose(_task(), Waiting({slot.id: slot for slot in slots})).id == chosen


def test_round_robin_takes_the_one_that_waits_longest() -> None:
    assert RoundRobin().choose(_task(), [_slot(2), _slot(1)]).id == "worker-2"


@pytest.mark.parametrize(
    ("slots", "chosen"),
    [
        ([_slot(0, held=2), _slot(1, held=1, cpu=99)], 1),
        ([_slot(0, cpu=50, memory=1), _slot(1, cpu=40, memory=9)], 1),
        ([_slot(0, memory=200), _slot(1, memory=100)], 1),
        ([_slot(0), _slot(1)], 0),
    ],
)
def test_least_loaded_looks_at_work_then_cpu_then_memory(slots: list[Slot], chosen: int) -> None:
    assert LeastLoaded().choose(_task(), slots) is slots[chosen]


def test_affine_prefers_the_holder_of_the_key() -> None:
    slots = [_slot(0, keys="a"), _slot(1, keys="bc"), _slot(2)]
    affine = Affine(RoundRobin())
    assert affine.choose(_task(affinity="c"), slots) is slots[1]
    assert affine.choose(_task(affinity="z"), slots) is slots[0]
    assert affine.choose(_task(), slots) is slots[0]


def test_affine_prefers_a_holder_that_is_well_and_of_those_the_last_at_work() -> None:
    slots = [
        _slot(0, keys="a", proven=True),
        _slot(1, keys="a", proven=True),
        _slot(2, keys="a"),
        _slot(3, proven=True),
    ]
    affine = Affine(MostRecent())
    assert affine.choose(_task(affinity="a"), slots) is slots[1]
    assert affine.choose(_task(affinity="a"), slots[2:]) is slots[2]


@pytest.mark.parametrize(
    ("name", "result", "well"),
    [
        ("work", b"\xc0", True),
        (CALL, msgpack.packb([RETURNED, b"", []]), True),
        (CALL, msgpack.packb([RAISED, b"", "ValueError", "no", ""]), False),
        (CALL, msgpack.packb([UNUSABLE, b"", "ValueError", "no", ""]), False),
    ],
)
def test_what_a_completed_task_says_of_its_worker(name: str, result: bytes, well: bool) -> None:
    task = _task()
    task.name = name
    assert proves(task, result) == well


def test_affine_asks_the_other_balancer_where_nobody_holds_the_key() -> None:
    slots = [_slot(0, cpu=9.0), _slot(1, cpu=1.0)]
    assert Affine(LeastLoaded()).choose(_task(affinity="z"), slots) is slots[1]


def test_the_settings_names_of_balancers() -> None:
    assert {"most-recent": MostRecent, "round-robin": RoundRobin, "least-loaded": LeastLoaded} == BALANCERS

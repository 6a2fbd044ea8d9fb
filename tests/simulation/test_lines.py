"""Lines that are put away and read back, with little memory, in any order of events: each task has its end.

The simulator has everything, and so meets two rare things of one kind seldom. Here the store does nothing but read, at
once, and its answers are heard late; the invariants are checked after every step.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from poolmgr.core.changes import TaskRecord
from poolmgr.core.effects import Effect, Refill
from poolmgr.model import FINAL, TaskOptions, TaskState
from tests.unit.test_core_storeroom import Stored

SEEDS = 80
STEPS = 120
_KINDS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"delay_s": 0.7},
    {"delay_s": 2.5},
    {"durable": False},
    {"expires_s": 2.0},
    {"group": "b"},
    {"priority": 0},
)  # fmt: skip
_SIZES = (0, 5, 60, 300, 2000)


class Traffic:
    """One pool, and what happens to it."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._pool = Stored(window=self._chance.choice((4, 8, 50)), window_bytes=self._chance.choice((100, 1000, 5000)))
        self._pool.begin()
        self._answers: list[tuple[Refill, list[TaskRecord]]] = []
        self._ids: list[bytes] = []
        self._last = 10**8
        self._flush = self._pool.flush
        self._pool.flush = self._read_at_once  # type: ignore[method-assign]

    def _read_at_once(self) -> list[Effect]:
        effects = self._flush()
        self._answers += self._pool.read()
        return effects

    def step(self) -> None:
        """Something happens."""
        weights = (30, 20, 15, 10, 15, 10)
        (action,) = self._chance.choices(
            (self._submit, self._submit_many, self._end_one, self._hear, self._wait, self._look_up), weights
        )
        action()

    def _submit(self) -> None:
        chance = self._chance
        self._ids.append(self._pool.submit(payload=bytes(chance.choice(_SIZES)), **chance.choice(_KINDS)))

    def _submit_many(self) -> None:
        chance, pool = self._chance, self._pool
        ids = [(self._last + number).to_bytes(16, "big") for number in range(1, chance.randrange(2, 12))]
        self._last += len(ids)
        payloads = [bytes(chance.choice((0, 50, 400))) for _ in ids]
        options = TaskOptions(durable=chance.random() < 0.8)
        if pool.scheduler.intake.submit_many(pool.now, ids, "work", payloads, options, 1, chance.random() < 0.5):
            self._ids += ids
        pool.flush()

    def _end_one(self) -> None:
        in_flight = self._pool.scheduler.state.slots["worker-0"].in_flight
        if in_flight and in_flight[0].state is TaskState.RUNNING:
            (self._pool.fail if self._chance.random() < 0.2 else self._pool.done)(in_flight[0].id)

    def _hear(self) -> None:
        if self._answers:
            refill, records = self._answers.pop(0)
            if self._chance.random() < 0.2:
                self._pool.scheduler.recovery.not_loaded(refill.number)
                self._pool.flush()
            else:
                self._pool.answer([(refill, records)])

    def _wait(self) -> None:
        self._pool.advance(self._chance.random())

    def _look_up(self) -> None:
        if not self._ids:
            return
        pool, recovery = self._pool, self._pool.scheduler.recovery
        pool.keep()
        id = self._chance.choice(self._ids)
        if id in pool.scheduler.state.tasks:
            pool.cancel(id)
            return
        record = pool.store.record(id)
        recovery.look_up(True)
        if record is not None and record.state not in FINAL:
            found = recovery.fetch(record, pool.now)
            if found is not None and self._chance.random() < 0.6:
                pool.scheduler.intake.cancel(id, False, 7, pool.now)
        recovery.look_up(False)
        pool.flush()

    def end(self) -> None:
        """No more comes; all that is there is run."""
        pool, state = self._pool, self._pool.scheduler.state
        while state.waiting or state.tasks:
            while self._answers:
                self._pool.answer([self._answers.pop(0)])
            in_flight = state.slots["worker-0"].in_flight
            if in_flight:
                pool.done(in_flight[0].id)
            else:
                pool.advance(1.0)
            assert pool.now < 20_000.0, f"{state.waiting} wait, and nothing happens"
        pool.keep()

    def check(self) -> None:
        """Every task has its end, and nothing is counted that is not there."""
        pool, state = self._pool, self._pool.scheduler.state
        records = [pool.store.record(id) for id in self._ids]
        assert [each.order for each in records if each is not None and each.state not in FINAL] == []
        counted = (state.payloads.held, state.scheduled, state.scheduled_weight, state.absent, state.sessions[1].calls)
        assert counted == (0, 0, 0, {}, {})
        assert pool.events("shelf-corrected") == []


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_each_task_has_its_end(first: int) -> None:
    for seed in range(first, first + 20):
        traffic = Traffic(seed)
        for _ in range(STEPS):
            traffic.step()
        traffic.end()
        traffic.check()

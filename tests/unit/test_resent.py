"""Submits that are sent again, where the store's word is old by the time that it comes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from poolmgr.errors import StoreUnavailable
from poolmgr.manager.lookups import Found, LookUps
from poolmgr.model import TaskState
from poolmgr.server.resent import look_up
from tests.conformance.samples import record, task_id


class Store:
    """Shows one thing after the other; of what waits, only what is ``there`` can be taken into memory."""

    def __init__(self, *shown: TaskState | StoreUnavailable, there: bool) -> None:
        self._shown = list(shown)
        self._there = there

    async def records(self, ids: list[bytes]) -> Found:
        state = self._shown.pop(0)
        if isinstance(state, StoreUnavailable):
            raise state
        return Found(frozenset(ids), {id: record(1, state=state) for id in ids}, b"", frozenset())

    def take(self, known: Any) -> Any:
        return known if self._there else None


def _looked_up(store: Store) -> Found | StoreUnavailable:
    return asyncio.run(look_up(cast(LookUps, store), [task_id(1)]))


def test_one_that_has_ended_since_it_was_read_is_looked_up_again() -> None:
    found = _looked_up(Store(TaskState.QUEUED, TaskState.COMPLETED, there=False))
    assert isinstance(found, Found)
    assert found.records[task_id(1)].state is TaskState.COMPLETED


def test_one_that_waits_is_looked_up_once() -> None:
    found = _looked_up(Store(TaskState.QUEUED, there=True))
    assert isinstance(found, Found)
    assert found.records[task_id(1)].state is TaskState.QUEUED


def test_a_store_that_refuses_says_why() -> None:
    refusal = StoreUnavailable("full")
    assert _looked_up(Store(refusal, there=True)) is refusal

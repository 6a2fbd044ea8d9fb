"""What waits may be many: what one task takes is counted, so that it does not grow unnoticed."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import pytest

from poolmgr.core.task import Task
from poolmgr.manager.recent_ids import RecentIds
from poolmgr.model import TaskOptions
from poolmgr.server.options import OptionCache
from poolmgr.server.submits import Submits
from poolmgr.version import is_compiled
from poolmgr.wire.framing import Decoder, encode
from poolmgr.wire.messages import SUBMIT
from tests.unit.driver import Pool

_TASKS = 20_000
_PAYLOAD = 100
_AT_MOST = 500  # bytes; on Python 3.11 it is some 480, of which 182 are the id and the payload


def _submit(pool: Pool, options: TaskOptions) -> None:
    """Without the driver, which keeps all effects and asks for the invariants after each."""
    ids = [number.to_bytes(16, "big") for number in range(1, _TASKS + 1)]
    payloads = [bytes(bytearray(_PAYLOAD)) for _ in ids]
    assert pool.scheduler.intake.submit_many(pool.now, ids, "work", payloads, options, 1, True)


def test_a_queued_call_takes_no_more_than_it_did() -> None:
    pool = Pool(workers=0, min_workers=0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        _submit(pool, TaskOptions(durable=False))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(pool.scheduler.state.tasks) == _TASKS
    assert (after - before) / _TASKS <= _AT_MOST


@pytest.mark.skipif(is_compiled(), reason="there a number is no object")
def test_what_calls_of_one_client_have_in_common_is_one_object() -> None:
    pool = Pool(workers=0, min_workers=0)
    _submit(pool, TaskOptions(durable=False))
    first, *_, last = pool.scheduler.state.tasks.values()
    shared = [name for name in Task.__slots__ if getattr(first, name) is getattr(last, name)]
    assert set(Task.__slots__) - set(shared) == {"id", "order", "payload"}


def test_the_same_of_calls_that_come_one_by_one() -> None:
    pool = Pool(workers=0, min_workers=0)
    manager: Any = SimpleNamespace(scheduler=pool.scheduler, shell=SimpleNamespace(recent_ids=RecentIds(0.0)))
    submits = Submits(manager, OptionCache({"work": TaskOptions(durable=False)}), 1)
    decoder = Decoder()
    for number in (1, 2):
        data = encode((SUBMIT, number.to_bytes(16, "big"), "work", bytes(_PAYLOAD), None, True))
        assert submits.one(decoder.feed(data)[0], pool.now, lambda task_id, error: None)
    first, second = pool.scheduler.state.tasks.values()
    assert first.name is second.name
    assert first.options is second.options
    assert first.watchers is second.watchers

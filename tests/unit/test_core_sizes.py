"""What waits may be many: what one task takes in the core is counted, so that it does not grow unnoticed."""

from __future__ import annotations

import tracemalloc

from poolmgr.core.task import Task
from poolmgr.model import TaskOptions
from tests.unit.driver import Pool

_TASKS = 20_000
_PAYLOAD = 100
_AT_MOST = 450  # bytes; on Python 3.11 it is 427, of which 182 are the id and the payload


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


def test_what_calls_of_one_client_have_in_common_is_one_object() -> None:
    pool = Pool(workers=0, min_workers=0)
    _submit(pool, TaskOptions(durable=False))
    first, *_, last = pool.scheduler.state.tasks.values()
    shared = [name for name in Task.__slots__ if getattr(first, name) is getattr(last, name)]
    assert set(Task.__slots__) - set(shared) == {"id", "order", "payload"}

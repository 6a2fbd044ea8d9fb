"""Which worker gets which task, and when a worker has had enough of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from poolmgr.core.balancer import Affine, Balancer, LeastLoaded, MostRecent, RoundRobin, Waiting
from poolmgr.core.effects import Start
from poolmgr.core.slot import Slot
from tests.unit.driver import Pool


def _fast(workers: int = 1, **settings: Any) -> Pool:
    """A pool that knows the name "fast" to run for 0.1 ms: ten of them make a millisecond."""
    pool = Pool(workers=workers, **settings)
    pool.teach("fast", 0.0001)
    return pool


def _line(pool: Pool, worker: str = "worker-0") -> list[bytes]:
    return [task.id for task in pool.slot(worker).in_flight]


# ------------------------------------------------------------------------------------- starting


def test_a_task_starts_in_the_same_flush_as_its_submit() -> None:
    pool = Pool()
    task = pool.submit("thumbnail", payload=b"a.png", timeout_s=5.0, soft_timeout_s=4.0)
    [start] = pool.new(Start)
    assert start == Start("worker-0", 1, 1, task, 1, "thumbnail", b"a.png", 5.0, 4.0, commit=0)


def test_each_dispatch_has_the_next_fence() -> None:
    pool = Pool(workers=2)
    first, second = pool.submit(retry_backoff_s=0.0), pool.submit()
    pool.fail(first)
    assert [(start.task_id, start.fence, start.attempt) for start in pool.all(Start)] == [
        (first, 1, 1),
        (second, 2, 1),
        (first, 3, 2),
    ]


def test_one_after_the_other_goes_to_the_worker_that_was_at_work_last() -> None:
    pool = Pool(workers=3)
    for _ in range(2):
        pool.done(pool.submit())
    first, second = pool.submit_many(2)
    pool.done(first)
    pool.done(second)
    pool.fail(pool.submit(max_retries=0))
    pool.done(pool.submit())
    assert [int(start.worker[-1]) for start in pool.all(Start)] == [0, 0, 0, 1, 1, 0]


def test_round_robin_takes_turns() -> None:
    pool = Pool(workers=3, balancer=Affine(RoundRobin()))
    for _ in range(6):
        pool.done(pool.submit())
    assert [int(start.worker[-1]) for start in pool.all(Start)] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("balancer", [MostRecent, RoundRobin])
def test_to_choose_among_many_idle_workers_looks_at_one(
    monkeypatch: pytest.MonkeyPatch, balancer: type[Balancer]
) -> None:
    def look_at_all(self: Waiting) -> Iterator[Slot]:
        raise AssertionError("it looks at every worker")

    pool = Pool(workers=50, balancer=Affine(balancer()))
    for task in pool.submit_many(50):
        pool.done(task)
    monkeypatch.setattr(Waiting, "__iter__", look_at_all)
    monkeypatch.setattr(Waiting, "__reversed__", look_at_all)
    for number in range(60):
        pool.done(pool.submit())
        assert pool.all(Start)[-1].worker == f"worker-{49 if balancer is MostRecent else number % 50}"


def test_nothing_waits_behind_a_task_that_may_be_long_while_a_worker_may_become_free() -> None:
    """What is urgent and short would be recalled from worker to worker, and never be there when one is free."""
    pool = _fast(workers=2)
    pool.teach("slow", 0.020)
    first, second, third = (pool.submit("slow") for _ in range(3))
    urgent = pool.submit("fast", priority=0)
    pool.submit("fast")
    assert [_line(pool, f"worker-{number}") for number in range(2)] == [[first], [second]]
    pool.advance(0.015)
    pool.done(second)
    assert _line(pool, "worker-1")[0] == urgent
    pool.done(urgent)
    assert pool.running() == [first, third]


def test_those_that_wait_are_a_sequence() -> None:
    slots = [Slot(f"worker-{number}") for number in range(3)]
    waiting = Waiting({slot.id: slot for slot in slots})
    assert [*waiting] == slots == [waiting[0], waiting[1], waiting[-1]] == waiting[:]
    assert len(waiting) == 3
    assert slots[1] in waiting


def test_what_finds_no_worker_waits_and_starts_when_one_is_ready() -> None:
    pool = Pool()
    first, second = pool.submit(), pool.submit()
    assert pool.state(second) == "queued"
    pool.done(first)
    assert pool.state(second) == "running"


def test_the_more_urgent_of_two_that_wait_goes_first() -> None:
    pool = Pool()
    first = pool.submit()
    normal, urgent = pool.submit(priority=10), pool.submit(priority=1)
    pool.done(first)
    assert pool.running() == [urgent]
    assert pool.state(normal) == "queued"


def test_no_start_waits_for_a_commit() -> None:
    pool = Pool()
    pool.submit(durable=True)
    [start] = pool.new(Start)
    assert start.commit == 0


def test_but_that_of_a_task_that_may_not_run_twice_does() -> None:
    pool = Pool(workers=2)
    pool.submit(restartable=False)
    [start] = pool.new(Start)
    assert start.commit == pool.scheduler.state.commit - 1
    pool.submit(restartable=False, durable=False)
    [start] = pool.new(Start)
    assert start.commit == 0


# ------------------------------------------------------------------------------------- capabilities, affinity


def test_a_capability_is_a_hard_requirement() -> None:
    pool = Pool(workers=2, capabilities={"worker-1": {"gpu", "big"}})
    first, second = pool.submit_many(2, requires=frozenset({"gpu"}))
    assert pool.worker_of(first) == "worker-1"
    assert pool.state(second) == "queued"
    pool.done(first)
    assert pool.worker_of(second) == "worker-1"


def test_what_nobody_can_do_hides_nobody() -> None:
    pool = Pool(capabilities={"worker-0": {"gpu"}})
    never = pool.submit(requires=frozenset({"gpu", "tpu"}), priority=0)
    ordinary = pool.submit(priority=100)
    assert pool.state(never) == "queued"
    assert pool.state(ordinary) == "running"


def test_affinity_prefers_the_worker_that_ran_the_same_key() -> None:
    pool = Pool(workers=3)
    first, other = pool.submit(affinity="model-a"), pool.submit()
    pool.done(first)
    pool.done(other)
    again = pool.submit(affinity="model-a")  # by now worker-1 was at work last
    assert pool.worker_of(again) == "worker-0"


def test_affinity_is_a_preference_and_waits_for_nobody() -> None:
    pool = Pool(workers=2)
    pool.submit(affinity="model-a")
    other = pool.submit(affinity="model-a")
    assert pool.worker_of(other) == "worker-1"


def test_a_new_process_holds_no_key() -> None:
    pool = Pool(workers=2)
    pool.done(pool.submit(affinity="a"))
    pool.die("worker-0")
    assert pool.worker_of(pool.submit(affinity="a")) == "worker-1"


def test_a_worker_remembers_only_its_latest_keys() -> None:
    pool = Pool()
    for key in range(200):
        pool.done(pool.submit(affinity=str(key)))
    held = pool.slot().affinities
    assert len(held) <= 64
    assert "199" in held
    assert "0" not in held


def test_the_balancer_that_is_given_is_asked() -> None:
    pool = Pool(workers=2, balancer=Affine(LeastLoaded()))
    pool.slot("worker-0").cpu_percent = 50.0
    assert pool.worker_of(pool.submit()) == "worker-1"


# ------------------------------------------------------------------------------------- retries and other workers


def test_a_retry_prefers_another_worker() -> None:
    pool = Pool(workers=2)
    task = pool.submit(retry_backoff_s=1.0)
    pool.fail(task)
    others = pool.submit_many(2)
    assert list(map(pool.worker_of, others)) == ["worker-1", "worker-0"]
    for other in others:
        pool.done(other)
    pool.advance(1.0)  # by now worker-0, where it failed, was at work last
    assert pool.worker_of(task) == "worker-1"


def test_a_retry_takes_the_same_worker_where_there_is_no_other() -> None:
    pool = Pool()
    task = pool.submit(retry_backoff_s=0.0)
    pool.fail(task)
    assert pool.worker_of(task) == "worker-0"


# ------------------------------------------------------------------------------------- recycling


def test_a_worker_is_recycled_after_max_tasks() -> None:
    pool = Pool(workers=2, max_tasks_per_worker=2)
    tasks = pool.submit_many(4)
    for task in tasks[:2]:
        pool.done(task)
    assert pool.retired() == []
    for task in tasks[2:]:
        pool.done(task)
    assert pool.retired() == ["worker-0", "worker-1"]


def test_prefetch_respects_max_tasks() -> None:
    pool = _fast(max_tasks_per_worker=20)
    tasks = pool.submit_many(9, "fast")
    assert _line(pool) == tasks[:4]
    for task in tasks[:4]:
        pool.done(task)
    assert pool.retired() == ["worker-0"]
    pool.die("worker-0", "exited 0")
    assert _line(pool) == tasks[4:]


def test_one_task_a_process() -> None:
    pool = Pool(max_tasks_per_worker=1)
    for number in range(1, 4):
        pool.done(pool.submit())
        assert pool.retired() == ["worker-0"] * number
        pool.die("worker-0", "exited 0")
    assert pool.slot().incarnation == 4
    assert pool.slot().state == "ready"


def test_an_ephemeral_task_has_a_process_of_its_own() -> None:
    pool = Pool(workers=2)
    task = pool.submit(ephemeral=True)
    assert pool.state(task) == "running"
    pool.done(task)
    assert pool.retired() == ["worker-0"]
    assert pool.slot("worker-0").state == "draining"


@pytest.mark.parametrize("ending", ["done", "fail"])
def test_its_process_ends_with_it_however_it_ends(ending: str) -> None:
    pool = Pool()
    task = pool.submit(ephemeral=True, max_retries=0)
    pool.done(task) if ending == "done" else pool.fail(task)
    assert pool.retired() == ["worker-0"]


def test_an_idle_used_process_is_given_up_for_an_ephemeral_task() -> None:
    pool = Pool(workers=3)
    for task in pool.submit_many(3):
        pool.done(task)
    task = pool.submit(ephemeral=True)
    assert len(pool.retired()) == 1, "no more of them than there are tasks"
    pool.submit("other")
    pool.advance(2.0)
    assert len(pool.retired()) == 1, "the new one is on its way"
    pool.die(pool.retired()[0], "exited 0")
    assert pool.state(task) == "running"


def test_an_ephemeral_task_is_not_starved_by_ordinary_ones() -> None:
    pool = Pool()
    first = pool.submit()
    waiting = pool.submit(ephemeral=True)
    pool.submit_many(5)
    pool.done(first)
    pool.die("worker-0", "exited 0")
    assert pool.running() == [waiting]


def test_an_ephemeral_task_takes_none_that_lacks_its_capability() -> None:
    pool = Pool(workers=2, capabilities={"worker-1": {"gpu"}})
    for task in pool.submit_many(2):
        pool.done(task)
    pool.submit(ephemeral=True, requires=frozenset({"gpu"}))
    assert pool.retired() == ["worker-1"]

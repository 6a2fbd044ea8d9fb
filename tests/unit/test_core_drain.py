"""The way out: running work finishes, durable work stays, and nobody pays for it."""

from __future__ import annotations

from tests.unit.driver import Pool


def test_a_drain_lets_running_work_finish_keeps_what_is_durable_and_loses_the_rest() -> None:
    pool = Pool()
    running, durable, call = pool.submit(), pool.submit(), pool.submit(durable=False)
    delayed = pool.submit(durable=False, delay_s=99.0)
    pool.scheduler.drain(pool.now)
    pool.flush()
    assert not pool.drained()
    assert [pool.end(task).code for task in (call, delayed)] == ["lost", "lost"]
    pool.done(running)
    assert pool.state(running) == "completed"
    assert pool.state(durable) == "queued"
    assert pool.drained()


def test_an_idle_pool_is_drained_at_once_and_says_so_once() -> None:
    pool = Pool()
    for _ in range(3):
        pool.scheduler.drain(pool.now)
        pool.flush()
    assert len([effect for effect in pool.effects if type(effect).__name__ == "Drained"]) == 1


def test_a_failure_during_a_drain_keeps_the_retry_of_what_is_durable() -> None:
    pool = Pool(workers=2)
    durable, call = pool.submit(), pool.submit(durable=False)
    pool.scheduler.drain(pool.now)
    pool.fail(durable)
    pool.fail(call)
    assert pool.state(durable) == "scheduled"
    assert pool.state(call) == "dead"


def test_a_drain_recalls_what_is_prefetched() -> None:
    pool = Pool()
    pool.teach("fast", 0.0001)
    first, second = pool.submit_many(2, "fast")
    call = pool.submit("fast", durable=False)
    pool.scheduler.drain(pool.now)
    pool.recalled("worker-0", second, call)
    assert pool.state(second) == "queued"
    assert pool.end(call).code == "lost"
    pool.done(first)
    assert pool.drained()


def test_stopping_now_costs_the_tasks_nothing() -> None:
    pool = Pool(workers=2)
    durable, call = pool.submit(), pool.submit(durable=False)
    pool.scheduler.stop_now(pool.now)
    pool.flush()
    assert [reason for _, reason in pool.killed()] == ["shutdown", "shutdown"]
    pool.die("worker-0")
    pool.die("worker-1")
    assert pool.state(durable) == "queued"
    assert pool.task(durable).past.failures == 0
    assert pool.end(call).code == "lost"
    assert pool.drained()


def test_a_submit_that_is_sent_again_during_a_drain_is_recognised() -> None:
    pool = Pool()
    running, waiting = pool.submit(), pool.submit()
    pool.scheduler.drain(pool.now)
    pool.flush()
    for known in (running, waiting):
        assert pool.submit(id=known) == known
    pool.done(running)
    assert pool.drained()

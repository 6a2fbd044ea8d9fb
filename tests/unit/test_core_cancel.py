"""Cancelling a task in every state that it can be in."""

from __future__ import annotations

import pytest

from poolmgr.core.changes import TaskAdded, TaskEnded, TaskMoved
from poolmgr.core.effects import Answer, Interrupt, Kill, Look, Persist, Recall
from poolmgr.errors import NotFound
from poolmgr.model import TaskOptions
from tests.unit.driver import Pool


def _prefetched() -> tuple[Pool, bytes, bytes]:
    pool = Pool()
    pool.teach("fast", 0.0001)
    first, second = pool.submit_many(2, "fast")
    return pool, first, second


def _answers(pool: Pool) -> list[object]:
    return [answer.value for answer in pool.all(Answer)]


def test_a_queued_task() -> None:
    pool = Pool()
    pool.submit()
    task = pool.submit()
    pool.cancel(task)
    [ended] = pool.changes(TaskEnded)
    assert (ended.id, ended.state, ended.started_at) == (task, "cancelled", None)
    [answer] = pool.new(Answer)
    assert answer == Answer(7, True, pool.end(task).commit)
    assert answer.commit > 0


def test_a_queued_task_that_is_not_durable_is_answered_at_once() -> None:
    pool = Pool()
    pool.submit()
    pool.cancel(pool.submit(durable=False))
    assert pool.new(Answer) == [Answer(7, True, 0)]


def test_a_delayed_task() -> None:
    pool = Pool()
    task = pool.submit(delay_s=5.0)
    pool.cancel(task)
    assert pool.state(task) == "cancelled"
    pool.advance(10.0)
    assert pool.running() == []


def test_a_task_that_waits_for_its_retry() -> None:
    pool = Pool()
    task = pool.submit()
    pool.fail(task)
    pool.cancel(task)
    assert pool.state(task) == "cancelled"


def test_a_running_task_without_kill_goes_on() -> None:
    pool = Pool()
    task = pool.submit()
    pool.cancel(task)
    assert _answers(pool) == [False]
    pool.done(task)
    assert pool.state(task) == "completed"


def test_that_it_does_not_run_again_is_kept_before_it_is_answered() -> None:
    pool = Pool()
    task = pool.submit()
    pool.cancel(task)
    _is_kept(pool, task)


def test_so_it_is_for_one_that_began_as_it_was_recalled() -> None:
    pool, first, second = _prefetched()
    pool.cancel(second)
    pool.done(first)
    pool.advance(0.02)
    _is_kept(pool, second)


def test_one_that_is_cancelled_before_it_is_kept_at_all() -> None:
    pool = Pool(max_queue_depth=1)
    intake, id = pool.scheduler.intake, b"a" * 16
    for each in (id, b"b" * 16):  # for the second there is room only once the first runs
        intake.submit(pool.now, each, "work", b"", TaskOptions(), 1, False)
    intake.cancel(id, False, 7, pool.now)
    pool.flush()
    assert id in [added.task.id for added in pool.changes(TaskAdded)]
    _is_kept(pool, id)


def _is_kept(pool: Pool, task: bytes) -> None:
    moved = pool.changes(TaskMoved)[-1]
    assert (moved.id, moved.state, moved.cancel_wanted) == (task, "running", True)
    commit = next(each.number for each in pool.all(Persist) if moved in each.changes)
    assert pool.all(Answer) == [Answer(7, False, commit)]


def test_a_running_task_is_told_once() -> None:
    pool = Pool()
    task = pool.submit()
    pool.cancel(task)
    pool.cancel(task)
    pool.advance(1.0)
    assert pool.all(Interrupt) == [Interrupt("worker-0", 1, pool.task(task).fence, "cancelled")]


def test_it_is_told_when_the_page_shows_that_it_has_begun() -> None:
    pool = Pool()
    task = pool.submit()
    pool.pages["worker-0"] = (0, 0.0)
    pool.cancel(task)
    pool.advance(0.5)
    assert pool.all(Interrupt) == []
    pool.pages["worker-0"] = (pool.task(task).fence, pool.now)
    pool.advance(0.11)
    assert [each.reason for each in pool.all(Interrupt)] == ["cancelled"]


def test_it_is_told_of_its_soft_time_out_as_well() -> None:
    pool = Pool()
    task = pool.submit(soft_timeout_s=1.0)
    pool.cancel(task)
    pool.advance(2.0)
    assert [each.reason for each in pool.all(Interrupt)] == ["cancelled", "soft_timeout"]


def test_a_running_task_that_fails_afterwards_is_cancelled_and_not_retried() -> None:
    pool = Pool()
    task = pool.submit()
    pool.cancel(task)
    pool.fail(task)
    assert pool.state(task) == "cancelled"
    assert _answers(pool) == [False]


def test_so_is_one_whose_worker_dies() -> None:
    pool = Pool()
    task = pool.submit()
    pool.cancel(task)
    pool.die("worker-0")
    assert pool.state(task) == "cancelled"


def test_a_call_that_runs_is_told_when_its_client_goes() -> None:
    pool = Pool()
    task = pool.submit(durable=False)
    fence = pool.task(task).fence
    pool.disconnect(1)
    assert pool.all(Interrupt) == [Interrupt("worker-0", 1, fence, "cancelled")]
    pool.done(task)


def test_a_prefetched_call_is_told_when_it_begins_after_all() -> None:
    pool = Pool()
    pool.teach("fast", 0.0001)
    first, second = pool.submit_many(2, "fast", durable=False)
    fence = pool.task(second).fence
    pool.disconnect(1)
    pool.done(first)
    pool.advance(0.0)
    assert Interrupt("worker-0", 1, fence, "cancelled") in pool.all(Interrupt)


def test_a_call_that_others_wait_for_is_told_nothing() -> None:
    pool = Pool()
    task = pool.submit(durable=False)
    pool.scheduler.intake.connected(2)
    pool.scheduler.intake.watch(task, 2)
    pool.disconnect(1)
    assert pool.all(Interrupt) == []
    pool.fail(task)
    assert pool.state(task) == "scheduled"


def test_a_running_task_with_kill_costs_it_its_worker_and_no_failure() -> None:
    pool = Pool()
    task = pool.submit()
    pool.cancel(task, kill=True)
    assert pool.killed() == [("worker-0", "cancelled")]
    assert _answers(pool) == []
    pool.die("worker-0")
    assert pool.state(task) == "cancelled"
    assert pool.changes(TaskEnded)[0].failures == 0
    assert pool.scheduler.state.statistics.failed_attempts == 0
    assert _answers(pool) == [True]
    assert pool.slot().state == "ready", "replaced at once"


def test_a_kill_waits_until_the_page_shows_the_task() -> None:
    pool = Pool()
    task = pool.submit()
    pool.pages["worker-0"] = (0, 0.0)
    pool.cancel(task, kill=True)
    pool.advance(0.5)
    assert pool.all(Look)
    assert pool.killed() == []
    pool.pages["worker-0"] = (pool.task(task).fence, pool.now)
    pool.advance(0.11)
    assert pool.killed() == [("worker-0", "cancelled")]


def test_a_task_that_completes_before_it_is_killed_has_completed() -> None:
    pool = Pool()
    task = pool.submit()
    pool.cancel(task, kill=True)
    pool.done(task)
    assert pool.state(task) == "completed"
    assert _answers(pool) == [False]


def test_a_task_that_fails_before_it_is_killed_is_cancelled_and_not_retried() -> None:
    pool = Pool()
    task = pool.submit()
    pool.cancel(task, kill=True)
    pool.fail(task)
    assert pool.state(task) == "cancelled"
    assert _answers(pool) == [True]


def test_the_next_task_is_not_charged_for_a_kill_that_came_too_late() -> None:
    pool, first, second = _prefetched()
    pool.cancel(first, kill=True)
    pool.done(first)
    pool.die("worker-0")
    assert pool.state(second) == "running"
    assert pool.task(second).past.failures == 0


def test_a_prefetched_task_is_recalled_and_cancelled_when_it_comes_back() -> None:
    pool, first, second = _prefetched()
    pool.cancel(second)
    assert len(pool.new(Recall)) == 1
    assert _answers(pool) == []
    pool.recalled("worker-0", second)
    assert pool.state(second) == "cancelled"
    assert _answers(pool) == [True]
    assert pool.state(first) == "running"


@pytest.mark.parametrize("kill", [False, True])
def test_a_prefetched_task_that_begins_first(kill: bool) -> None:
    pool, first, second = _prefetched()
    pool.cancel(second, kill=kill)
    pool.done(first)
    pool.advance(0.02)
    if kill:
        assert pool.killed() == [("worker-0", "cancelled")]
        pool.die("worker-0")
        assert pool.state(second) == "cancelled"
        assert _answers(pool) == [True]
    else:
        assert _answers(pool) == [False]
        assert pool.state(second) == "running"


def test_two_who_cancel_are_both_answered() -> None:
    pool, _, second = _prefetched()
    pool.cancel(second, token=1)
    pool.cancel(second, token=2)
    assert len(pool.all(Recall)) == 1
    pool.recalled("worker-0", second)
    assert [(answer.token, answer.value) for answer in pool.new(Answer)] == [(1, True), (2, True)]


def test_a_task_that_has_ended_or_never_was() -> None:
    pool = Pool()
    task = pool.submit()
    pool.done(task)
    for id in (task, b"\xff" * 16):
        with pytest.raises(NotFound, match=id.hex()):
            pool.cancel(id)


def test_a_worker_that_dies_with_a_cancelled_task_behind_it() -> None:
    pool, first, second = _prefetched()
    pool.cancel(second)
    pool.die("worker-0")
    assert pool.state(second) == "cancelled"
    assert pool.state(first) == "scheduled"


def test_clear_cancels_all_that_wait_and_nothing_that_runs() -> None:
    pool = Pool()
    running, queued, delayed = pool.submit(), pool.submit(), pool.submit(delay_s=60.0)
    assert pool.scheduler.intake.clear(pool.now) == 2
    pool.flush()
    assert [pool.state(task) for task in (running, queued, delayed)] == ["running", "cancelled", "cancelled"]


def test_a_killed_worker_gets_no_second_kill() -> None:
    pool = Pool()
    task = pool.submit(timeout_s=5.0)
    pool.cancel(task, kill=True)
    pool.cancel(task, kill=True)
    pool.advance(6.0)
    assert len(pool.all(Kill)) == 1

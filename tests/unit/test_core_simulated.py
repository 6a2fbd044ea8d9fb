"""What the simulator has found in the scheduler, each in as few steps as show it."""

from __future__ import annotations

from poolmgr.core.effects import Answer, Finished, Inspect, Look, Recall, Start
from poolmgr.model import TaskOptions
from tests.unit.driver import Pool


def _fast() -> Pool:
    pool = Pool()
    pool.teach("fast", 0.0001)
    return pool


def test_a_page_with_a_task_that_may_be_short_proves_nothing() -> None:
    """After a task of under 1 ms the worker begins the next without looking for recalls."""
    pool = _fast()
    _, second = pool.submit_many(2, "fast")
    pool.cancel(second)
    assert pool.new(Recall)
    pool.recall_sent("worker-0")
    assert pool.worker_of(second) == "worker-0"
    assert pool.all(Answer) == []


def test_a_task_that_turns_out_to_be_slow_is_asked_again_for_what_waits_behind_it() -> None:
    """The answer to an earlier recall may be as far away as the slow task's end."""
    pool = _fast()
    _, second = pool.submit_many(2, "fast")
    pool.cancel(second)
    pool.recall_sent("worker-0")
    pool.advance(0.02)
    assert pool.new(Recall)
    pool.recall_sent("worker-0")
    assert pool.state(second) == "cancelled"


def test_a_start_names_the_process_that_it_is_for() -> None:
    """It may wait for its commit while its process dies and another comes."""
    pool = Pool()
    pool.submit(restartable=False)
    pool.pages["worker-0"] = (0, 0.0)
    pool.die("worker-0")
    first, second = pool.all(Start)
    assert (first.incarnation, second.incarnation) == (1, 2)
    assert first.commit < second.commit


def test_a_cancelled_retry_is_not_said_never_to_have_begun() -> None:
    pool = Pool()
    task = pool.submit(durable=False)
    pool.fail(task)
    pool.cancel(task)
    assert pool.state(task) == "cancelled"
    assert pool.new(Answer) == [Answer(7, False, 0)]


def test_a_killed_retry_is_said_to_have_been_ended() -> None:
    pool = Pool()
    task = pool.submit(durable=False)
    pool.fail(task)
    pool.cancel(task, kill=True)
    assert pool.new(Answer) == [Answer(7, True, 0)]


def test_a_submit_that_comes_twice_under_a_key_is_told_once() -> None:
    pool = Pool()
    first = pool.submit(key="k")
    options = TaskOptions(key="k")
    for _ in range(2):
        pool.scheduler.intake.submit(pool.now, b"other", "work", b"", options, 1, True)
    pool.done(first)
    assert [each.task_id for each in pool.all(Finished)] == [first, b"other"]


def test_a_heart_that_beats_while_it_is_looked_at_is_no_zombies() -> None:
    """A worker that waits for work is asleep, too."""
    pool = Pool(zombie_after_s=30.0)
    pool.silent.add("worker-0")
    pool.advance(32.0)
    assert len(pool.all(Inspect)) == 1
    pool.scheduler.heartbeat("worker-0", 1, pool.now)
    pool.scheduler.inspected("worker-0", 1, "asleep", pool.now)
    pool.flush()
    assert pool.killed() == []


def test_a_page_that_does_not_change_is_read_less_and_less_often() -> None:
    pool = Pool()
    pool.submit(timeout_s=1.0)
    pool.pages["worker-0"] = (0, 0.0)
    pool.advance(2.0)
    assert 10 <= len(pool.all(Look)) <= 20

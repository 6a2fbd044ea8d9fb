"""What becomes of a task: every way through its states, and what is told and kept on the way."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from poolmgr.core.changes import AttemptEnded, TaskAdded, TaskEnded, TaskMoved
from poolmgr.core.effects import Finished, Persist, Progressed
from poolmgr.core.failure import Failure
from poolmgr.core.state import MARK_AFTER_S
from poolmgr.payload import inline
from poolmgr.wire.pickled import CALL
from tests.unit.driver import VALUE_ERROR, WALL_OFFSET, Pool


def _retry(delay_s: float | bool) -> Failure:
    return VALUE_ERROR._replace(retry_delay_s=delay_s)


def _code(code: str) -> Failure:
    return Failure(code, "no", types=("Whatever",))


# ------------------------------------------------------------------------------------- completed


def test_a_task_completes_and_its_result_waits_for_the_commit() -> None:
    pool = Pool()
    task = pool.submit()
    pool.done(task, payload=b"42")
    [persist] = pool.new(Persist)
    assert pool.new(Finished) == [Finished(1, task, "completed", "", b"42", commit=persist.number)]  # type: ignore[arg-type]
    assert pool.latest.index(persist) == 0


def test_what_is_not_durable_is_told_at_once_and_not_kept() -> None:
    pool = Pool()
    task = pool.submit(durable=False)
    pool.done(task)
    assert pool.end(task).commit == 0
    assert pool.all(Persist) == []


def test_what_is_kept_of_a_completed_task() -> None:
    pool = Pool()
    task = pool.submit(result_ttl_s=60.0)
    pool.advance(3.0)
    pool.done(task, run_s=2.0, payload=b"42")
    [ended] = pool.changes(TaskEnded)
    wall = pool.now + WALL_OFFSET
    assert ended == TaskEnded(
        task, "completed", wall, wall - 2.0, 1, 0, "worker-0", "", "", b"42", wall + 60.0  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_submit_and_its_start_are_one_record() -> None:
    pool = Pool()
    task = pool.submit("thumbnail", payload=b"a.png", priority=3)
    [persist] = pool.new(Persist)
    [added] = persist.changes
    assert isinstance(added, TaskAdded)
    assert (added.task.id, added.task.name, added.task.payload) == (task, "thumbnail", b"a.png")
    assert added.task.attempt == 1


def test_that_a_task_runs_is_kept_once_it_has_for_a_while() -> None:
    """A daemon that dies sooner has not interrupted it, also where it began as it was submitted."""
    pool = Pool()
    task = pool.submit()
    [added] = pool.changes(TaskAdded)
    assert (pool.state(task), added.task.state) == ("running", "queued")
    pool.advance(MARK_AFTER_S)
    [moved] = pool.changes(TaskMoved)
    assert (moved.id, moved.state) == (task, "running")


def test_that_it_runs_is_kept_at_once_where_the_start_waits_for_it() -> None:
    pool = Pool()
    pool.submit(restartable=False)
    [added] = pool.changes(TaskAdded)
    assert added.task.state == "running"
    pool.advance(MARK_AFTER_S)
    assert not pool.changes(TaskMoved)


def test_run_and_wait_times_are_measured_from_when_it_began() -> None:
    pool = Pool()
    task = pool.submit()
    pool.advance(3.0)
    pool.done(task, run_s=1.0)
    statistics = pool.scheduler.state.statistics
    assert list(statistics.run_s) == [1.0]
    assert list(statistics.wait_s) == [2.0]
    assert (statistics.submitted, statistics.completed, statistics.executed) == (1, 1, 1)


def test_progress_is_passed_on_to_whoever_watches_only_while_it_runs() -> None:
    pool = Pool()
    task = pool.submit()
    fence = pool.task(task).fence
    pool.scheduler.progressed("worker-0", fence, 0.4, "msg")
    assert pool.flush() == [Progressed(1, task, 0.4, "msg")]
    pool.scheduler.progressed("worker-0", fence + 1, 0.5, "other")
    assert pool.flush() == []


# ------------------------------------------------------------------------------------- failed and tried again


def test_a_failed_task_is_tried_again_after_its_backoff() -> None:
    pool = Pool()
    task = pool.submit(max_retries=2, retry_backoff_s=4.0)
    pool.fail(task)
    assert pool.state(task) == "scheduled"
    pool.advance(3.9)
    assert pool.state(task) == "scheduled"
    pool.advance(0.1)
    assert pool.state(task) == "running"
    pool.fail(task)
    pool.advance(7.9)
    assert pool.state(task) == "scheduled"
    pool.advance(0.1)
    assert pool.state(task) == "running"
    assert pool.task(task).attempt == 3


def test_a_backoff_is_kept_on_disk_as_wall_time() -> None:
    pool = Pool()
    task = pool.submit(retry_backoff_s=4.0)
    pool.fail(task)
    [moved] = [change for persist in pool.new(Persist) for change in persist.changes if isinstance(change, TaskMoved)]
    assert moved == TaskMoved(task, "scheduled", pool.now + 4.0 + WALL_OFFSET, 1, 1, 0, 0)  # type: ignore[arg-type]


def test_without_a_backoff_it_is_queued_at_once() -> None:
    pool = Pool()
    task = pool.submit(retry_backoff_s=0.0)
    pool.fail(task)
    assert pool.state(task) == "running"


def test_a_task_that_used_up_its_failures_is_a_dead_letter_with_its_whole_history() -> None:
    pool = Pool()
    task = pool.submit(max_retries=2, retry_backoff_s=1.0)
    for backoff_s in (1.0, 2.0, 0.0):
        pool.fail(task)
        pool.advance(backoff_s)
    assert pool.state(task) == "dead"
    assert [change.attempt.attempt for change in pool.changes(AttemptEnded)] == [1, 2, 3]
    info = pool.changes(AttemptEnded)[0].attempt
    assert (info.worker, info.cause, info.type, info.message) == ("worker-0", "task_failed", "ValueError", "bad")
    assert info.ended_at == 1000.0 + WALL_OFFSET
    [ended] = pool.changes(TaskEnded)
    assert (ended.failures, ended.code, ended.message, ended.expires_at) == (3, "task_failed", "bad", None)
    assert msgpack.unpackb(inline(pool.end(task).outcome))["type"] == "ValueError"


def test_a_pickled_call_is_no_dead_letter_unless_it_is_durable() -> None:
    """Its caller has the error, and nobody would purge it."""
    pool = Pool()
    task = pool.submit(CALL, durable=False, max_retries=0)
    pool.fail(task)
    assert pool.end(task).state == "dead"
    assert pool.all(Persist) == []
    pool.fail(pool.submit(CALL, max_retries=0))
    assert [ended.state for ended in pool.changes(TaskEnded)] == ["dead"]


def test_a_dead_letter_that_was_not_durable_is_kept_in_memory_whole() -> None:
    pool = Pool()
    task = pool.submit(durable=False, max_retries=0)
    pool.fail(task)
    [persist] = pool.all(Persist)
    assert (persist.number, persist.durable) == (0, False)
    assert [type(change) for change in persist.changes] == [TaskAdded, AttemptEnded, TaskEnded]
    assert pool.end(task).commit == 0


def test_no_retries() -> None:
    pool = Pool()
    task = pool.submit(max_retries=0)
    pool.fail(task)
    assert pool.state(task) == "dead"


@pytest.mark.parametrize(
    ("policy", "state"),
    [
        ({"retry_on": frozenset({"ValueError"})}, "scheduled"),
        ({"retry_on": frozenset({"KeyError"})}, "dead"),
        ({"no_retry_on": frozenset({"Exception"})}, "dead"),
        ({"no_retry_on": frozenset({"KeyError"})}, "scheduled"),
    ],
)
def test_the_policy_per_exception(policy: dict[str, Any], state: str) -> None:
    pool = Pool()
    task = pool.submit(**policy)
    pool.fail(task)
    assert pool.state(task) == state


@pytest.mark.parametrize("code", ["bad_arguments", "unknown_task", "bad_result"])
def test_what_would_fail_the_same_way_is_not_tried_again(code: str) -> None:
    pool = Pool()
    task = pool.submit()
    pool.fail(task, _code(code))
    assert pool.state(task) == "dead"
    assert pool.end(task).code == code


def test_a_handler_may_ask_for_its_retry_and_when() -> None:
    pool = Pool()
    task = pool.submit(no_retry_on=frozenset({"ValueError"}))
    pool.fail(task, _retry(7.5))
    pool.advance(7.4)
    assert pool.state(task) == "scheduled"
    pool.advance(0.1)
    assert pool.state(task) == "running"


def test_or_for_none() -> None:
    pool = Pool()
    task = pool.submit()
    pool.fail(task, _retry(False))
    assert pool.state(task) == "dead"


def test_a_retry_that_was_asked_for_counts_too() -> None:
    pool = Pool()
    task = pool.submit(max_retries=1)
    pool.fail(task, _retry(0.0))
    pool.fail(task, _retry(0.0))
    assert pool.state(task) == "dead"


def test_a_failure_that_is_retried_is_an_event_and_not_an_end() -> None:
    pool = Pool()
    task = pool.submit(max_retries=1, retry_backoff_s=0.0)
    pool.fail(task)
    assert pool.all(Finished) == []
    pool.fail(task)
    assert [event["retried"] for event in pool.events("task-failed")] == [True, False]
    assert pool.events("task-failed")[0]["error"] == "ValueError: bad"
    [dead] = pool.events("task-dead")
    assert (dead["task_id"], dead["failures"]) == (task.hex(), 2)
    statistics = pool.scheduler.state.statistics
    assert (statistics.failed_attempts, statistics.retried, statistics.dead) == (2, 1, 1)


def test_a_retry_waits_beside_others_and_not_before_them() -> None:
    pool = Pool()
    failing, other = pool.submit(), pool.submit()
    pool.fail(failing)
    assert pool.running() == [other]


# ------------------------------------------------------------------------------------- whose fault


@pytest.mark.parametrize("poison_after", [1, 2, 3])
def test_a_task_that_kills_workers_is_quarantined_after_exactly_poison_after(poison_after: int) -> None:
    pool = Pool(poison_after=poison_after)
    task = pool.submit(max_retries=50, retry_backoff_s=0.0)
    for _ in range(poison_after):
        assert pool.state(task) == "running"
        pool.die("worker-0")
    assert pool.state(task) == "dead"
    assert pool.end(task).code == "worker_died"
    assert "quarantined" in pool.changes(TaskEnded)[0].message


def test_out_of_memory_kills_too_and_other_failures_do_not() -> None:
    pool = Pool(poison_after=2, breaker_failures=0)
    task = pool.submit(max_retries=50, retry_backoff_s=0.0)
    for _ in range(5):
        pool.fail(task)
    pool.fail(task, _code("out_of_memory"))
    pool.die("worker-0", "exit code 0")  # which costs nobody
    pool.fail(task)
    assert pool.state(task) == "running"
    pool.fail(task, _code("out_of_memory"))
    assert pool.state(task) == "dead"
    assert pool.end(task).code == "out_of_memory"


def test_a_death_with_retries_left_is_retried_and_remembered_with_its_cause() -> None:
    pool = Pool()
    task = pool.submit()
    pool.die("worker-0", "killed by SIGSEGV")
    assert pool.state(task) == "scheduled"
    [change] = pool.changes(AttemptEnded)
    assert change.attempt.cause == "worker_died"
    assert "SIGSEGV" in change.attempt.message


def test_only_the_begun_one_is_charged_for_a_death() -> None:
    pool = Pool()
    pool.teach("fast", 0.0001)
    first, second, third = pool.submit_many(3, "fast", retry_backoff_s=10.0)
    pool.die("worker-0")
    assert pool.state(first) == "scheduled"
    assert [pool.task(task).past.failures for task in (first, second, third)] == [1, 0, 0]
    assert [pool.task(task).attempt for task in (second, third)] == [1, 1]


def test_a_worker_that_died_before_it_began_charges_nobody() -> None:
    pool = Pool()
    task = pool.submit()
    pool.pages["worker-0"] = (0, 0.0)
    pool.die("worker-0")
    assert pool.state(task) == "running", "the slot has a new process, and the task runs there"
    assert (pool.task(task).past.failures, pool.task(task).attempt) == (0, 1)


def _dies_unshown(pool: Pool, page: int = 0) -> None:
    pool.pages["worker-0"] = (page, 0.0)
    pool.die("worker-0")


def test_so_does_one_that_has_wiped_the_page_but_not_for_ever() -> None:
    pool = Pool(poison_after=3)
    task = pool.submit(max_retries=0)
    for _ in range(3):
        _dies_unshown(pool)
        assert (pool.task(task).past.failures, pool.task(task).attempt) == (0, 1)
    _dies_unshown(pool)
    assert (pool.end(task).state, pool.end(task).code) == ("dead", "worker_died")


def test_with_poison_after_1_too_one_such_death_is_free() -> None:
    pool = Pool(poison_after=1)
    task = pool.submit()
    _dies_unshown(pool)
    assert pool.state(task) == "running"
    _dies_unshown(pool)
    assert pool.state(task) == "dead"


def test_a_task_whose_worker_is_killed_for_others_pays_for_none() -> None:
    """A kill for what ran before it is explained, however often that happens."""
    pool = Pool(poison_after=1, max_restart_attempts=0)
    task = pool.submit()
    for _ in range(3):
        pool.scheduler.supervisor.doom(pool.slot(), "timeout", pool.task(task).fence - 1, pool.now)
        pool.flush()
        _dies_unshown(pool)
    assert (pool.state(task), pool.task(task).past.failures) == ("running", 0)


def test_the_first_in_line_is_charged_though_the_page_shows_the_next() -> None:
    """That one can not have begun: the first one's result would be in. Who has written that there is the first one."""
    pool = Pool()
    pool.teach("fast", 0.0001)
    first, second = pool.submit_many(2, "fast", retry_backoff_s=10.0)
    _dies_unshown(pool, pool.task(second).fence)
    assert [pool.task(task).past.failures for task in (first, second)] == [1, 0]
    assert (pool.state(first), pool.state(second), pool.task(second).attempt) == ("scheduled", "running", 1)


def test_not_restartable_is_never_tried_again() -> None:
    pool = Pool()
    task = pool.submit(restartable=False)
    pool.fail(task)
    assert pool.state(task) == "dead"
    assert pool.end(task).code == "task_failed"


def test_not_restartable_and_interrupted_is_dead() -> None:
    pool = Pool()
    task = pool.submit(restartable=False)
    pool.scheduler.stop_now(pool.now)
    pool.flush()
    pool.die("worker-0")
    assert pool.end(task).state == "dead"
    assert pool.end(task).code == "interrupted"


def test_not_restartable_and_never_begun_is_queued_again() -> None:
    pool = Pool()
    task = pool.submit(restartable=False)
    pool.pages["worker-0"] = (0, 0.0)
    pool.die("worker-0")
    assert pool.state(task) == "running"
    assert pool.task(task).attempt == 1

"""A running task gives its worker up: who is asked, what becomes of it, and that nothing starves."""

from __future__ import annotations

import pytest

from poolmgr.core.effects import Interrupt, Look, Start
from poolmgr.core.slot import READY_WITHIN_S
from poolmgr.errors import NotFound, WrongState
from tests.unit.driver import Pool


def _asked(pool: Pool) -> list[bytes]:
    """The tasks that were asked to give way, in that order."""
    started = {start.fence: start.task_id for start in pool.all(Start)}
    return [started[each.fence] for each in pool.all(Interrupt) if each.reason == "preempt"]


def _resumable(pool: Pool, *names: str) -> None:
    pool.scheduler.preemption.is_resumable = lambda task: task.name in names


# ------------------------------------------------------------------------------------- one task


def test_a_task_that_lets_go_is_back_at_its_old_place_and_pays_nothing() -> None:
    pool = Pool()
    first, second = pool.submit(), pool.submit()
    assert pool.preempt(first)
    assert _asked(pool) == [first]
    pool.release(first)
    assert pool.state(first) == "running"  # before the second, which came after it
    assert pool.state(second) == "queued"
    assert pool.task(first).attempt == 2
    assert pool.task(first).past.failures == 0
    assert pool.scheduler.state.statistics.preempted == 1
    [event] = pool.events("task-preempted")
    assert (event["task_id"], event["why"], event["how"]) == (first.hex(), "user", "released")


def test_a_task_that_waits_or_has_ended_is_not_asked() -> None:
    pool = Pool()
    running, waiting = pool.submit(), pool.submit()
    assert not pool.preempt(waiting)
    pool.done(running)
    with pytest.raises(NotFound):
        pool.preempt(running)


def test_what_may_not_be_run_again_is_never_asked() -> None:
    pool = Pool()
    task = pool.submit(restartable=False, durable=False)
    with pytest.raises(WrongState):
        pool.preempt(task)
    assert _asked(pool) == []


def test_it_is_told_once_however_often_that_is_asked() -> None:
    pool = Pool()
    task = pool.submit()
    assert pool.preempt(task)
    assert pool.preempt(task)
    pool.advance(1.0)
    assert _asked(pool) == [task]


def test_it_is_told_once_its_page_shows_that_it_has_begun() -> None:
    pool = Pool()
    pool.pages["worker-0"] = (0, 0.0)
    task = pool.submit()
    pool.pages["worker-0"] = (0, 0.0)
    assert pool.preempt(task)
    assert _asked(pool) == []
    pool.pages["worker-0"] = (pool.task(task).fence, pool.now)
    pool.advance(0.2)
    assert _asked(pool) == [task]


def test_one_that_does_not_let_go_is_killed_after_the_grace_and_pays_nothing() -> None:
    pool = Pool(preempt_grace_s=5.0)
    task = pool.submit()
    pool.preempt(task)
    pool.advance(4.9)
    assert pool.killed() == []
    pool.advance(0.2)
    assert pool.killed() == [("worker-0", "preempted")]
    pool.die("worker-0")
    assert pool.state(task) == "running"  # in the next process
    assert pool.task(task).past.failures == 0
    assert pool.task(task).past.kills == 0
    assert [event["how"] for event in pool.events("task-preempted")] == ["killed"]


def test_one_that_never_showed_to_have_begun_is_killed_after_the_grace_too() -> None:
    pool = Pool(preempt_grace_s=5.0)
    task = pool.submit(timeout_s=None)
    pool.pages["worker-0"] = (0, 0.0)
    pool.preempt(task)
    pool.advance(5.2)
    assert pool.killed() == [("worker-0", "preempted")]
    pool.die("worker-0")
    assert pool.task(task).attempt == 1  # as if it had not been dispatched
    assert pool.events("task-preempted") == []


def test_one_that_ends_meanwhile_has_ended() -> None:
    pool = Pool(preempt_grace_s=5.0)
    task, following = pool.submit(), pool.submit()
    pool.preempt(task)
    pool.done(task)
    pool.advance(10.0)
    assert pool.state(task) == "completed"
    assert pool.state(following) == "running"
    assert pool.killed() == []


def test_what_runs_behind_one_that_has_ended_does_not_die_for_it() -> None:
    pool = Pool(preempt_grace_s=0.0)
    pool.teach("work", 0.0001)
    pool.teach("once", 0.0001)
    task, following = pool.submit(), pool.submit("once", restartable=False, durable=False)
    assert pool.worker_of(following) == "worker-0"
    pool.pages["worker-0"] = (pool.task(following).fence, pool.now)  # the result is on its way
    assert pool.preempt(task)
    pool.advance(4.9)
    assert pool.killed() == []
    pool.done(task)
    pool.done(following)
    assert [pool.state(each) for each in (task, following)] == ["completed", "completed"]
    assert pool.killed() == []


@pytest.mark.parametrize("shown", [False, True])
def test_a_page_that_shows_a_later_one_puts_the_end_off_and_not_for_ever(shown: bool) -> None:
    pool = Pool(preempt_grace_s=1.0)
    task = pool.submit(timeout_s=None)
    if shown:
        pool.preempt(task)
    pool.pages["worker-0"] = (pool.task(task).fence + 7, pool.now)  # it has written there itself
    pool.preempt(task)
    pool.advance(5.9)
    assert pool.killed() == []
    assert len(pool.new(Look)) < 70
    pool.advance(0.3)
    assert pool.killed() == [("worker-0", "preempted")]


def test_a_crash_within_the_grace_is_a_crash() -> None:
    pool = Pool()
    task = pool.submit()
    pool.preempt(task)
    pool.die("worker-0")
    assert pool.task(task).past.failures == 1


def test_a_cancelled_one_that_lets_go_ends_cancelled() -> None:
    pool = Pool()
    task = pool.submit()
    pool.preempt(task)
    pool.cancel(task)
    pool.release(task)
    assert pool.state(task) == "cancelled"


def test_a_worker_that_gives_up_what_it_was_not_asked_for_is_replaced() -> None:
    pool = Pool()
    task = pool.submit()
    pool.release(task)
    assert pool.killed() == [("worker-0", "broken")]


def test_a_release_that_comes_late_is_ignored() -> None:
    pool = Pool()
    task, following = pool.submit(), pool.submit()
    fence = pool.task(task).fence
    pool.preempt(task)
    pool.done(task)
    pool.scheduler.released("worker-0", fence, pool.now, pool.now, pool.now)
    pool.flush()
    assert pool.state(following) == "running"
    assert pool.killed() == []


def test_a_preempted_call_is_lost_when_the_daemon_goes() -> None:
    pool = Pool()
    call, durable = pool.submit(durable=False), pool.submit()
    pool.preempt(call)
    pool.scheduler.drain(pool.now)
    pool.release(call)
    assert pool.end(call).code == "lost"
    assert pool.state(durable) == "queued"
    assert pool.drained()


def test_while_the_daemon_stops_nobody_is_asked_who_would_be_lost() -> None:
    pool = Pool(workers=2, preempt_min_run_s=0.0)
    call, durable = pool.submit(durable=False), pool.submit()
    pool.scheduler.drain(pool.now)
    pool.flush()
    assert pool.scheduler.preemption.candidates(pool.now) == [pool.slot("worker-1")]
    with pytest.raises(WrongState):
        pool.preempt(call)
    assert pool.preempt(durable)
    assert _asked(pool) == [durable]


# ------------------------------------------------------------------------------------- who may be asked


def test_candidates_are_the_lowest_priority_first_and_of_these_the_newest() -> None:
    pool = Pool(workers=4, preempt_min_run_s=1.0)
    old = pool.submit(priority=50)
    pool.advance(1.0)
    new, urgent = pool.submit(priority=50), pool.submit(priority=10)
    pool.submit(priority=4)
    pool.advance(1.0)
    found = pool.scheduler.preemption.candidates(pool.now)
    assert [slot.in_flight[0].id for slot in found] == [new, old, urgent]


def test_each_preemption_doubles_the_time_that_a_task_has_before_the_next() -> None:
    pool = Pool(preempt_min_run_s=1.0)
    task = pool.submit(timeout_s=None)
    for run_s in (1.0, 2.0, 4.0, 8.0):
        assert pool.scheduler.preemption.candidates(pool.now) == []
        pool.advance(run_s - 0.01)
        assert pool.scheduler.preemption.candidates(pool.now) == []
        pool.advance(0.02)
        assert pool.scheduler.preemption.candidates(pool.now) == [pool.slot()]
        pool.preempt(task)
        pool.release(task)


def test_who_may_not_run_again_is_cancelled_or_is_asked_already_is_no_candidate() -> None:
    pool = Pool(workers=3, preempt_min_run_s=0.0)
    pool.submit(restartable=False, durable=False)
    cancelled, asked = pool.submit(), pool.submit()
    pool.cancel(cancelled)
    pool.preempt(asked)
    assert pool.scheduler.preemption.candidates(pool.now) == []


# ------------------------------------------------------------------------------------- urgent work


def test_a_resumable_task_makes_room_for_each_critical_one_that_waits() -> None:
    pool = Pool(workers=3, preempt_min_run_s=1.0)
    _resumable(pool, "agent")
    agents = [pool.submit("agent", priority=priority) for priority in (10, 50, 9)]
    pool.advance(2.0)
    urgent = pool.submit(priority=0)
    assert _asked(pool) == [agents[1]]
    others = [pool.submit(priority=0) for _ in range(2)]
    assert _asked(pool) == [agents[1], agents[0]]  # the third is of a more urgent priority
    pool.release(agents[1])
    assert pool.worker_of(urgent) == "worker-1"
    pool.release(agents[0])
    assert [pool.state(task) for task in others] == ["running", "queued"]
    assert [event["why"] for event in pool.events("task-preempted")] == ["urgent", "urgent"]
    pool.done(urgent)
    pool.done(others[0])
    assert pool.state(others[1]) == "running"
    assert pool.state(agents[0]) == "running"  # at its old place: before the other, of a lower priority
    assert pool.state(agents[1]) == "queued"


def test_nobody_makes_room_who_would_lose_something_or_for_what_can_wait() -> None:
    pool = Pool(workers=1, preempt_min_run_s=0.0)
    pool.submit("plain")
    pool.submit(priority=0)
    pool.submit(priority=5)
    pool.advance(10.0)
    assert _asked(pool) == []


def test_nobody_makes_room_while_a_worker_is_coming() -> None:
    pool = Pool(workers=2, preempt_min_run_s=0.0)
    _resumable(pool, "agent")
    for task in pool.submit_many(2):
        pool.done(task)
    pool.submit("agent")
    pool.comes_up = False
    pool.die("worker-0")
    pool.submit(priority=0)
    assert _asked(pool) == []


def test_one_that_has_just_begun_makes_room_once_it_has_run_for_a_while() -> None:
    pool = Pool(workers=1, preempt_min_run_s=1.0)
    _resumable(pool, "agent")
    agent = pool.submit("agent")
    pool.submit(priority=0)
    assert _asked(pool) == []
    pool.advance(0.99)
    assert _asked(pool) == []
    pool.advance(0.02)
    assert _asked(pool) == [agent]


def test_room_is_made_only_where_the_urgent_one_fits() -> None:
    pool = Pool(workers=2, preempt_min_run_s=0.0, capabilities={"worker-1": {"gpu"}})
    _resumable(pool, "agent")
    pool.submit("agent", priority=90)
    on_gpu = pool.submit("agent", requires=frozenset({"gpu"}))
    pool.submit(priority=0, requires=frozenset({"gpu"}))
    assert _asked(pool) == [on_gpu]


def test_room_is_made_for_as_many_as_their_name_lets_begin() -> None:
    pool = Pool(workers=3, preempt_min_run_s=0.0)
    _resumable(pool, "agent")
    for _ in range(3):
        pool.submit("agent", timeout_s=None)
    for _ in range(3):
        pool.submit(priority=0, max_concurrency=1)
    pool.advance(10.0)
    assert len(_asked(pool)) == 1


def test_for_a_name_that_is_tried_by_its_breaker_one_makes_room() -> None:
    pool = Pool(workers=3, preempt_min_run_s=0.0)
    _resumable(pool, "agent")
    for task in pool.submit_many(3, max_retries=0):
        pool.fail(task)
    for _ in range(3):
        pool.submit("agent", timeout_s=None)
    pool.submit_many(3, priority=0)
    pool.advance(29.0)
    assert _asked(pool) == []
    pool.advance(2.0)
    assert len(_asked(pool)) == 1


def test_where_ageing_is_on_nobody_makes_room_who_would_take_it_again() -> None:
    pool = Pool(workers=2, preempt_min_run_s=0.0, aging_s=10.0)
    _resumable(pool, "agent")
    pool.submit("agent", timeout_s=None)
    pool.advance(99.0)
    young = pool.submit("agent", timeout_s=None)
    pool.advance(10.0)
    urgent, other = pool.submit(priority=0), pool.submit(priority=0)
    assert _asked(pool) == [young]
    pool.release(young)
    assert pool.state(urgent) == "running"
    pool.advance(100.0)
    assert _asked(pool) == [young]
    assert pool.state(other) == "queued"


def test_a_worker_that_is_taken_away_makes_no_room() -> None:
    pool = Pool(workers=2, preempt_min_run_s=0.0)
    _resumable(pool, "agent")
    first, _ = pool.submit("agent"), pool.submit("agent")
    pool.scheduler.stop_worker("worker-1", pool.now)
    pool.flush()
    pool.submit(priority=0)
    assert _asked(pool) == [first]


def test_a_worker_that_hangs_at_its_start_is_not_waited_for() -> None:
    pool = Pool(workers=2, preempt_min_run_s=0.0)
    _resumable(pool, "agent")
    for task in pool.submit_many(2):
        pool.done(task)
    agent = pool.submit("agent", timeout_s=None)
    pool.comes_up = False
    pool.die("worker-0")
    pool.submit(priority=0)
    pool.advance(READY_WITHIN_S - 1.0)
    assert _asked(pool) == []
    pool.advance(2.0)
    assert _asked(pool) == [agent]


# ------------------------------------------------------------------------------------- the way out


def test_a_drain_asks_what_can_go_on_later_and_waits_for_the_rest() -> None:
    pool = Pool(workers=3, preempt_grace_s=5.0)
    _resumable(pool, "agent")
    agent, call, plain = pool.submit("agent"), pool.submit("agent", durable=False), pool.submit("plain")
    pool.scheduler.drain(pool.now)
    pool.flush()
    assert _asked(pool) == [agent]
    pool.advance(20.0)
    assert pool.killed() == []  # how long a stop waits is for the stop to say
    pool.release(agent)
    assert pool.state(agent) == "queued"
    pool.done(call)
    pool.done(plain)
    assert pool.drained()

"""Circuit breakers: what opens and closes them, that an open name starts nothing, and that a probe never blocks it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from poolmgr.breaker import BreakerInfo, BreakerState
from poolmgr.core import views
from poolmgr.core.balancer import Affine, Balancer, MostRecent, RoundRobin
from poolmgr.core.breaker import Breaker
from poolmgr.core.breakers import breaker_infos
from poolmgr.core.deadlines import NEVER
from poolmgr.core.effects import Recall
from poolmgr.core.failure import Failure
from tests.unit.driver import VALUE_ERROR, WALL_OFFSET, Pool

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def _breaker(most: int = 3, window_s: float = 60.0, open_s: float = 30.0) -> Breaker:
    return Breaker("work", most, window_s, open_s)


# ------------------------------------------------------------------------------------- the machine alone


def test_so_many_failures_within_the_window_open_it() -> None:
    breaker = _breaker()
    assert not breaker.failed(1, "a", 1, 100.0)
    assert not breaker.failed(2, "b", 2, 130.0)
    assert breaker.failed(3, "c", 3, 159.9)
    assert (breaker.state, breaker.failures, breaker.error, breaker.due_at) == (OPEN, 3, "c", 189.9)


def test_failures_that_are_older_than_the_window_do_not_count() -> None:
    breaker = _breaker()
    for at in (100.0, 130.0, 160.0, 190.0, 250.0):
        assert not breaker.failed(1, "", 1, at)
    assert breaker.recent(250.0) == 1
    assert not breaker.failed(1, "", 1, 251.0)
    assert breaker.failed(1, "", 1, 252.0)


def test_what_was_started_before_it_opened_says_nothing() -> None:
    breaker = _breaker(most=1)
    assert breaker.failed(5, "", 9, 100.0)
    assert not breaker.failed(6, "", 9, 101.0)
    assert not breaker.completed(7)
    assert (breaker.failures, breaker.due_at) == (1, 130.0)
    assert breaker.due(130.0)
    assert not breaker.failed(8, "", 20, 131.0)
    assert not breaker.completed(9)
    assert breaker.state is HALF_OPEN


def test_the_probe_decides() -> None:
    breaker = _breaker(most=1)
    breaker.failed(1, "", 1, 100.0)
    assert not breaker.due(129.9)
    assert breaker.due(130.0)
    assert (breaker.holds, breaker.probe) == (False, 0)
    breaker.started(2, 131.0)
    assert (breaker.holds, breaker.probe) == (True, 2)
    assert breaker.failed(2, "again", 4, 140.0)
    assert (breaker.state, breaker.failures, breaker.due_at, breaker.opened_at) == (OPEN, 2, 170.0, 100.0)
    assert breaker.due(170.0)
    breaker.started(5, 170.0)
    assert breaker.completed(5)


def test_a_probe_without_a_verdict_gives_its_place_back() -> None:
    breaker = _breaker(most=1)
    breaker.failed(1, "", 1, 100.0)
    breaker.due(130.0)
    breaker.started(2, 130.0)
    assert not breaker.spared(1)
    assert breaker.spared(2)
    assert (breaker.holds, breaker.due_at) == (False, NEVER)


def test_a_probe_that_takes_too_long_gives_its_place_back_and_decides_all_the_same() -> None:
    for verdict in ("completed", "failed"):
        breaker = _breaker(most=1)
        breaker.failed(1, "", 1, 100.0)
        breaker.due(130.0)
        breaker.started(2, 130.0)
        assert not breaker.due(159.9)
        assert breaker.due(160.0)
        assert not breaker.holds
        breaker.started(3, 160.0)
        if verdict == "completed":
            assert breaker.completed(2)
        else:
            assert breaker.failed(2, "", 7, 161.0)
            assert not breaker.completed(3)  # it began before that
            assert breaker.state is OPEN


class AgainstAModel(RuleBasedStateMachine):
    """A breaker beside a list of all that has happened, from which the state is reckoned anew."""

    @initialize(most=st.integers(1, 4), window_s=st.sampled_from([2.0, 10.0]), open_s=st.sampled_from([1.0, 5.0]))
    def begin(self, most: int, window_s: float, open_s: float) -> None:
        self.most, self.window_s, self.open_s = most, window_s, open_s
        self.breaker = Breaker("work", most, window_s, open_s)
        self.now = 100.0
        self.fence = 0
        self.running: list[int] = []
        self.row: list[float] = []  # the times of the failures since the last success
        self.opened: tuple[float, int] | None = None  # when, and the last fence by then
        self.probes: list[tuple[int, float]] = []  # since then

    def _may_start(self) -> bool:
        if self.opened is None:
            return True
        waits_until = max([self.opened[0], *(at for fence, at in self.probes if fence in self.running)]) + self.open_s
        return self.now >= waits_until

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 11.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.breaker.due_at <= until:
            self.now = self.breaker.due_at
            assert self.breaker.due(self.now)
        self.now = until
        assert not self.breaker.due(self.now)
        self._compare()

    @precondition(lambda self: self._may_start())
    @rule()
    def start(self) -> None:
        self.fence += 1
        self.running.append(self.fence)
        if self.opened is not None:
            self.breaker.started(self.fence, self.now)
            self.probes.append((self.fence, self.now))
        self._compare()

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 9), how=st.sampled_from(["completed", "failed", "failed", "spared"]))
    def end(self, pick: int, how: str) -> None:
        fence = self.running.pop(pick % len(self.running))
        counts = self.opened is None or fence > self.opened[1]
        if how == "spared":
            self.breaker.spared(fence)
        elif how == "completed":
            assert self.breaker.completed(fence) == counts
            if counts:
                self.breaker = Breaker("work", self.most, self.window_s, self.open_s)
                self.row, self.opened, self.probes = [], None, []
        else:
            opens = self.breaker.failed(fence, how, self.fence, self.now)
            if counts:
                self.row = [at for at in self.row if self.opened or at > self.now - self.window_s] + [self.now]
                assert opens == (len(self.row) >= self.most)
            else:
                assert not opens
            if opens:
                self.opened, self.probes = (self.now, self.fence), []
        self._compare()

    def _compare(self) -> None:
        assert (self.breaker.state is CLOSED) == (self.opened is None)
        assert self.breaker.holds == (not self._may_start())
        if self.opened is not None:
            assert self.breaker.failures == len(self.row)


AgainstAModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, derandomize=True)
TestAgainstAModel = AgainstAModel.TestCase


# ------------------------------------------------------------------------------------- in the scheduler


def _opened(workers: int = 4, **pool_settings: Any) -> Pool:
    """A pool in which the breaker of "work" has just opened."""
    pool = Pool(workers=workers, **pool_settings)
    for task in pool.submit_many(3, max_retries=0):
        pool.fail(task)
    return pool


def _info(pool: Pool) -> BreakerInfo:
    [info] = breaker_infos(pool.scheduler.state, pool.now)
    return info


def test_an_open_name_starts_nothing_and_hides_no_other() -> None:
    pool = _opened()
    held = pool.submit_many(5, priority=0)
    other = pool.submit("other", priority=100)
    assert pool.running() == [other]
    pool.advance(29.9)
    assert pool.running() == [other]
    assert {pool.state(task) for task in held} == {"queued"}


def test_one_probe_starts_and_its_success_lets_all_others_go() -> None:
    pool = _opened()
    held = pool.submit_many(5, durable=False)
    pool.advance(30.0)
    assert pool.running() == held[:1]
    assert _info(pool).probing
    pool.done(held[0])
    assert pool.running() == held[1:]
    assert breaker_infos(pool.scheduler.state, pool.now) == []
    assert pool.events("breaker-closed") == [{"name": "work", "failures": 3, "reason": "probe"}]


def test_a_probe_that_fails_opens_it_again_and_its_retry_waits() -> None:
    pool = _opened()
    first, second = pool.submit_many(2, retry_backoff_s=1.0)
    pool.advance(30.0)
    pool.fail(first)
    assert pool.running() == []
    pool.advance(29.9)
    assert (pool.running(), pool.state(first)) == ([], "queued")
    pool.advance(0.1)
    assert pool.running() == [first]  # a retry keeps its place
    assert pool.state(second) == "queued"
    assert [event["failures"] for event in pool.events("breaker-opened")] == [3, 4]


def test_it_says_what_it_knows() -> None:
    pool = _opened()
    assert pool.events("breaker-opened") == [
        {"name": "work", "failures": 3, "retry_at": 1030.0 + WALL_OFFSET, "error": "ValueError: bad"}
    ]
    opened_at = 1000.0 + WALL_OFFSET
    assert _info(pool) == BreakerInfo("work", OPEN, 3, opened_at, opened_at + 30.0, False, "ValueError: bad")
    health = views.health(pool.scheduler.state, pool.now)
    assert health["status"] == "degraded"
    [alert] = health["alerts"]
    assert alert.startswith("work failed 3 times in a row and is held back; tried again in 30 s")
    pool.advance(30.0)
    assert _info(pool) == BreakerInfo("work", HALF_OPEN, 3, opened_at, None, False, "ValueError: bad")
    assert views.metrics(pool.scheduler.state, pool.now)["breakers"] == [_info(pool)._asdict()]
    assert "is waited for" in views.health(pool.scheduler.state, pool.now)["alerts"][0]


def test_a_success_between_failures_forgets_them() -> None:
    pool = Pool(workers=4)
    for _ in range(10):
        for task in pool.submit_many(2, max_retries=0):
            pool.fail(task)
        pool.done(pool.submit())
    assert pool.events("breaker-opened") == []
    assert breaker_infos(pool.scheduler.state, pool.now) == []


@pytest.mark.parametrize("balancer", [MostRecent, RoundRobin])
@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize("well_until", [0, 10])
def test_one_sick_worker_of_four_opens_no_breaker(balancer: type[Balancer], retries: int, well_until: int) -> None:
    """Calls that come one after the other: the sick worker is idle each time, and was the last to be at work."""
    pool = Pool(workers=4, balancer=Affine(balancer()))
    sick = None
    for number in range(60):
        task = pool.submit(max_retries=retries, retry_backoff_s=0.0)
        while task in pool.running():
            pool.now += 0.001
            worker = pool.worker_of(task)
            if sick is None and number >= well_until:
                sick = worker
            if worker == sick:
                pool.fail(task)
            else:
                pool.done(task)
        assert pool.state(task) in ("completed", "dead")
    failed = len(pool.events("task-failed"))
    assert failed == 1 if balancer is MostRecent else failed >= 1
    assert pool.events("breaker-opened") == []


def test_failures_of_attempts_count_whichever_their_task() -> None:
    pool = Pool(workers=1)
    task = pool.submit(max_retries=5, retry_backoff_s=0.0)
    for _ in range(3):
        pool.fail(task)
    assert pool.state(task) == "queued"
    pool.advance(30.0)
    assert pool.state(task) == "running"


@pytest.mark.parametrize("code", ["task_failed", "timeout", "out_of_memory", "worker_died", "bad_result"])
def test_what_counts(code: str) -> None:
    pool = Pool(workers=4)
    for task in pool.submit_many(3, max_retries=0):
        pool.fail(task, Failure(code, "no"))
    assert len(pool.events("breaker-opened")) == 1


def test_the_death_of_a_worker_counts() -> None:
    pool = Pool(workers=1)
    for _ in range(3):
        pool.submit(max_retries=0)
        pool.die("worker-0")
    assert len(pool.events("breaker-opened")) == 1


@pytest.mark.parametrize(
    "failure",
    [Failure("bad_arguments", ""), Failure("unknown_task", ""), VALUE_ERROR._replace(retry_delay_s=0.0)],
    ids=["bad_arguments", "unknown_task", "Retry"],
)
def test_what_does_not_count(failure: Failure) -> None:
    pool = Pool(workers=4)
    for task in pool.submit_many(9, max_retries=0):
        pool.fail(task, failure)
    assert pool.events("breaker-opened") == []


def test_a_task_that_was_cancelled_does_not_count() -> None:
    pool = Pool(workers=4)
    for task in pool.submit_many(4, max_retries=0):
        pool.cancel(task)
        pool.fail(task)
    assert pool.events("breaker-opened") == []


@pytest.mark.parametrize("ending", ["cancelled", "killed", "stopped", "bad_arguments", "recalled"])
def test_a_probe_that_comes_to_nothing_gives_its_place_to_the_next(ending: str) -> None:
    pool = _opened(min_workers=1)
    first, second = pool.submit_many(2)
    pool.advance(30.0)
    worker = pool.worker_of(first)
    assert worker is not None
    if ending == "cancelled":
        pool.cancel(first)
        pool.fail(first)
    elif ending == "killed":
        pool.cancel(first, kill=True)
        pool.die(worker)
    elif ending == "stopped":
        pool.scheduler.supervisor.doom(pool.slot(worker), "reload", 0, pool.now, grace_s=0.0)
        pool.flush()
        pool.die(worker)
    elif ending == "bad_arguments":
        pool.fail(first, Failure("bad_arguments", ""))
    else:
        pool.recalled(worker, first)
    expected = first if ending in ("stopped", "recalled") else second
    assert pool.running() == [expected]
    assert _info(pool).probing


def test_thousands_of_probes_that_come_to_nothing_leave_no_deadlines_behind() -> None:
    pool = _opened()
    pool.advance(30.0)
    before = len(pool.scheduler.state.deadlines)
    for _ in range(100):
        pool.fail(pool.submit(), Failure("bad_arguments", ""))
    assert len(pool.scheduler.state.deadlines) <= before + 1
    stuck, second = pool.submit_many(2, timeout_s=None)
    pool.advance(29.9)
    assert pool.running() == [stuck]
    pool.advance(0.1)
    assert pool.running() == [stuck, second]


def test_a_probe_that_never_returns_holds_nothing_up() -> None:
    pool = _opened()
    stuck, second, third = pool.submit_many(3, timeout_s=None)
    pool.advance(30.0)
    assert pool.running() == [stuck]
    pool.advance(30.0)
    assert pool.running() == [stuck, second]
    pool.done(second)
    assert pool.running() == [stuck, third]


def test_a_probe_stands_behind_no_other_task() -> None:
    pool = Pool(workers=1)
    pool.teach("work", 0.0001)
    pool.teach("other", 0.0001)
    for _ in range(3):
        pool.fail(pool.submit(max_retries=0))
    others = pool.submit_many(3, "other")
    probe = pool.submit()
    pool.advance(30.0)
    for other in others:
        assert pool.state(probe) == "queued"
        assert pool.task(probe).slot is None
        pool.done(other)
    assert pool.running() == [probe]


def test_what_workers_hold_of_an_open_name_is_recalled() -> None:
    pool = Pool(workers=1)
    pool.teach("work", 0.0001)
    tasks = pool.submit_many(8, max_retries=0)
    assert pool.task(tasks[-1]).slot == "worker-0"
    for task in tasks[:3]:
        pool.fail(task)
    assert len(pool.new(Recall)) == 1
    pool.recalled("worker-0", *tasks[4:])
    pool.fail(tasks[3])
    assert pool.running() == []
    assert {pool.state(task) for task in tasks[4:]} == {"queued"}


def test_what_ran_when_it_opened_neither_closes_it_nor_keeps_it_open() -> None:
    pool = Pool(workers=5)
    tasks = pool.submit_many(5, max_retries=0)
    for task in tasks[:3]:
        pool.fail(task)
    pool.done(tasks[3])
    pool.advance(10.0)
    pool.fail(tasks[4])
    held = pool.submit()
    pool.advance(19.9)
    assert pool.running() == []
    pool.advance(0.1)
    assert pool.running() == [held]


def test_a_reset_closes_it() -> None:
    pool = _opened()
    held = pool.submit_many(2)
    pool.scheduler.breakers.reset("work")
    pool.flush()
    assert pool.running() == held
    assert pool.events("breaker-closed") == [{"name": "work", "failures": 3, "reason": "reset"}]
    pool.scheduler.breakers.reset("work")  # again, and of a name that is not known
    pool.scheduler.breakers.reset("none")
    assert len(pool.events("breaker-closed")) == 1


def test_a_reset_of_a_closed_one_forgets_its_failures() -> None:
    pool = Pool(workers=4)
    for task in pool.submit_many(2, max_retries=0):
        pool.fail(task)
    assert _info(pool) == BreakerInfo("work", CLOSED, 2, error="ValueError: bad")
    pool.scheduler.breakers.reset("work")
    assert pool.events("breaker-closed") == []
    pool.fail(pool.submit(max_retries=0))
    assert pool.events("breaker-opened") == []


def test_new_code_has_another_chance() -> None:
    pool = _opened(workers=1)
    held = pool.submit()
    pool.scheduler.rollout.begin(lambda name: True, pool.now)
    pool.flush()
    for _ in range(3):
        for slot in list(pool.scheduler.state.slots.values()):
            if slot.state == "draining":
                pool.die(slot.id, "exited 0")
        pool.advance(0.1)
    assert not pool.scheduler.rollout.active
    assert pool.running() == [held]
    assert pool.events("breaker-closed") == [{"name": "work", "failures": 3, "reason": "reload"}]


def test_a_paused_name_stays_paused_when_its_breaker_closes() -> None:
    pool = _opened()
    task = pool.submit()
    pool.scheduler.intake.pause("work")
    pool.scheduler.breakers.reset("work")
    pool.flush()
    assert pool.running() == []
    pool.scheduler.intake.resume("work")
    pool.flush()
    assert pool.running() == [task]


def test_what_waits_for_an_open_name_may_expire() -> None:
    pool = _opened()
    task = pool.submit(expires_s=5.0)
    pool.advance(5.0)
    assert pool.state(task) == "expired"


def test_none_opens_where_they_are_switched_off() -> None:
    pool = Pool(workers=4, breaker_failures=0)
    for task in pool.submit_many(20, max_retries=0):
        pool.fail(task)
    assert pool.events("breaker-opened") == []
    assert breaker_infos(pool.scheduler.state, pool.now) == []


def test_calls_of_anything_have_no_breaker() -> None:
    pool = Pool(workers=4)
    for task in pool.submit_many(9, "poolmgr:call", max_retries=0, durable=False):
        pool.fail(task)
    assert pool.events("breaker-opened") == []

"""What clients ask: acknowledgements, refusals, resent submits, watches, and clients that go."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolmgr.core.effects import Accepted, Finished, Persist
from poolmgr.errors import IdConflict, PoolError, QueueFull, ShuttingDown
from poolmgr.model import TaskOptions
from tests.unit.driver import Pool

ID = b"i" * 16


# ------------------------------------------------------------------------------------- acknowledgements


def test_an_acknowledgement_waits_for_the_commit_of_what_it_acknowledges() -> None:
    pool = Pool()
    pool.submit()
    [persist] = pool.new(Persist)
    assert pool.new(Accepted) == [Accepted(1, 1, persist.number)]


def test_what_is_not_durable_is_acknowledged_at_once() -> None:
    pool = Pool()
    pool.submit(durable=False)
    assert pool.new(Accepted) == [Accepted(1, 1, 0)]


def test_acknowledgements_are_cumulative_one_a_flush() -> None:
    pool = Pool()
    pool.submit_many(5)
    assert pool.new(Accepted) == [Accepted(1, 5, 1)]
    pool.submit_many(3)
    assert pool.new(Accepted) == [Accepted(1, 8, 2)]


def test_one_that_is_not_durable_acknowledges_no_earlier_durable_one_too_soon() -> None:
    pool = Pool()
    pool.submit(durable=True)
    pool.submit(durable=False)
    assert pool.new(Accepted) == [Accepted(1, 2, 1)]


def test_clients_are_counted_apart() -> None:
    pool = Pool()
    pool.scheduler.intake.connected(2)
    pool.submit()
    pool.submit(client=2, durable=False)
    assert pool.new(Accepted) == [Accepted(2, 1, 0)]


def test_commits_are_numbered_without_a_gap() -> None:
    pool = Pool()
    for _ in range(3):
        pool.done(pool.submit())
    assert [persist.number for persist in pool.all(Persist)] == [1, 2, 3, 4, 5, 6]


def test_nobody_is_acknowledged_for_nobodys_task() -> None:
    pool = Pool()
    task = pool.submit(client=0, watch=False)
    assert pool.new(Accepted) == []
    pool.done(task)
    assert pool.all(Finished) == []


# ------------------------------------------------------------------------------------- many together

_OPTIONS = st.fixed_dictionaries(
    {"durable": st.booleans()},
    optional={
        "priority": st.integers(0, 2),
        "group": st.sampled_from(["a", "b"]),
        "max_retries": st.integers(0, 1),
        "requires": st.just(frozenset({"gpu"})),
        "ephemeral": st.booleans(),
        "key": st.just("key"),
        "expires_s": st.just(5.0),
        "delay_s": st.just(3.0),
        "rate_limit": st.just((1, 60.0)),
        "max_concurrency": st.just(1),
    },
)
_BATCHES = st.lists(
    st.tuples(st.sampled_from(["work", "other"]), _OPTIONS, st.integers(1, 6), st.booleans()), min_size=1, max_size=4
)


class Arriving(Pool):
    """A pool whose tasks arrive many together or, where they cannot or are not to, one by one."""

    def arrive(self, name: str, options: TaskOptions, ids: list[bytes], watch: bool, *, together: bool) -> None:
        intake, payloads = self.scheduler.intake, [b"payload " + id for id in ids]
        if together and intake.submit_many(self.now, ids, name, payloads, options, 1, watch):
            return
        for id, payload in zip(ids, payloads, strict=True):
            with suppress(PoolError):
                intake.submit(self.now, id, name, payload, options, 1, watch)


@given(_BATCHES, st.integers(0, 6), st.booleans())
def test_tasks_that_arrive_together_fare_as_those_that_arrive_one_by_one(
    batches: list[tuple[str, dict[str, Any], int, bool]], queue_limit: int, listening: bool
) -> None:
    together, apart = (Arriving(2, max_queue_depth=queue_limit) for _ in range(2))
    for pool in (together, apart):
        pool.scheduler.state.listening = listening
        number = 0
        for name, options, count, watch in batches:
            ids = [(number + each).to_bytes(16, "big") for each in range(count)]
            number += count - 1  # the next begins with an id that was there before
            pool.arrive(name, TaskOptions(**options), ids, watch, together=pool is together)
            pool.flush()
        for _ in range(20):
            for task in pool.running():
                pool.done(task)
            pool.advance(1.0)
    assert together.effects == apart.effects
    assert together.effects


def test_few_are_taken_together_where_one_may_fare_otherwise() -> None:
    pool = Pool()
    submit_many = pool.scheduler.intake.submit_many
    for options in (TaskOptions(key="k"), TaskOptions(delay_s=1.0), TaskOptions(expires_s=1.0)):
        assert not submit_many(pool.now, [ID], "work", [b""], options, 1, True)
    assert not submit_many(pool.now, [ID], "work", [b""], TaskOptions(), 99, True)
    assert submit_many(pool.now, [ID], "work", [b""], TaskOptions(), 1, True)
    assert not submit_many(pool.now, [bytes(16), ID], "work", [b"", b""], TaskOptions(), 1, True)
    pool.scheduler.drain(pool.now)
    assert not submit_many(pool.now, [bytes(16)], "work", [b""], TaskOptions(), 1, True)


# ------------------------------------------------------------------------------------- refusals


def test_a_refused_submit_is_counted_all_the_same() -> None:
    pool = Pool(max_queue_depth=1)
    pool.submit_many(2)
    with pytest.raises(QueueFull, match="max_queue_depth"):
        pool.submit()
    assert pool.new(Accepted) == [Accepted(1, 3, 1)]


def test_so_is_one_that_never_came_so_far_as_to_be_one() -> None:
    pool = Pool()
    pool.submit()
    pool.scheduler.intake.refused(1)
    pool.scheduler.intake.refused(99)
    pool.flush()
    assert pool.new(Accepted) == [Accepted(1, 2, 1)]


def test_a_full_queue_counts_what_waits_for_its_time_and_not_what_runs() -> None:
    pool = Pool(max_queue_depth=2)
    running = pool.submit()
    pool.submit()
    pool.submit(delay_s=60.0)
    with pytest.raises(QueueFull):
        pool.submit()
    pool.done(running)
    pool.submit()


def test_a_queue_is_not_full_while_workers_are_idle() -> None:
    pool = Pool(workers=4, max_queue_depth=1)
    assert len(pool.submit_many(5)) == 5
    with pytest.raises(QueueFull):
        pool.submit()


def test_critical_tasks_have_places_of_their_own_in_a_full_queue() -> None:
    pool = Pool(max_queue_depth=2)
    pool.submit_many(3)
    with pytest.raises(QueueFull):
        pool.submit(priority=5)
    with pytest.raises(QueueFull):
        pool.submit(priority=4, delay_s=60.0)
    urgent = [pool.submit(priority=4), pool.submit(priority=0)]
    with pytest.raises(QueueFull, match="4 tasks wait, and 2 may"):
        pool.submit(priority=0)
    pool.done(pool.running()[0])
    assert pool.running() == [urgent[1]]
    pool.submit(priority=0)


def test_tasks_that_fit_together_are_taken_together_where_a_queue_has_a_limit() -> None:
    pool = Pool(max_queue_depth=2)
    submit_many = pool.scheduler.intake.submit_many
    ids = [number.to_bytes(16, "big") for number in range(4)]
    assert not submit_many(pool.now, ids[:3], "work", [b""] * 3, TaskOptions(), 1, True)
    assert submit_many(pool.now, ids[:2], "work", [b""] * 2, TaskOptions(), 1, True)
    assert not submit_many(pool.now, ids[2:], "work", [b""] * 2, TaskOptions(), 1, True)


def test_no_new_work_during_a_drain() -> None:
    pool = Pool()
    pool.scheduler.drain(pool.now)
    with pytest.raises(ShuttingDown):
        pool.submit()
    assert pool.new(Accepted) == [Accepted(1, 1, 0)]


# ------------------------------------------------------------------------------------- resent submits


def test_a_resent_submit_is_recognised() -> None:
    pool = Pool(workers=2)
    for _ in range(2):
        pool.submit(id=ID, payload=b"x")
    assert pool.running() == [ID]
    assert pool.scheduler.state.statistics.submitted == 1
    assert pool.new(Accepted) == [Accepted(1, 2, 1)]
    pool.done(ID)
    assert len(pool.all(Finished)) == 1


def test_resent_on_a_new_connection_it_is_acknowledged_no_sooner_than_it_is_kept() -> None:
    pool = Pool()
    pool.scheduler.intake.connected(2)
    pool.scheduler.intake.submit(pool.now, ID, "work", b"", TaskOptions(), 1, True)
    pool.scheduler.intake.submit(pool.now, ID, "work", b"", TaskOptions(), 2, True)
    pool.flush()
    assert pool.new(Accepted) == [Accepted(1, 1, 1), Accepted(2, 1, 1)]
    pool.done(ID)
    assert [told.client for told in pool.new(Finished)] == [1, 2]


@pytest.mark.parametrize(
    "other", [{"name": "other"}, {"payload": b"other"}, {"priority": 3}], ids=["name", "payload", "options"]
)
def test_the_same_id_with_other_content_is_a_conflict(other: dict[str, Any]) -> None:
    pool = Pool()
    pool.submit(id=ID)
    with pytest.raises(IdConflict, match=ID.hex()):
        pool.submit(id=ID, **other)
    assert pool.new(Accepted) == [Accepted(1, 2, 1)]
    assert pool.task(ID).name == "work"


# ------------------------------------------------------------------------------------- watching


def test_who_does_not_watch_is_not_told() -> None:
    pool = Pool()
    task = pool.submit(watch=False)
    pool.done(task)
    assert pool.all(Finished) == []


def test_anyone_may_watch_later_and_is_told_once() -> None:
    pool = Pool()
    task = pool.submit(watch=False)
    assert pool.scheduler.intake.watch(task, 2)
    assert pool.scheduler.intake.watch(task, 2)
    pool.done(task)
    assert [told.client for told in pool.all(Finished)] == [2]
    assert not pool.scheduler.intake.watch(task, 2), "it is not live: ask the store"


def test_events_of_single_tasks_are_sent_only_while_someone_listens() -> None:
    pool = Pool()
    pool.done(pool.submit())
    pool.scheduler.state.listening = True
    task = pool.submit("thumbnail")
    pool.done(task, run_s=0.5)
    assert [event["name"] for event in pool.events("task-submitted")] == ["thumbnail"]
    assert [event["worker_id"] for event in pool.events("task-started")] == ["worker-0"]
    assert [event["duration_s"] for event in pool.events("task-completed")] == [0.5]


# ------------------------------------------------------------------------------------- clients that go


def test_a_client_that_goes_takes_its_waiting_calls_with_it() -> None:
    pool = Pool()
    running, queued, delayed = (
        pool.submit(durable=False),
        pool.submit(durable=False),
        pool.submit(durable=False, delay_s=9.0),
    )
    durable = pool.submit()
    pool.disconnect(1)
    assert set(pool.scheduler.state.tasks) == {running, durable}
    assert not {queued, delayed} & set(pool.scheduler.state.tasks)
    assert pool.scheduler.state.statistics.cancelled == 2
    assert pool.new(Finished) == [], "there is nobody to be told"
    pool.done(running)
    assert pool.running() == [durable]


def test_another_clients_calls_stay() -> None:
    pool = Pool()
    pool.scheduler.intake.connected(2)
    pool.submit()
    call = pool.submit(durable=False, client=2)
    pool.disconnect(1)
    assert pool.state(call) == "queued"


def test_a_client_that_goes_twice_or_never_came() -> None:
    pool = Pool()
    pool.disconnect(1)
    pool.disconnect(1)
    pool.disconnect(99)


def test_finished_calls_are_not_kept_with_their_client() -> None:
    pool = Pool()
    for _ in range(3):
        pool.done(pool.submit(durable=False))
    assert pool.scheduler.state.sessions[1].calls == {}


def test_each_client_is_a_group_of_its_own_unless_it_says_otherwise() -> None:
    pool = Pool()
    pool.scheduler.intake.connected(2)
    blocker = pool.submit("blocker")
    pool.submit_many(5)
    other = pool.submit(client=2)
    pool.done(blocker)
    assert pool.running() == [other]
    assert pool.task(pool.submit(group="mine")).group == "mine"


def test_a_running_call_whose_client_has_gone_is_not_tried_again() -> None:
    pool = Pool(workers=1)
    call = pool.submit(durable=False)
    pool.disconnect(1)
    pool.fail(call)
    assert call not in pool.scheduler.state.tasks
    assert pool.scheduler.state.statistics.retried == 0
    assert pool.scheduler.state.statistics.cancelled == 1

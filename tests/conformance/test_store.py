"""What every store does, whatever it keeps things in."""

from __future__ import annotations

import itertools

import pytest

from poolmgr.core.changes import (
    Change,
    ScheduleRecord,
    ScheduleRemoved,
    ScheduleSet,
    ScheduleTicked,
    TaskAdded,
    TaskEnded,
    TaskRequeued,
    TasksPurged,
)
from poolmgr.core.shelf import START, LineKey
from poolmgr.errors import StoreUnavailable
from poolmgr.model import FINAL, TaskOptions, TaskState, last_id_of
from poolmgr.post_mortem import PostMortem
from poolmgr.schedule import Timing
from poolmgr.store.base import AHEAD_MOST, Outcome, Store
from poolmgr.store.memory import MemoryStore
from poolmgr.worker_life import LIVES_KEPT
from tests.conformance.samples import (
    NOW,
    REMAINS,
    Medium,
    added,
    dead,
    ended,
    failed,
    ids,
    lived,
    moved,
    record,
    task_id,
    unfinished,
)

# ------------------------------------------------------------------------------------------------ life


def test_every_opening_begins_the_next_epoch(medium: Medium) -> None:
    for _ in range(3):
        medium.reopen()
    assert medium.epochs == [1, 2, 3, 4]


def test_closing_twice_and_before_opening_is_safe(medium: Medium) -> None:
    medium.store.close()
    medium.store.close()
    assert medium.reopen().counts() == {}


def test_a_store_that_is_not_open_refuses(medium: Medium) -> None:
    medium.store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        medium.store.apply([added(1)])
    with pytest.raises(StoreUnavailable, match="not open"):
        medium.store.counts()


def test_an_open_store_cannot_be_opened(store: Store) -> None:
    with pytest.raises(StoreUnavailable, match="open already"):
        store.open()
    store.apply([added(1)])  # and is none the worse for it


# ------------------------------------------------------------------------------------------------ what is kept


def test_an_added_task_is_kept_whole(medium: Medium) -> None:
    task = record(
        1,
        payload=bytes(range(256)),
        options=TaskOptions(priority=3, key="a"),
        state=TaskState.SCHEDULED,
        due_at=NOW + 60,
        attempt=2,
        failures=1,
        kills=1,
        interruptions=1,
        origin=task_id(7),
    )
    medium.store.apply([TaskAdded(task)])
    store = medium.reopen()
    assert store.record(task.id) == task
    assert unfinished(store) == [task]
    info = store.task(task.id)
    assert info is not None
    assert (info.id, info.name, info.state) == (task.id.hex(), "thumbnail", TaskState.SCHEDULED)
    assert (info.priority, info.max_retries, info.durable, info.group) == (3, 3, True, "client-1")
    assert (info.attempt, info.failures, info.origin) == (2, 1, task_id(7).hex())
    assert (info.submitted_at, info.due_at, info.started_at, info.ended_at) == (NOW, NOW + 60, None, None)
    assert (info.cause, info.message, info.assigned_to, info.requeued_as) == (None, "", None, None)


def test_a_final_task_tells_how_it_ended(medium: Medium) -> None:
    medium.store.apply([added(1), added(2), ended(1), dead(2)])
    store = medium.reopen()
    assert store.outcome(task_id(1)) == Outcome(TaskState.COMPLETED, "", b"result 1")
    assert store.outcome(task_id(2)) == Outcome(TaskState.DEAD, "timeout", b"result 2")
    completed, buried = store.task(task_id(1)), store.task(task_id(2))
    assert completed is not None
    assert buried is not None
    assert (completed.started_at, completed.ended_at, completed.cause) == (NOW + 1, NOW + 2, None)
    assert (buried.cause, buried.message, buried.failures, buried.attempt) == ("timeout", "took too long", 4, 4)
    assert buried.assigned_to == "worker-3"
    assert unfinished(store) == []
    kept = store.record(task_id(2))  # whole, for a requeue
    assert kept == record(2, state=TaskState.DEAD, failures=4, attempt=4)


def test_what_is_unknown_is_none_and_changes_of_it_are_ignored(store: Store) -> None:
    store.apply([moved(1, TaskState.RUNNING), failed(1, 1), ended(1), TaskRequeued(task_id(1), task_id(2))])
    assert store.record(task_id(1)) is None
    assert store.task(task_id(1)) is None
    assert store.outcome(task_id(1)) is None
    assert store.counts() == {}
    store.apply([added(1)])
    info = store.task(task_id(1))
    assert info is not None
    assert info.attempts == ()
    assert store.outcome(task_id(1)) is None


def test_a_moved_task_has_its_new_state_and_counts(medium: Medium) -> None:
    medium.store.apply([added(1), moved(1, TaskState.RUNNING), failed(1, 1)])
    later = moved(1, TaskState.SCHEDULED, due_at=NOW + 9, attempt=2, failures=1, kills=1, interruptions=1)
    medium.store.apply([later])
    kept = medium.reopen().record(task_id(1))
    assert kept == record(1)._replace(**later._asdict())


def test_attempts_are_listed_in_their_order(medium: Medium) -> None:
    medium.store.apply([added(1), failed(1, 2), failed(1, 10), failed(1, 1, cause="timeout", type="")])
    info = medium.reopen().task(task_id(1))
    assert info is not None
    assert [each.attempt for each in info.attempts] == [1, 2, 10]
    assert info.attempts[0] == failed(1, 1, cause="timeout", type="").attempt
    assert info.attempts[1] == failed(1, 2).attempt


def test_a_post_mortem_is_kept_with_its_attempt(medium: Medium) -> None:
    bare = PostMortem(exit_code=0, output="half a surrogate \ud800, and a nul \0")
    medium.store.apply([added(1), failed(1, 1, post_mortem=REMAINS), failed(1, 2), failed(1, 3, post_mortem=bare)])
    info = medium.reopen().task(task_id(1))
    assert info is not None
    first, second, third = (each.post_mortem for each in info.attempts)
    assert (first, second) == (REMAINS, None)
    assert third is not None
    assert (third.exit_code, third.output[-5:]) == (0, "nul \0")


def test_the_last_ten_attempts_keep_their_post_mortems(medium: Medium) -> None:
    medium.store.apply([added(1), added(2), failed(2, 1, post_mortem=REMAINS)])
    medium.store.apply([failed(1, number, post_mortem=REMAINS) for number in range(1, 25)])
    store = medium.reopen()
    info, other = store.task(task_id(1)), store.task(task_id(2))
    assert info is not None
    assert [each.attempt for each in info.attempts if each.post_mortem] == list(range(15, 25))
    assert len(info.attempts) == 24
    assert other is not None
    assert other.attempts[0].post_mortem == REMAINS


def test_lists_leave_the_attempts_out(store: Store) -> None:
    store.apply([added(1), failed(1, 1)])
    assert store.tasks()[0].attempts == ()


OPTIONS = TaskOptions().override(
    {
        "priority": 0,
        "timeout_s": None,
        "soft_timeout_s": 1.5,
        "max_retries": 0,
        "retry_backoff_s": 0.25,
        "max_backoff_s": 5,
        "retry_on": [ValueError, "myapp.Throttled"],
        "no_retry_on": (),
        "requires": {"gpu", "fast"},
        "affinity": "model-7",
        "group": "nightly",
        "key": ("a key", 30),
        "delay_s": 2,
        "at": NOW,
        "expires_s": 9,
        "durable": False,
        "restartable": False,
        "sheddable": True,
        "memory_limit_mb": 256,
        "ephemeral": True,
        "rate_limit": "20/m",
        "max_concurrency": 4,
        "result_ttl_s": 0,
    }
)


@pytest.mark.parametrize(
    "options",
    [
        TaskOptions(),
        OPTIONS,
        TaskOptions(retry_on=frozenset()),
        TaskOptions(no_retry_on=frozenset({"KeyError"})),
        TaskOptions(key="k", key_window_s=0.0),
    ],
)
def test_options_come_back_as_they_were(medium: Medium, options: TaskOptions) -> None:
    medium.store.apply([added(1, options=options)])
    kept = medium.reopen().record(task_id(1))
    assert kept is not None
    assert kept.options == options
    assert type(kept.options.rate_limit) is type(options.rate_limit)


def test_any_text_and_any_bytes_can_be_kept(medium: Medium) -> None:
    text = "tab\t nul\0 umlaut ü emoji 🙂"
    medium.store.apply([added(1, payload=b"\x00" * 200_000), failed(1, 1, message=text), dead(1, message=text)])
    store = medium.reopen()
    info = store.task(task_id(1))
    assert info is not None
    assert info.message == info.attempts[0].message == text
    kept = store.record(task_id(1))
    assert kept is not None
    assert kept.payload == b"\x00" * 200_000


@pytest.mark.parametrize("size", [0, 1, 256, 257, 100_000])
def test_contents_of_any_size_come_back_and_go(medium: Medium, size: int) -> None:
    medium.store.apply([added(1, payload=b"p" * size), ended(1, outcome=b"o" * size)])
    store = medium.reopen()
    kept = store.record(task_id(1))
    assert kept is not None
    assert kept.payload == b"p" * size
    assert store.outcome(task_id(1)) == Outcome(TaskState.COMPLETED, "", b"o" * size)
    store.apply([TasksPurged((task_id(1),)), added(1, payload=b"q" * size), ended(1, outcome=b"r" * size)])
    kept = store.record(task_id(1))
    assert kept is not None
    assert kept.payload == b"q" * size  # and not what was there before
    assert store.outcome(task_id(1)) == Outcome(TaskState.COMPLETED, "", b"r" * size)


def test_text_that_has_no_encoding_does_not_stop_the_store(store: Store) -> None:
    store.apply([added(1), failed(1, 1, message="\udc80!"), dead(1, message="half a pair: \ud800!")])
    assert store.counts() == {TaskState.DEAD: 1}


# ------------------------------------------------------------------------------------------------ promises


def test_a_task_of_a_known_id_is_left_as_it_is(store: Store) -> None:
    store.apply([added(1)])
    store.apply([added(1, name="other", payload=b"other"), added(2)])
    assert store.record(task_id(1)) == record(1)
    assert ids(store) == [2, 1]
    store.apply([ended(1)])
    store.apply([added(1)])
    assert store.counts() == {TaskState.QUEUED: 1, TaskState.COMPLETED: 1}


@pytest.mark.parametrize("final", sorted(FINAL))
def test_a_final_state_is_never_changed(medium: Medium, final: TaskState) -> None:
    medium.store.apply([added(1), ended(1, final, code="", message="first")])
    before = medium.store.task(task_id(1)), medium.store.outcome(task_id(1)), medium.store.record(task_id(1))
    store = medium.reopen()
    store.apply([moved(1, TaskState.RUNNING, attempt=9, due_at=NOW)])
    store.apply([ended(1, TaskState.EXPIRED, code="expired", message="second", outcome=b"second", attempt=9)])
    assert (store.task(task_id(1)), store.outcome(task_id(1)), store.record(task_id(1))) == before


def test_of_two_ends_in_one_batch_the_first_counts(store: Store) -> None:
    store.apply([added(1), ended(1, outcome=b"first"), dead(1, outcome=b"second")])
    assert store.outcome(task_id(1)) == Outcome(TaskState.COMPLETED, "", b"first")
    store.apply([added(3)])
    store.apply([ended(3, outcome=b"first"), added(3), ended(3, outcome=b"second")])
    assert store.outcome(task_id(3)) == Outcome(TaskState.COMPLETED, "", b"first")
    store.apply([added(2), ended(2, outcome=b"first"), ended(2, outcome=b"second", attempt=5)])
    assert store.outcome(task_id(2)) == Outcome(TaskState.COMPLETED, "", b"first")
    kept = store.record(task_id(2))
    assert kept is not None
    assert kept.attempt == 1


@pytest.mark.parametrize("before", [[], [added(1)], [added(1), moved(1, TaskState.RUNNING)], [added(1), ended(1)]])
@pytest.mark.parametrize("end", [ended(1, outcome=b"late"), dead(1, outcome=b"")])
def test_a_task_that_begins_and_ends_in_one_batch_is_as_any_other(
    store: Store, before: list[Change], end: TaskEnded
) -> None:
    store.apply(before)
    at_once: list[Change] = [added(1, origin=task_id(9)), end, added(2, origin=task_id(9)), dead(2)]
    store.apply(at_once * 2)
    first, second = store.task(task_id(1)), store.task(task_id(2))
    other = MemoryStore()
    other.open()
    for change in [*before, *at_once]:
        other.apply([change])
    assert first == other.task(task_id(1))
    assert second == other.task(task_id(2))
    assert store.outcome(task_id(1)) == other.outcome(task_id(1))
    assert store.record(task_id(2)) == other.record(task_id(2))


def test_a_task_that_is_added_twice_in_one_batch_is_the_first(store: Store) -> None:
    large = b"large" * 1000
    first, second = ended(1, outcome=b"first"), ended(1, outcome=b"second")
    store.apply([added(1), first, added(1, name="other"), second])
    store.apply([added(2, payload=large), added(2, payload=b"small"), ended(2)])
    assert [store.record(task_id(number)).name for number in (1, 2)] == ["thumbnail"] * 2  # type: ignore[union-attr]
    assert store.outcome(task_id(1)) == Outcome(TaskState.COMPLETED, "", b"first")
    assert store.record(task_id(2)).payload == large  # type: ignore[union-attr]


def test_of_several_moves_in_one_batch_the_last_counts(store: Store) -> None:
    store.apply([added(1), moved(1, TaskState.RUNNING), moved(1, TaskState.SCHEDULED, due_at=NOW, failures=2)])
    assert store.record(task_id(1)) == record(1, state=TaskState.SCHEDULED, due_at=NOW, attempt=1, failures=2)


@pytest.mark.parametrize("count", [1, 7, 8, 63, 64, 65, 200])
def test_batches_of_any_size_are_applied_whole(store: Store, count: int) -> None:
    numbers = range(1, count + 1)
    store.apply([added(number) for number in numbers])
    assert [each.id for each in unfinished(store)] == [task_id(number) for number in numbers]
    store.apply([moved(number, TaskState.RUNNING, attempt=number) for number in numbers])
    assert [each.attempt for each in unfinished(store)] == list(numbers)
    store.apply([ended(number) for number in numbers])
    assert [store.outcome(task_id(number)) for number in numbers] == [
        Outcome(TaskState.COMPLETED, "", b"result %d" % number) for number in numbers
    ]


def test_what_must_be_in_hand_comes_by_order(medium: Medium) -> None:
    keyed, expiring = TaskOptions(key="a"), TaskOptions(expires_s=9.0)
    medium.store.apply(
        [
            *(added(number, order=order) for number, order in {1: 30, 2: 10, 3: 20}.items()),
            added(4, order=15, options=keyed),
            added(5, order=5, options=expiring, state=TaskState.SCHEDULED, due_at=NOW + 1),
            added(6, order=1),
            added(7, order=2, options=keyed),
            moved(1, TaskState.RUNNING),
            moved(3, TaskState.SCHEDULED, due_at=NOW, attempt=1),
            ended(7),
        ]
    )
    store = medium.reopen()
    assert [each.id for each in store.in_hand()] == [task_id(number) for number in (5, 4, 3, 1)]
    assert [each.id for each in unfinished(store)] == [task_id(number) for number in (6, 5, 2, 4, 3, 1)]


def test_what_is_in_hand_may_end_while_it_is_read(store: Store) -> None:
    store.apply([added(number, options=TaskOptions(expires_s=60.0)) for number in range(2_500)])
    seen = []
    for each in store.in_hand():
        seen.append(each.order)
        store.apply([TaskEnded(each.id, TaskState.CANCELLED, NOW, None, 0, 0, None, "cancelled", "", b"", NOW)])
    assert seen == list(range(2_500))
    assert store.counts() == {TaskState.CANCELLED: 2_500}


def test_a_shelf_is_one_line_and_is_read_from_any_place(medium: Medium) -> None:
    here = LineKey("thumbnail", frozenset({"gpu", "big"}), False, 3, "g")
    mine = TaskOptions(requires=frozenset({"big", "gpu"}), priority=3)
    others = {
        "name": {"name": "resize", "options": mine, "group": "g"},
        "requires": {"options": mine._replace(requires=frozenset({"gpu"})), "group": "g"},
        "ephemeral": {"options": mine._replace(ephemeral=True), "group": "g"},
        "priority": {"options": mine._replace(priority=4), "group": "g"},
        "group": {"options": mine, "group": "h"},
    }
    numbers = itertools.count(1)
    for _ in range(3):
        medium.store.apply([added(next(numbers), options=mine._replace(timeout_s=7.0), group="g")])
        medium.store.apply([added(next(numbers), **fields) for fields in others.values()])
    store = medium.reopen()
    assert len(store.shelves()) == 6
    assert all(tasks == 3 for _, tasks, _ in store.shelves())
    assert (here, 3, 13) in store.shelves()
    assert [each.order for each in store.shelf(here, START, 10)] == [1, 7, 13]
    assert [each.order for each in store.shelf(here, (0.0, 1), 1)] == [7]
    assert store.shelf(here, (0.0, 13), 10) == []


@pytest.mark.parametrize("size", [0, 200, 5_000, 100_000], ids=["nothing", "in the row", "in a table", "in a file"])
@pytest.mark.parametrize("due", [False, True], ids=["queued", "scheduled"])
def test_a_page_of_a_shelf_ends_with_so_many_bytes(medium: Medium, size: int, due: bool) -> None:
    waits = {"state": TaskState.SCHEDULED, "due_at": NOW} if due else {}
    medium.store.apply([added(number, payload=bytes(size), **waits) for number in range(1, 8)])
    store = medium.reopen()
    [(line, tasks, _)] = store.shelves()
    assert tasks == 7

    def page(limit: int, limit_bytes: int) -> list[int]:
        return [each.order for each in store.shelf(line, START, limit, limit_bytes)]

    assert page(10, 10 * size + 1) == [1, 2, 3, 4, 5, 6, 7]
    assert page(10, 2 * size + 1) == ([1, 2, 3] if size else [1, 2, 3, 4, 5, 6, 7])
    assert page(10, 2 * size or 1) == ([1, 2] if size else [1, 2, 3, 4, 5, 6, 7])
    assert page(2, 10 * size + 1) == [1, 2]
    assert page(10, 0) == [1]
    store.apply([ended(1)])  # a page that was not read to its end holds nothing up
    assert page(10, 0) == [2]


def test_the_schedule_is_read_by_due_time_and_then_by_order(medium: Medium) -> None:
    due = {1: 9.0, 2: 3.0, 3: 3.0, 4: 5.0}
    changes = [added(number, state=TaskState.SCHEDULED, due_at=NOW + after) for number, after in due.items()]
    medium.store.apply([*changes, added(5), added(6, state=TaskState.SCHEDULED, due_at=NOW, attempt=1, failures=1)])
    medium.store.apply([moved(4, TaskState.QUEUED, attempt=0)])
    store = medium.reopen()
    assert (None, 3, 3) in store.shelves()
    assert [each.order for each in store.shelf(None, START, 10)] == [2, 3, 1]
    assert [each.order for each in store.shelf(None, (NOW + 3.0, 2), 1)] == [3]


def test_keys_of_final_tasks_hold_for_their_windows(medium: Medium) -> None:
    hour = TaskOptions(key="a", key_window_s=3600.0)
    medium.store.apply([added(1, options=hour), added(2, options=hour._replace(key="b")), added(3, options=hour)])
    medium.store.apply([added(4, options=TaskOptions(key="c")), ended(1), dead(2), ended(4)])
    store = medium.reopen()
    assert store.keys(NOW + 10) == [("a", task_id(1), NOW + 3600.0), ("b", task_id(2), NOW + 3600.0)]
    assert store.keys(NOW + 3600.0) == []


def test_it_tells_the_ids_that_it_has_had(medium: Medium) -> None:
    now = last_id_of(NOW)
    assert (medium.store.ids(now), medium.store.forgotten()) == ((b"", ()), b"")
    medium.store.apply([added(number) for number in (3, 9, 5)])
    medium.store.apply([ended(3), ended(9), dead(5)])
    assert (medium.reopen().ids(now), medium.store.forgotten()) == ((task_id(9), ()), b"")
    assert medium.store.ids(task_id(4)) == (task_id(3), (task_id(5), task_id(9)))
    medium.store.apply([TasksPurged((task_id(5),))])
    assert (medium.reopen().ids(now), medium.store.forgotten()) == ((task_id(9), ()), task_id(5))
    medium.store.expire(NOW + 9_999)
    assert (medium.reopen().ids(now), medium.store.forgotten()) == ((task_id(9), ()), task_id(9))
    medium.store.apply([added(1), ended(1), TasksPurged((task_id(1),))])
    assert (medium.reopen().ids(now), medium.store.forgotten()) == ((task_id(9), ()), task_id(9))


def test_ids_beyond_are_named_where_they_are_few(store: Store) -> None:
    store.apply([added(number, order=number) for number in range(1, AHEAD_MOST + 3)])
    assert store.ids(task_id(2)) == (task_id(2), tuple(map(task_id, range(3, AHEAD_MOST + 3))))
    assert store.ids(task_id(1)) == (task_id(AHEAD_MOST + 2), ())


def test_an_id_from_the_future_makes_no_other_old(medium: Medium) -> None:
    soon, late = (int.from_bytes(last_id_of(NOW + after)) for after in (0.5, 1.5))
    medium.store.apply([added(soon, order=1), added(late, order=2), ended(soon), ended(late)])
    assert medium.store.ids(last_id_of(NOW)) == (b"", (task_id(soon), task_id(late)))
    medium.store.apply([TasksPurged((task_id(late),))])
    assert medium.reopen().forgotten() == b""
    medium.store.apply([TasksPurged((task_id(soon),))])
    assert medium.reopen().forgotten() == task_id(soon)


def test_a_batch_of_a_thousand_changes_is_applied_in_order(medium: Medium) -> None:
    numbers = range(250)
    changes: list[Change] = [added(number) for number in numbers]
    for number in numbers:
        changes += [moved(number, TaskState.RUNNING), failed(number, 1), ended(number, attempt=2, failures=1)]
    medium.store.apply(changes)
    store = medium.reopen()
    assert len(changes) == 1_000
    assert store.counts() == {TaskState.COMPLETED: 250}
    for number in (0, 124, 249):
        info = store.task(task_id(number))
        assert info is not None
        assert (len(info.attempts), info.failures, info.attempt) == (1, 1, 2)


def test_an_empty_batch_is_nothing(store: Store) -> None:
    store.apply([])
    assert store.counts() == {}


# ------------------------------------------------------------------------------------------------ forgetting


def test_expired_results_are_forgotten_oldest_first(medium: Medium) -> None:
    numbers = [1, 2, 3, 4]
    medium.store.apply([added(number) for number in [*numbers, 5, 6]])
    medium.store.apply([ended(number, expires_at=NOW + 10 - number) for number in numbers] + [dead(5)])
    store = medium.reopen()
    assert store.expire(NOW) == 0
    assert store.expire(NOW + 8, limit=1) == 1  # 4 is the first to go
    assert ids(store) == [6, 5, 3, 2, 1]
    assert store.expire(NOW + 8) == 2  # 3, and 2 at its very second
    assert ids(store) == [6, 5, 1]
    assert store.outcome(task_id(2)) is None
    assert store.expire(NOW + 1e9) == 1
    assert ids(store) == [6, 5]  # a dead letter and a queued task stay
    assert store.expire(NOW + 1e9) == 0


def test_purged_tasks_are_forgotten_with_their_history(medium: Medium) -> None:
    medium.store.apply([added(1), added(2), added(3), failed(1, 1), dead(1), dead(2)])
    medium.store.apply([TasksPurged((task_id(1), task_id(3), task_id(9)))])
    store = medium.reopen()
    assert ids(store) == [3, 2]  # 3 is not final
    assert store.record(task_id(1)) is None
    assert store.outcome(task_id(1)) is None
    store.apply([added(1)])
    info = store.task(task_id(1))
    assert info is not None
    assert (info.attempts, info.state) == ((), TaskState.QUEUED)
    assert store.outcome(task_id(1)) is None


def test_a_requeued_task_and_its_origin_name_each_other(medium: Medium) -> None:
    medium.store.apply([added(1), dead(1)])
    medium.store.apply([added(2, origin=task_id(1)), TaskRequeued(task_id(1), task_id(2))])
    store = medium.reopen()
    old, new = store.task(task_id(1)), store.task(task_id(2))
    assert old is not None
    assert new is not None
    assert (old.state, old.requeued_as) == (TaskState.DEAD, new.id)
    assert (new.state, new.origin) == (TaskState.QUEUED, old.id)


# ------------------------------------------------------------------------------------------------ looking


def test_tasks_are_listed_newest_first_and_in_pages(store: Store) -> None:
    store.apply([added(number) for number in (3, 1, 5, 2, 4)])
    assert ids(store) == [5, 4, 3, 2, 1]
    assert ids(store, limit=2) == [5, 4]
    assert ids(store, limit=2, before=task_id(4)) == [3, 2]
    assert ids(store, limit=2, before=task_id(2)) == [1]
    assert ids(store, before=task_id(1)) == []
    assert ids(store, limit=0) == []


def test_tasks_are_listed_by_state_and_name(store: Store) -> None:
    store.apply([added(number, name="even" if number % 2 == 0 else "odd") for number in range(1, 9)])
    store.apply([ended(number) for number in (1, 2, 3, 4)])
    assert ids(store, state=TaskState.COMPLETED) == [4, 3, 2, 1]
    assert ids(store, name="even") == [8, 6, 4, 2]
    assert ids(store, name="odd", state=TaskState.QUEUED) == [7, 5]
    assert ids(store, name="odd", state=TaskState.COMPLETED, before=task_id(3)) == [1]
    assert ids(store, name="none") == []
    assert ids(store, state=TaskState.DEAD) == []


def test_tasks_are_counted_by_state(store: Store) -> None:
    store.apply([added(number) for number in range(6)])
    store.apply([ended(0), ended(1), dead(2), moved(3, TaskState.RUNNING)])
    expected = {TaskState.COMPLETED: 2, TaskState.DEAD: 1, TaskState.RUNNING: 1, TaskState.QUEUED: 2}
    assert store.counts() == expected


# ------------------------------------------------------------------------------------------------ in memory only


def test_memory_forgets_what_ended_first_beyond_its_limit() -> None:
    store = MemoryStore(limit=2)
    store.open()
    store.apply([added(number) for number in range(1, 6)])
    store.apply([ended(3), dead(1), ended(2), dead(5)])
    assert ids(store) == [5, 4, 2]


def test_memory_forgets_what_ended_first_beyond_its_bytes() -> None:
    """A payload, an outcome and what an attempt left behind are of a weight; the last to end is kept in any case."""
    large = 10_000
    store = MemoryStore(limit_bytes=35_000)
    store.open()
    store.apply([added(number, payload=bytes(large) if number == 1 else b"") for number in range(1, 8)])
    store.apply([ended(1), ended(2, outcome=bytes(large))])
    store.apply([failed(3, 1, post_mortem=REMAINS._replace(output="x" * large)), dead(3)])
    assert ids(store, state=TaskState.COMPLETED) == [2, 1]
    store.apply([failed(4, 1, traceback="x" * large), dead(4)])
    assert [number for number in ids(store) if number < 5] == [4, 3, 2]
    store.apply([TasksPurged((task_id(2),)), dead(5, message="x" * large)])
    assert [number for number in ids(store) if number < 6] == [5, 4, 3]
    store.apply([dead(6, outcome=bytes(5 * large))])
    assert ids(store) == [7, 6]
    store.apply([dead(7)])
    assert ids(store) == [7]


# ------------------------------------------------------------------------------------------------ schedules

HOURLY = ScheduleRecord("hourly", "beat", b"payload", None, Timing(every_s=3600.0), False, NOW, NOW)
NIGHTLY = ScheduleRecord(
    "app:nightly", "report", b"", b"\x81", Timing("0 3 * * *", None, "Europe/Berlin", "all"), True, NOW, NOW + 5.25
)


def test_schedules_are_kept_whole(medium: Medium) -> None:
    assert medium.store.schedules() == []
    medium.store.apply([ScheduleSet(HOURLY), ScheduleSet(NIGHTLY)])
    assert medium.reopen().schedules() == [NIGHTLY, HOURLY]


def test_a_schedule_is_changed_ticks_and_is_removed(medium: Medium) -> None:
    changed = HOURLY._replace(name="other", paused=True)
    medium.store.apply([ScheduleSet(HOURLY), ScheduleSet(NIGHTLY), ScheduleSet(changed)])
    for _ in range(2):  # applied twice, it is the same
        medium.store.apply([ScheduleTicked("hourly", NOW + 3600.0), ScheduleRemoved("app:nightly")])
    assert medium.reopen().schedules() == [changed._replace(last_tick=NOW + 3600.0)]


def test_changes_of_an_unknown_schedule_are_ignored(store: Store) -> None:
    store.apply([ScheduleTicked("hourly", NOW), ScheduleRemoved("hourly")])
    assert store.schedules() == []


def test_a_task_tells_which_schedule_has_made_it(medium: Medium) -> None:
    task = record(1, origin="schedule:hourly")
    medium.store.apply([ScheduleSet(HOURLY), TaskAdded(task), ScheduleTicked("hourly", NOW + 3600.0)])
    store = medium.reopen()
    assert store.record(task.id) == task
    assert unfinished(store) == [task]
    info = store.task(task.id)
    assert info is not None
    assert info.origin == "schedule:hourly"


@pytest.mark.parametrize("size", [0, 1, 256, 257, 65_536, 65_537, 3_000_000])
def test_payloads_and_outcomes_of_any_size_come_back(medium: Medium, size: int) -> None:
    payload, outcome = b"p" * size, b"o" * size
    medium.store.apply([added(1, payload=payload), added(2, payload=payload), ended(2, outcome=outcome)])
    store = medium.reopen()
    queued, completed, kept = store.record(task_id(1)), store.record(task_id(2)), store.outcome(task_id(2))
    assert queued is not None
    assert completed is not None
    assert kept is not None
    assert queued.payload == completed.payload == payload
    assert kept.outcome == outcome
    assert [each.payload for each in unfinished(store)] == [payload]


# ------------------------------------------------------------------------------------------------ worker lives


def test_worker_lives_are_kept_with_their_epoch(medium: Medium) -> None:
    medium.store.apply([lived(1), lived(2, retired="idle_timeout_s", executed=7, peak_memory_mb=51.5), lived(1, 2)])
    store = medium.reopen()
    store.apply([lived(1)])
    assert [(life.worker, life.epoch, life.incarnation) for life in store.lives()] == [
        ("worker-1", 2, 1),
        ("worker-1", 1, 2),
        ("worker-2", 1, 1),
        ("worker-1", 1, 1),
    ]
    assert store.lives("worker-2") == [
        lived(2, retired="idle_timeout_s", executed=7, peak_memory_mb=51.5).life._replace(epoch=1)
    ]
    assert [life.incarnation for life in store.lives("worker-1", limit=2)] == [1, 2]
    assert store.lives("worker-7") == store.lives(limit=0) == []


def test_a_life_that_is_told_twice_is_one(store: Store) -> None:
    store.apply([lived(1), lived(1, how="otherwise")])
    store.apply([lived(1)])
    assert [life.how for life in store.lives()] == ["exit code 0"]


def test_only_the_last_lives_are_kept(store: Store) -> None:
    store.apply([lived(1, number) for number in range(1, LIVES_KEPT + 100)])
    kept = store.lives(limit=LIVES_KEPT * 2)
    assert [life.incarnation for life in kept] == list(range(LIVES_KEPT + 99, 99, -1))

"""What finished tasks' outcomes weigh together is bounded: the oldest are forgotten, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from poolmgr.core.changes import TasksPurged
from poolmgr.model import TaskOptions, TaskState
from poolmgr.store.sqlite import SqliteStore
from tests.conformance.samples import NOW, added, dead, ended, ids, task_id

KIB = bytes(1024)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "poolmgr.db", results_limit_bytes=5 * 1024)) as store:
        store.open()
        yield store


def finish(store: SqliteStore, *numbers: int, outcome: bytes = KIB) -> None:
    store.apply([added(number) for number in numbers])
    store.apply([ended(number, outcome=outcome, expires_at=NOW + number) for number in numbers])


def test_the_oldest_go_first_and_only_as_many_as_must(store: SqliteStore) -> None:
    finish(store, 3, 1, 4, 2, 5)
    assert store.expire(NOW) == 0
    finish(store, 6, 7)
    assert store.expire(NOW) == 2
    assert ids(store) == [7, 6, 5, 4, 3]
    assert store.expire(NOW) == 0


def test_dead_letters_and_what_has_not_ended_stay(store: SqliteStore) -> None:
    store.apply([added(number, payload=KIB * 9) for number in (1, 2)])
    store.apply([dead(2, outcome=KIB * 9)])
    finish(store, *range(3, 13))
    while store.expire(NOW):
        pass
    assert store.counts() == {TaskState.QUEUED: 1, TaskState.DEAD: 1, TaskState.COMPLETED: 5}


def test_at_most_so_many_go_at_once(store: SqliteStore) -> None:
    finish(store, *range(1, 13))
    assert [store.expire(NOW, 3) for _ in range(4)] == [3, 3, 1, 0]


def test_what_has_expired_goes_before_anything_is_weighed(store: SqliteStore) -> None:
    finish(store, 1, 2, 3, 4, 5, 6, 7)
    assert store.expire(NOW + 3) == 3
    assert ids(store) == [7, 6, 5, 4]


def test_a_key_holds_for_its_window_whatever_its_task_weighs(store: SqliteStore) -> None:
    keyed = TaskOptions(key="k", key_window_s=100.0)
    store.apply([added(1, options=keyed), ended(1, outcome=KIB * 4, expires_at=NOW + 100)])
    finish(store, 2, 3)
    assert store.expire(NOW + 1) == 1  # the one that would expire first of those that may go
    assert ids(store) == [3, 1]
    store.apply([added(4), ended(4, outcome=KIB * 9, expires_at=NOW + 300)])
    assert store.expire(NOW + 1) == 2
    assert store.keys(NOW + 1) == [("k", task_id(1), NOW + 100.0)]
    assert ids(store) == [1]
    store.apply([added(5), ended(5, outcome=KIB, expires_at=NOW + 300)])
    assert store.expire(NOW + 2) == 0
    store.apply([added(6), ended(6, outcome=KIB, expires_at=NOW + 300)])
    assert store.expire(NOW + 100) == 1  # its window is over, and it has expired
    assert ids(store) == [6, 5]


@pytest.mark.parametrize("size", [1024, 70_000])  # beside the row, in a file
def test_a_restart_knows_what_they_weigh(store: SqliteStore, size: int) -> None:
    finish(store, 1, 2, 3, 4, 5, 6, outcome=bytes(size))
    store.close()
    store.open()
    store.expire(NOW)
    assert ids(store) == ([6, 5, 4, 3, 2] if size == 1024 else [])


def test_what_was_purged_or_came_twice_is_not_weighed(store: SqliteStore) -> None:
    finish(store, 1, 2, 3)
    assert store.expire(NOW) == 0
    store.apply([TasksPurged((task_id(1), task_id(2)))])
    finish(store, 3, 3, 4, 5, 6, 7)
    assert store.expire(NOW) == 0
    assert ids(store) == [7, 6, 5, 4, 3]


def test_without_a_limit_they_stay(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "poolmgr.db")) as store:
        store.open()
        finish(store, *range(1, 50))
        assert store.expire(NOW) == 0

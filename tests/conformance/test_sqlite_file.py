"""What only a store in a file can suffer: locks, full disks, damage, foreign files. Nothing is ever deleted."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from poolmgr.core.changes import Change
from poolmgr.errors import StoreUnavailable
from poolmgr.model import TaskState
from poolmgr.store.sqlite import SqliteStore
from tests.conformance.samples import NOW, added, ended, task_id, unfinished


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom file modes bind: root is not."""
    mine = os.geteuid()
    if mine != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def filled(path: Path) -> None:
    """A closed database at ``path`` that holds one task and has seen one epoch."""
    with closing(SqliteStore(path)) as store:
        store.open()
        store.apply([added(1)])


def test_only_its_owner_may_read_it(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        store.open()
        store.apply([added(1)])
        modes = {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == {0o600}


def test_the_log_is_gone_after_a_close(path: Path) -> None:
    filled(path)
    assert [each.name for each in path.parent.iterdir()] == ["state.db"]


def test_the_log_is_truncated_once_the_store_is_idle(path: Path) -> None:
    log = path.with_name("state.db-wal")
    with closing(SqliteStore(path)) as store:
        store.open()
        store.apply([added(1)])
        store.expire(NOW)
        assert log.stat().st_size > 0
        store.expire(NOW)
        assert log.stat().st_size == 0


def test_a_locked_database_is_refused_until_it_is_free(path: Path) -> None:
    with closing(SqliteStore(path, busy_timeout_s=0.001)) as store, closing(sqlite3.connect(path)) as other:
        store.open()
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="another process has locked it"):
            store.apply([added(1)])
        other.rollback()
        assert store.counts() == {}
        store.apply([added(1)])
        assert store.counts() == {TaskState.QUEUED: 1}


def test_a_database_that_is_locked_at_open_is_refused_until_it_is_free(path: Path) -> None:
    filled(path)
    with closing(SqliteStore(path, busy_timeout_s=0.001)) as store, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="another process has locked it"):
            store.open()
        other.rollback()
        assert store.open() == 2


def test_a_full_disk_changes_nothing_and_the_same_batch_fits_later(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        store.open()
        store.apply([added(1)])
        connection = store._connection
        assert connection is not None
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to be full
        batch: list[Change] = [ended(1), *(added(number, payload=bytes(5_000)) for number in range(2, 50))]
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            store.apply(batch)
        assert store.counts() == {TaskState.QUEUED: 1}
        assert store.outcome(task_id(1)) is None
        connection.execute("PRAGMA max_page_count = 1000000")
        store.apply(batch)
        assert store.counts() == {TaskState.COMPLETED: 1, TaskState.QUEUED: 48}


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"cannot create .*gone/state\.db"):
        SqliteStore(tmp_path / "gone" / "state.db").open()


def test_a_folder_that_cannot_be_written_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        store = SqliteStore(Path(folder) / "state.db")  # as root: others may not read this checkout
        with unprivileged(), pytest.raises(StoreUnavailable, match="cannot create"):
            store.open()
        os.chmod(folder, 0o755)


def test_a_file_that_cannot_be_written_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        filled(path)
        path.chmod(0o444)
        os.chmod(folder, 0o555)
        store = SqliteStore(path)
        with unprivileged(), pytest.raises(StoreUnavailable, match="look at the owner and mode"):
            store.open()
        os.chmod(folder, 0o755)


@pytest.mark.parametrize("content", [b"not a database, but a letter to a friend" * 100, bytes(8192)])
def test_a_file_of_something_else_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match="nothing was deleted"):
        SqliteStore(path).open()
    assert path.read_bytes() == content


def test_a_damaged_file_is_refused_and_kept(path: Path) -> None:
    filled(path)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)  # all but the first page, which holds the schema
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match="nothing was deleted"):
        filled(path)
    assert path.stat().st_size == len(content)


def test_a_row_that_makes_no_sense_is_refused(path: Path) -> None:
    filled(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE tasks SET options = x'93'")
        other.commit()
    with closing(SqliteStore(path)) as store:
        store.open()
        with pytest.raises(StoreUnavailable, match="makes no sense"):
            unfinished(store)


def test_a_database_of_a_newer_version_is_refused_unchanged(path: Path) -> None:
    filled(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 999")
    content = path.read_bytes()
    with pytest.raises(StoreUnavailable, match=r"newer poolmgr.*999"):
        SqliteStore(path).open()
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused_unchanged(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE bookmarks (url TEXT)")
    content = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="another program"):
        SqliteStore(path).open()
    assert path.read_bytes() == content


def test_an_sqlite_that_is_too_old_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 1))
    with pytest.raises(StoreUnavailable, match=r"3\.33\.0 is needed"):
        SqliteStore(path).open()
    assert not path.exists()


def test_a_refused_opening_can_be_tried_again(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable):
        store.open()
    path.unlink()
    with closing(store):
        assert store.open() == 1


@pytest.mark.parametrize(("synchronous", "level"), [("FULL", 2), ("NORMAL", 1)])
def test_synchronous_is_what_was_asked(path: Path, synchronous: Any, level: int) -> None:
    with closing(SqliteStore(path, synchronous=synchronous)) as store:
        store.open()
        assert store._connection is not None
        assert store._connection.execute("PRAGMA synchronous").fetchone() == (level,)


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        ("in_hand_page", (0, b"", 10), "tasks_in_hand"),
        ("queued_page", ("a", "", 10, "g", 0, 10), "tasks_queued"),
        ("scheduled_page", (NOW, 0, 10), "tasks_scheduled"),
        ("queued_sizes", (), "INDEX tasks_queued"),
        ("scheduled_size", (), "INDEX tasks_scheduled"),
        ("keys", (NOW,), "tasks_by_key_window"),
        ("last_id", (b"",), "PRIMARY KEY"),
        ("tasks", (b"", 10, None, "a"), "PRIMARY KEY"),
        ("tasks_ended_badly", (b"", 10, "dead", None), "tasks_ended_badly"),
        ("first_to_expire", (NOW, 10), "USING COVERING INDEX tasks_by_expiry"),
        ("forget_until", (NOW, b"1"), "USING COVERING INDEX tasks_by_expiry"),
        ("first_to_spare", (NOW, 10), "USING INDEX tasks_by_expiry"),
        ("results_bytes", (), "USING COVERING INDEX tasks_by_expiry"),
    ],
)
def test_every_list_comes_from_an_index_in_its_order(
    path: Path, statement: str, values: tuple[Any, ...], index: str
) -> None:
    with closing(SqliteStore(path)) as store:
        store.open()
        assert store._connection is not None
        plan = store._connection.execute(f"EXPLAIN QUERY PLAN {store._sql[statement]}", values).fetchall()
    steps = "; ".join(step for *_, step in plan)
    assert index in steps
    assert "TEMP B-TREE" not in steps  # nothing is sorted

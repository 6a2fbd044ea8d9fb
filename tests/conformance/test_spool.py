"""Large payloads and outcomes are in files, which come before their rows and go after them."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest

from poolmgr.core.changes import Change, TasksPurged
from poolmgr.errors import PayloadLost, StoreUnavailable, failure
from poolmgr.model import TaskOptions, TaskState
from poolmgr.payload import Lost
from poolmgr.store import spool
from poolmgr.store.base import Outcome
from poolmgr.store.rows import LONG_BYTES
from poolmgr.store.sqlite import SqliteStore
from tests.conformance.samples import NOW, added, dead, ended, record, task_id, unfinished

LARGE = b"l" * (LONG_BYTES + 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "poolmgr.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        store.open()
        yield store


def files(path: Path) -> list[Path]:
    return sorted(path.with_name("spool").glob("*"))


def reopened(store: SqliteStore) -> SqliteStore:
    store.close()
    store.open()
    return store


def test_what_is_not_large_makes_no_file(store: SqliteStore, path: Path) -> None:
    store.apply([added(1, payload=bytes(LONG_BYTES)), ended(1, outcome=bytes(LONG_BYTES))])
    assert not path.with_name("spool").exists()


def test_only_its_owner_may_read_them(store: SqliteStore, path: Path) -> None:
    store.apply([added(1, payload=LARGE), added(2), ended(2, outcome=LARGE)])
    assert stat.S_IMODE(path.with_name("spool").stat().st_mode) == 0o700
    assert [stat.S_IMODE(each.stat().st_mode) for each in files(path)] == [0o600, 0o600]
    assert [each.read_bytes() for each in files(path)] == [LARGE, LARGE]


def test_files_go_when_their_task_is_forgotten(store: SqliteStore, path: Path) -> None:
    for number in (1, 2, 3):
        store.apply([added(number, payload=LARGE), ended(number, outcome=LARGE, expires_at=NOW + number)])
    assert len(files(path)) == 6
    store.apply([TasksPurged((task_id(1), task_id(9)))])
    assert len(files(path)) == 4
    assert store.expire(NOW + 2) == 1
    assert len(files(path)) == 2
    assert reopened(store).outcome(task_id(3)) == Outcome(TaskState.COMPLETED, "", LARGE)


def test_names_that_come_and_go_are_not_interned(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interned = []

    def intern(text: str) -> str:
        interned.append(text)
        return text

    monkeypatch.setattr(sys, "intern", intern)
    store.apply([added(1, payload=LARGE), ended(1, outcome=LARGE)])
    assert store.outcome(task_id(1)) == Outcome(TaskState.COMPLETED, "", LARGE)
    names = os.listdir(path.with_name("spool"))
    store.apply([TasksPurged((task_id(1),))])
    reopened(store)
    assert names
    assert not set(names) & set(interned)


def test_what_is_known_already_makes_no_file(store: SqliteStore, path: Path) -> None:
    store.apply([added(1, payload=LARGE), added(1, payload=LARGE + b"2"), ended(2, outcome=LARGE)])
    store.apply([added(1, payload=LARGE), ended(1), ended(1, outcome=LARGE)])
    assert len(files(path)) == 1
    kept = store.record(task_id(1))
    assert kept is not None
    assert kept.payload == LARGE
    assert store.outcome(task_id(1)) == Outcome(TaskState.COMPLETED, "", b"result 1")


def test_an_id_that_comes_again_has_its_new_file(store: SqliteStore, path: Path) -> None:
    store.apply([added(1, payload=LARGE), ended(1), TasksPurged((task_id(1),)), added(1, payload=LARGE + b"again")])
    assert len(files(path)) == 1
    assert reopened(store).record(task_id(1)) == record(1, payload=LARGE + b"again")


@pytest.mark.parametrize("step", ["open", "write", "fdatasync", "fsync"])
def test_a_full_disk_leaves_neither_row_nor_file(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store.apply([added(1, payload=LARGE)])
    batch: list[Change] = [ended(1, outcome=LARGE), added(2, payload=LARGE), added(3)]
    real, calls = getattr(os, step), []

    def full(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) > (step != "fsync"):  # the second file, or the only sync of the directory
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(os, step, full)
    with pytest.raises(StoreUnavailable, match="the disk is full: free some space"):
        store.apply(batch)
    monkeypatch.undo()
    assert len(files(path)) == 1
    assert store.counts() == {TaskState.QUEUED: 1}
    store.apply(batch)
    assert len(files(path)) == 3
    assert store.outcome(task_id(1)) == Outcome(TaskState.COMPLETED, "", LARGE)


def test_a_commit_that_fails_leaves_no_file(store: SqliteStore, path: Path) -> None:
    connection = store._connection
    assert connection is not None
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        store.apply([added(1, payload=LARGE), *(added(number, payload=bytes(5000)) for number in range(2, 20))])
    assert files(path) == []


def test_all_is_synced_before_the_commit_and_the_directory_once(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.apply([added(1, payload=LARGE)])  # has made the directory
    steps: list[str] = []
    connection = store._connection
    assert connection is not None

    def noting(step: str) -> None:
        real = getattr(os, step)

        def noted(fd: int) -> None:
            steps.append(step)
            real(fd)

        monkeypatch.setattr(os, step, noted)

    noting("fdatasync")
    noting("fsync")
    connection.set_trace_callback(lambda sql: steps.append(sql) if sql == "COMMIT" else None)
    store.apply([added(2, payload=LARGE), ended(1, outcome=LARGE), added(3)])
    store.apply([added(4)])
    assert steps == ["fdatasync", "fdatasync", "fsync", "COMMIT", "COMMIT"]


def test_a_start_removes_files_that_no_row_names_and_nothing_else(store: SqliteStore, path: Path) -> None:
    store.apply([added(1, payload=LARGE)])
    (kept,) = files(path)
    note = path.with_name("spool") / "README"
    note.write_text("whoever wrote this wants it back")
    (path.with_name("spool") / "7-1f").write_bytes(LARGE)
    reopened(store)
    assert files(path) == sorted([kept, note])


def test_a_task_whose_payload_has_vanished_ends_dead_and_says_why(store: SqliteStore, path: Path) -> None:
    store.apply([added(number, payload=LARGE) for number in (1, 2)])
    store.apply([added(3), dead(2)])
    for file in files(path):
        file.unlink()
    reopened(store)
    assert [each.id for each in unfinished(store)] == [task_id(3)]
    info, outcome = store.task(task_id(1)), store.outcome(task_id(1))
    assert info is not None
    assert outcome is not None
    assert (info.state, info.cause) == (TaskState.DEAD, "payload_lost")
    assert info.message.startswith("its payload is gone: somebody has removed ")
    assert type(failure(outcome.code, "", task_id="")) is PayloadLost
    before = store.task(task_id(2))
    assert before is not None
    assert before.cause == "timeout"  # it had ended before
    with pytest.raises(StoreUnavailable, match=r"the payload of task 0+1 cannot be read from .*: No such file"):
        store.record(task_id(1))
    store.apply([TasksPurged((task_id(1),))])
    assert store.record(task_id(1)) is None


@pytest.mark.parametrize("options", [TaskOptions(), TaskOptions(key="one")], ids=["waits", "held"])
def test_a_task_whose_payload_was_cut_ends_dead_with_the_start(
    store: SqliteStore, path: Path, options: TaskOptions
) -> None:
    store.apply([added(1, payload=LARGE, options=options), added(2)])
    (file,) = files(path)
    file.write_bytes(LARGE[:-1])
    reopened(store)
    assert unfinished(store) == [record(2)]
    info = store.task(task_id(1))
    assert info is not None
    assert (info.state, info.cause) == (TaskState.DEAD, "payload_lost")
    assert info.message.endswith("has 65536 bytes in place of 65537: somebody has changed it")


@pytest.mark.parametrize("options", [TaskOptions(), TaskOptions(key="one")], ids=["waits", "held"])
def test_a_payload_that_is_lost_meanwhile_keeps_no_other_from_being_read(
    store: SqliteStore, path: Path, options: TaskOptions
) -> None:
    store.apply([added(number, payload=LARGE, options=options) for number in (1, 2)])
    store.apply([added(3), added(4, payload=LARGE)])
    first, second, _ = files(path)
    first.unlink()
    second.write_bytes(b"")
    one, two, *others = unfinished(store)
    assert others == [record(3), record(4, payload=LARGE)]
    assert one == record(1, options=options, payload=Lost(f"somebody has removed {first}"))
    changed = f"{second} has 0 bytes in place of 65537: somebody has changed it"
    assert two == record(2, options=options, payload=Lost(changed))
    assert store.record(task_id(2)) == two


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_a_payload_that_cannot_be_read_just_now_is_not_lost(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store.apply([added(1, payload=LARGE)])

    def fails(path: str, mode: str) -> NoReturn:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr("builtins.open", fails)
    with pytest.raises(StoreUnavailable, match=os.strerror(code)):
        unfinished(store)
    monkeypatch.undo()
    assert unfinished(store) == [record(1, payload=LARGE)]


def test_nothing_is_lost_while_somebody_has_moved_the_whole_directory(store: SqliteStore, path: Path) -> None:
    store.apply([added(1, payload=LARGE)])
    away = path.parent.rename(path.parent.with_name("away"))
    with pytest.raises(StoreUnavailable, match="No such file"):
        unfinished(store)
    away.rename(path.parent)
    assert unfinished(store) == [record(1, payload=LARGE)]


def test_an_outcome_that_has_vanished_or_changed_is_an_error_for_whoever_asks(store: SqliteStore, path: Path) -> None:
    store.apply([added(1), ended(1, outcome=LARGE), added(2), ended(2, outcome=LARGE)])
    first, second = files(path)
    first.unlink()
    second.write_bytes(LARGE[:-1])
    reopened(store)
    assert store.counts() == {TaskState.COMPLETED: 2}
    with pytest.raises(StoreUnavailable, match=r"the outcome of task 0+1 cannot be read"):
        store.outcome(task_id(1))
    with pytest.raises(StoreUnavailable, match="has 65536 bytes in place of 65537: somebody has changed it"):
        store.outcome(task_id(2))


def test_a_row_without_its_content_is_an_error_for_whoever_asks(store: SqliteStore, path: Path) -> None:
    store.apply([added(1, payload=LARGE)])
    with closing(sqlite3.connect(path)) as other:
        other.execute("DELETE FROM spool")
        other.commit()
    with pytest.raises(StoreUnavailable, match=r"the payload of task 0+1 is nowhere: see poolmgr db check"):
        store.record(task_id(1))


@pytest.mark.parametrize(("synchronous", "synced"), [("FULL", False), ("NORMAL", True)])
def test_no_file_goes_before_that_its_row_has_gone_survives_a_power_loss(
    path: Path, synchronous: Literal["FULL", "NORMAL"], synced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def note(name: str, real: Callable[[Any], None]) -> Callable[[Any], None]:
        def call(path: Any) -> None:
            done.append(f"{name} {os.path.basename(path)}")
            real(path)

        return call

    with closing(SqliteStore(path, synchronous=synchronous)) as store:
        store.open()
        store.apply([added(1, payload=LARGE), ended(1)])
        monkeypatch.setattr(spool, "make_durable", note("sync", spool.make_durable))
        monkeypatch.setattr(os, "unlink", note("remove", os.unlink))
        store.apply([TasksPurged((task_id(1),))])
    log = ["sync poolmgr.db-wal", f"sync {path.parent.name}"] if synced else []
    assert done == [*log, "remove 1-1"]
    assert files(path) == []

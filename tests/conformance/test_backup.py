"""A backup is one moment of a database that is being written to, and a check beside it finds nothing wrong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from poolmgr.core.changes import TasksPurged
from poolmgr.errors import StoreUnavailable, UsageError
from poolmgr.model import TaskState
from poolmgr.server import database_commands
from poolmgr.server.call import Call
from poolmgr.store import backup
from poolmgr.store.backup import back_up
from poolmgr.store.base import Outcome
from poolmgr.store.checking import check
from poolmgr.store.rows import LONG_BYTES
from poolmgr.store.sqlite import SqliteStore
from scripts.proofs.pool import until
from tests.conformance.samples import NOW, added, ended, ids, record, task_id, unfinished
from tests.conformance.test_schemas import laid_out

LARGE = b"l" * (LONG_BYTES + 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "poolmgr.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path, synchronous="NORMAL")) as store:
        store.open()
        yield store


def test_backups_and_checks_beside_a_writer(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    """Each transaction adds a task, ends the one before, and has the one before that forgotten with its files."""
    ended_at, stop = [0], threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            store.apply([added(number, payload=LARGE), ended(number - 1, outcome=LARGE, expires_at=NOW + number)])
            store.expire(NOW + number - 1)
            ended_at[0] = number

    def written(least: int) -> bool:
        return ended_at[0] > least

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copies = [tmp_path / str(turn) / "poolmgr.db" for turn in range(5)]
        for turn, copy in enumerate(copies):
            copy.parent.mkdir()
            until(partial(written, 2 * turn + 1), "it has written more")
            with store.files_held():
                back_up(path, copy, alone=False)
            assert check(path, alone=False) == []
            assert check(copy, alone=True) == []
    finally:
        stop.set()
        writer.join()
    with closing(SqliteStore(copies[-1])) as other:
        other.open()
        (task,) = unfinished(other)
        assert task.payload == LARGE
        assert 1 <= len(ids(other)) <= 3


def test_files_that_were_held_go_with_the_next_commit(store: SqliteStore, path: Path) -> None:
    store.apply([added(1), ended(1, outcome=LARGE)])
    with store.files_held():
        assert store.expire(NOW + 9999) == 1
        assert len(list(path.with_name("spool").iterdir())) == 1
    store.apply([added(2)])
    assert list(path.with_name("spool").iterdir()) == []


def test_files_are_held_for_as_long_as_they_are_copied_whatever_becomes_of_the_requester(
    store: SqliteStore, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.apply([added(1), ended(1, outcome=LARGE), added(2)])
    copy = tmp_path / "copy" / "poolmgr.db"
    copy.parent.mkdir()
    begun, left = threading.Event(), threading.Event()

    def take_in_spool(part: str, spool: str) -> None:
        begun.set()
        assert left.wait(10)
        real(part, spool)

    real = backup._take_in_spool
    monkeypatch.setattr(backup, "_take_in_spool", take_in_spool)

    async def request_and_leave() -> None:
        manager: Any = SimpleNamespace(shell=SimpleNamespace(store=store))
        options: Any = None
        request = asyncio.create_task(database_commands.backup(Call(manager, 1, 1, {"to": str(copy)}, options)))
        await asyncio.to_thread(begun.wait, 10)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        store.apply([TasksPurged((task_id(1),))])
        left.set()
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(request_and_leave())
    assert check(copy, alone=True) == []
    with closing(SqliteStore(copy)) as other:
        other.open()
        assert other.outcome(task_id(1)) == Outcome(TaskState.COMPLETED, "", LARGE)
    store.apply([added(3)])
    assert list(path.with_name("spool").iterdir()) == []  # they are held no longer


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_older_version_can_be_backed_up_before_it_is_migrated(version: int, tmp_path: Path) -> None:
    old, copy = laid_out(version, tmp_path), tmp_path / "copy.db"
    before = old.read_bytes()
    assert check(old, alone=True) == []
    assert back_up(old, copy, alone=True) == copy.stat().st_size
    assert old.read_bytes() == before
    assert check(copy, alone=True) == []
    with closing(SqliteStore(copy)) as store:
        assert store.open() == 2


def test_what_was_missing_in_the_spool_is_missing_in_the_copy(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    store.apply([added(1, payload=LARGE), added(2)])
    (file,) = path.with_name("spool").iterdir()
    file.unlink()
    assert len(check(path, alone=False)) == 1
    copy = tmp_path / "copy" / "poolmgr.db"
    copy.parent.mkdir()
    back_up(path, copy, alone=False)
    with closing(SqliteStore(copy)) as other:
        other.open()
        assert unfinished(other) == [record(2)]
        info = other.task(task_id(1))
        assert info is not None
        assert info.cause == "payload_lost"


def test_a_backup_that_fails_leaves_nothing(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreUnavailable, match="the file is corrupt"):
        back_up(path, tmp_path / "copy.db", alone=True)
    (tmp_path / "copy.db.part").touch()
    with pytest.raises(UsageError, match="another backup writes it, or was cut off"):
        back_up(path, tmp_path / "copy.db", alone=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy.db.part", "poolmgr.db"]

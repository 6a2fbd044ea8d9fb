"""How stores keep the chunks of a stream, and what its handler can go on from."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from poolmgr.core.changes import ChunkAdded, ChunksDropped, StreamRecord, TasksPurged
from poolmgr.core.stream import ROW_BYTES
from poolmgr.errors import StoreUnavailable
from poolmgr.model import TaskState
from poolmgr.payload import Payload
from poolmgr.store.backup import back_up
from poolmgr.store.base import Chunks, Store
from poolmgr.store.checking import check
from poolmgr.store.rows import LONG_BYTES
from poolmgr.store.sqlite import SqliteStore
from tests.conformance.samples import NOW, Medium, added, dead, ended, task_id
from tests.conformance.test_spool import files

LARGE = b"l" * (LONG_BYTES + 1)


def chunk(number: int, seq: int, payload: bytes | None = b"", checkpoint: bytes | None = None) -> ChunkAdded:
    return ChunkAdded(task_id(number), seq, b"chunk %d" % seq if payload == b"" else payload, checkpoint)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "poolmgr.db"


@pytest.fixture
def file(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        store.open()
        yield store


# ------------------------------------------------------------------------------------------ every store


def test_chunks_are_read_from_any_on_in_their_order(medium: Medium) -> None:
    medium.store.apply([added(1), *(chunk(1, seq) for seq in range(5))])
    store = medium.reopen()
    five: list[Payload] = [b"chunk %d" % seq for seq in range(5)]
    assert store.chunks(task_id(1), 0, 100) == Chunks(five, 5, 0, False)
    assert store.chunks(task_id(1), 2, 2) == Chunks(five[2:4], 5, 0, False)
    assert store.chunks(task_id(1), 5, 100) == Chunks([], 5, 0, False)
    assert store.chunks(task_id(1), 9, 100) == Chunks([], 5, 0, False)
    assert store.chunks(task_id(1), 0, 100, 8) == Chunks(five[:2], 5, 0, False), "none beyond the one that exceeds it"


def test_a_task_without_a_stream_has_no_chunks_and_an_unknown_one_is_none(store: Store) -> None:
    store.apply([added(1), added(2), ended(2)])
    assert store.chunks(task_id(1), 0, 10) == Chunks([], 0, 0, False)
    assert store.chunks(task_id(2), 0, 10) == Chunks([], 0, 0, True)
    assert store.chunks(task_id(3), 0, 10) is None
    assert store.streams() == []


def test_a_chunk_that_is_not_the_next_or_comes_too_late_is_ignored(store: Store) -> None:
    store.apply([added(1), chunk(1, 0), chunk(1, 0, b"another"), chunk(1, 2), chunk(9, 0)])
    store.apply([ended(1), chunk(1, 1), chunk(1, 1, None, b"state"), ChunksDropped(task_id(1), 1)])
    assert store.chunks(task_id(1), 0, 10) == Chunks([b"chunk 0"], 1, 0, True)
    assert store.chunks(task_id(9), 0, 10) is None


def test_a_chunk_and_its_checkpoint_are_one(medium: Medium) -> None:
    medium.store.apply([added(1), chunk(1, 0, checkpoint=b"after 0"), chunk(1, 1)])
    size = 2 * (len(b"chunk 0") + ROW_BYTES)
    assert medium.reopen().streams() == [StreamRecord(task_id(1), 2, 0, size, 1, b"after 0")]


def test_the_last_checkpoint_counts_and_never_an_older_one(store: Store) -> None:
    store.apply([added(1), chunk(1, 0, None, b"at the beginning")])
    assert store.streams() == [StreamRecord(task_id(1), 0, 0, 0, 0, b"at the beginning")]
    store.apply([chunk(1, 0), chunk(1, 1, None, b"after 0"), chunk(1, 1, None, b"again"), chunk(1, 0, None, b"old")])
    store.apply([chunk(1, 2, None, b"from the future")])
    (found,) = store.streams()
    assert (found.kept, found.first, found.checkpoint) == (1, 1, b"again")


def test_a_final_task_has_no_stream_that_goes_on(store: Store) -> None:
    store.apply([added(1), chunk(1, 0, checkpoint=b"state"), added(2), chunk(2, 0), dead(1)])
    assert [each.id for each in store.streams()] == [task_id(2)]


def test_dropped_chunks_are_gone_and_are_told_of(medium: Medium) -> None:
    medium.store.apply([added(1), *(chunk(1, seq) for seq in range(5)), ChunksDropped(task_id(1), 3)])
    medium.store.apply([ChunksDropped(task_id(1), 2), chunk(1, 1)])
    store = medium.reopen()
    assert store.chunks(task_id(1), 0, 10) == Chunks([], 5, 3, False)
    assert store.chunks(task_id(1), 3, 10) == Chunks([b"chunk 3", b"chunk 4"], 5, 3, False)
    assert store.streams() == [StreamRecord(task_id(1), 5, 3, 2 * (7 + ROW_BYTES), 0, None)]
    store.apply([ChunksDropped(task_id(1), 99)])
    assert store.chunks(task_id(1), 5, 10) == Chunks([], 5, 5, False)


def test_a_task_says_how_many_chunks_it_has_had_and_where_it_goes_on(store: Store) -> None:
    store.apply([added(1), added(2), added(3), chunk(1, 0, checkpoint=b"x"), chunk(1, 1), chunk(2, 0), ended(1)])
    infos = [store.task(task_id(number)) for number in (1, 2, 3)]
    assert [(info.chunks, info.resumes_at) for info in infos if info] == [(2, 1), (1, None), (0, None)]
    assert [info.chunks for info in store.tasks()] == [0, 1, 2]


@pytest.mark.parametrize("payload", [b"short", bytes(LONG_BYTES), LARGE])
def test_they_go_with_their_task(store: Store, payload: bytes) -> None:
    for number in (1, 2):
        store.apply([added(number), *(chunk(number, seq, payload) for seq in range(3))])
        store.apply([ended(number, expires_at=NOW + 1)])
    store.apply([TasksPurged((task_id(1),))])
    store.expire(NOW + 2)
    while store.sweep():
        pass
    assert store.chunks(task_id(1), 0, 10) is None
    assert store.chunks(task_id(2), 0, 10) is None


def test_an_id_that_comes_again_has_a_stream_of_its_own(medium: Medium) -> None:
    medium.store.apply([added(1), *(chunk(1, seq, LARGE) for seq in range(3))])
    medium.store.apply([ended(1), TasksPurged((task_id(1),)), added(1), chunk(1, 0, b"new")])
    store = medium.reopen()
    assert store.sweep() == 0
    assert store.chunks(task_id(1), 0, 10) == Chunks([b"new"], 1, 0, False)


# ------------------------------------------------------------------------------------------ in a file


def test_large_chunks_are_files_which_go_when_they_are_dropped_or_swept(file: SqliteStore, path: Path) -> None:
    file.apply([added(1), *(chunk(1, seq, LARGE + b"%d" % seq) for seq in range(4))])
    assert [each.read_bytes()[-1:] for each in files(path)] == [b"0", b"1", b"2", b"3"]
    file.apply([ChunksDropped(task_id(1), 1)])
    assert len(files(path)) == 3
    file.close()
    file.open()
    assert file.chunks(task_id(1), 2, 1) == Chunks([LARGE + b"2"], 4, 1, False)
    file.apply([ended(1), TasksPurged((task_id(1),))])
    assert len(files(path)) == 3
    assert file.sweep(2) == 2
    assert len(files(path)) == 1
    assert file.sweep(2) == 1
    assert file.sweep(2) == 0
    assert files(path) == []
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM chunks").fetchone() == (0,)
        assert other.execute("SELECT count(*) FROM forgotten_streams").fetchone() == (0,)


def test_a_refused_chunk_leaves_nothing_and_can_be_tried_again(
    file: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.apply([added(1), chunk(1, 0, LARGE)])
    batch = [chunk(1, 1), chunk(1, 2, LARGE, b"state")]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", full)
        with pytest.raises(StoreUnavailable, match="No space left"):
            file.apply(batch)
    assert file.chunks(task_id(1), 1, 10) == Chunks([], 1, 0, False)
    assert len(files(path)) == 1
    file.apply(batch)
    assert file.chunks(task_id(1), 1, 10) == Chunks([b"chunk 1", LARGE], 3, 0, False)


def test_results_are_limited_with_their_chunks(path: Path) -> None:
    with closing(SqliteStore(path, results_limit_bytes=3 * LONG_BYTES)) as store:
        store.open()
        for number in (1, 2, 3):
            store.apply([added(number), chunk(number, 0, LARGE)])
            store.apply([ended(number, expires_at=NOW + 100 + number, streamed=len(LARGE) + ROW_BYTES)])
        assert store.expire(NOW) == 1
        assert [info.id for info in store.tasks()] == [task_id(3).hex(), task_id(2).hex()]
        store.close()
        store.open()
        assert store.expire(NOW) == 0, "counted anew, it is the same"


def test_a_backup_holds_them(file: SqliteStore, path: Path, tmp_path: Path) -> None:
    file.apply([added(1), chunk(1, 0), chunk(1, 1, LARGE, b"state")])
    copy = tmp_path / "copy" / "poolmgr.db"
    copy.parent.mkdir()
    with file.files_held():
        back_up(path, copy, alone=False)
    assert check(copy, alone=True) == []
    with closing(SqliteStore(copy)) as other:
        other.open()
        assert other.chunks(task_id(1), 0, 10) == Chunks([b"chunk 0", LARGE], 2, 0, False)
        assert other.streams() == file.streams()


def test_a_check_finds_what_is_wrong_with_them(file: SqliteStore, path: Path) -> None:
    file.apply([added(number) for number in (1, 2, 3)])
    file.apply([chunk(number, seq, LARGE) for number in (1, 2, 3) for seq in range(3)])
    file.apply([ended(3), TasksPurged((task_id(3),))])
    assert check(path, alone=False) == [], "what is yet to be swept is in order"
    file.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DELETE FROM chunks WHERE id = ? AND seq = 1", (task_id(1),))
        other.execute("DELETE FROM spool WHERE id = ? AND seq = 2", (task_id(2),))
        other.execute("DELETE FROM forgotten_streams")
    found = check(path, alone=True)
    assert f"the stream of task {task_id(1).hex()} lacks chunks, or has some too many" in found
    assert f"a chunk of task {task_id(2).hex()} has no content" in found
    assert f"chunks of task {task_id(3).hex()} are kept, and not the task" in found


def test_a_chunk_whose_file_is_gone_is_an_error_that_names_it(file: SqliteStore, path: Path) -> None:
    file.apply([added(1), chunk(1, 0, LARGE), chunk(1, 1, LARGE)])
    files(path)[1].unlink()
    assert len((file.chunks(task_id(1), 0, 1) or Chunks([], 0, 0, False)).chunks) == 1
    with pytest.raises(StoreUnavailable, match="chunk 1 of task"):
        file.chunks(task_id(1), 0, 2)
    file.close()
    file.open()  # and the daemon starts all the same
    info = file.task(task_id(1))
    assert info is not None
    assert info.state is TaskState.QUEUED


def test_a_large_checkpoint_is_not_written_again_with_each_chunk(file: SqliteStore, path: Path) -> None:
    state = b"s" * (1 << 20)
    file.apply([added(1), chunk(1, 0, checkpoint=state)])
    for seq in range(1, 51):
        file.apply([chunk(1, seq)])
    assert path.with_name(path.name + "-wal").stat().st_size < 3 << 20
    assert file.streams() == [StreamRecord(task_id(1), 51, 0, file.streams()[0].size, 1, state)]

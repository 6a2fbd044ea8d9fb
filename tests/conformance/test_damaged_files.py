"""A database that is damaged, or not ours, is refused in words that help, and stays byte for byte as it is."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from poolmgr.errors import StoreUnavailable
from poolmgr.store.sqlite import SqliteStore
from tests.conformance.samples import added, ids, record

PAGE = 4096
FRAME = PAGE + 24


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """What the death of a daemon has left: a database with 300 tasks in it, and a log with 1,000 to 1,004, each of
    which was a transaction."""
    running, left = tmp_path / "running", tmp_path / "left"
    running.mkdir()
    with closing(SqliteStore(running / "poolmgr.db")) as store:
        store.open()
        store.apply([added(number, payload=bytes(200)) for number in range(1, 301)])
    with closing(SqliteStore(running / "poolmgr.db")) as store:
        store.open()
        for number in range(1000, 1005):
            store.apply([added(number)])
        shutil.copytree(running, left, ignore=shutil.ignore_patterns("*-shm"))
    return left / "poolmgr.db"


def log_of(path: Path) -> Path:
    return path.with_name("poolmgr.db-wal")


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def last_frame(path: Path) -> int:
    """Where the last frame of the log begins."""
    return 32 + (log_of(path).stat().st_size - 32) // FRAME * FRAME - FRAME


def middle(path: Path) -> int:
    """Where a page in the middle begins."""
    return path.stat().st_size // PAGE // 2 * PAGE


def other_log(path: Path, *, page_size: int = PAGE, program: int = 0x706D6772) -> None:
    """Put the log of another database in the place of ours."""
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other, isolation_level=None)) as connection:
        for pragma in (f"page_size = {page_size}", "journal_mode = WAL", f"application_id = {program}"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
        shutil.copy(other.with_name("other.db-wal"), log_of(path))
    other.unlink()


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")


CORRUPT = "the file is corrupt; nothing was deleted: put a backup in its place"
LOG_CORRUPT = r"its log is corrupt \(poolmgr.db-wal\): nothing was deleted"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "the header": (lambda path: overwrite(path, 0, bytes(16)), CORRUPT),
    "another header": (lambda path: overwrite(path, 0, b"PK\x03\x04" * 25), CORRUPT),
    "the schema": (lambda path: overwrite(path, 100, b"\xa5" * (PAGE - 100)), CORRUPT),
    "a page in the middle": (lambda path: overwrite(path, middle(path), b"\xa5" * PAGE), CORRUPT),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[: 5 * PAGE + 7]), CORRUPT),
    "a newer poolmgr": (newer, "was written by a newer poolmgr"),
    "no database": (lambda path: path.unlink(), "the database is missing, and its log is there"),
    "an empty database": (lambda path: path.write_bytes(b""), "the database is missing, and its log is there"),
    "the log's header": (lambda path: overwrite(log_of(path), 5, b"\xa5"), LOG_CORRUPT),
    "another file as log": (lambda path: log_of(path).write_text("Dear diary, " * 1000), LOG_CORRUPT),
    "the log's first frame": (lambda path: overwrite(log_of(path), 32 + 100, b"\xa5\xa6"), LOG_CORRUPT),
    "a frame's head": (lambda path: overwrite(log_of(path), 32 + FRAME + 8, b"\xa5\xa6"), LOG_CORRUPT),
    "another log": (lambda path: other_log(path, page_size=1024), "its log is of another database"),
    "another program's log": (lambda path: other_log(path, program=7), "its log is of another program's database"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_refused_and_left_as_it_is(path: Path, damage: str) -> None:
    damaged, message = DAMAGES[damage]
    damaged(path)
    before = content_of(path.parent)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=message):
            SqliteStore(path).open()
    assert content_of(path.parent) == before


def content_of(folder: Path) -> dict[str, bytes]:
    """All files but SQLite's shared memory, which says nothing once nobody has the database open."""
    return {each.name: each.read_bytes() for each in folder.iterdir() if not each.name.endswith("-shm")}


def test_a_log_without_damage_is_taken_in(path: Path) -> None:
    assert opened(path) == [1000, 1001, 1002, 1003, 1004]


@pytest.mark.parametrize(
    "power_loss",
    [
        lambda path: overwrite(log_of(path), last_frame(path) + 500, b"\xa5" * 100),
        lambda path: log_of(path).write_bytes(log_of(path).read_bytes()[:-100]),
    ],
)
def test_a_last_transaction_that_was_not_synced_yet_is_forgotten(
    path: Path, power_loss: Callable[[Path], object]
) -> None:
    power_loss(path)
    assert opened(path) == [1000, 1001, 1002, 1003]


@pytest.mark.parametrize("content", [b"", bytes(32), bytes(3 * FRAME), b"\x37\x7f"])
def test_a_log_that_was_never_written_is_no_damage(path: Path, content: bytes) -> None:
    log_of(path).write_bytes(content)
    assert opened(path) == []


def test_holes_in_a_log_that_was_not_synced_are_no_damage(path: Path) -> None:
    damaged, _ = DAMAGES["the log's first frame"]
    damaged(path)
    with closing(SqliteStore(path, synchronous="NORMAL")) as store:
        assert store.open() == 2


def opened(path: Path) -> list[int]:
    """Which of the tasks in the log a store has taken in."""
    with closing(SqliteStore(path)) as store:
        store.open()
        assert store.record(record(300).id) is not None
        return sorted(number for number in ids(store) if number >= 1000)


@pytest.mark.parametrize("name", ["poolmgr.db", "poolmgr.db-wal"])
@pytest.mark.parametrize("replaced", [False, True])
def test_files_that_go_while_they_are_in_use_are_noticed(path: Path, name: str, replaced: bool) -> None:
    with closing(SqliteStore(path)) as store:
        store.open()
        target = path.with_name(name)
        kept = target.rename(path.with_name("kept"))
        if replaced:
            shutil.copy(kept, target)
        with pytest.raises(StoreUnavailable, match="was removed or replaced while it was in use"):
            store.apply([added(2000)])
        kept.rename(target)
        store.apply([added(2001)])
    assert 2001 in opened(path)

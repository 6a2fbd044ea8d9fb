"""A file that any released version has left is brought to the newest schema, and tells what it told before."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from poolmgr.core.changes import ChunkAdded
from poolmgr.store.base import Chunks
from poolmgr.store.schema import load_migrations
from poolmgr.store.spool import spool_of
from poolmgr.store.sqlite import SqliteStore
from tests.conformance.samples import REMAINS, added, failed, ids, task_id
from tests.conformance.schemas.history import differences, history, told

FIXTURES = Path(__file__).parent / "schemas"
NEWEST = len(load_migrations())
VERSIONS = range(1, NEWEST + 1)


def laid_out(version: int, folder: Path) -> Path:
    """The fixture of that schema version, as a database in ``folder``."""
    path = folder / "poolmgr.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FIXTURES / f"{version:04}.sql").read_text())
    spool = FIXTURES / f"{version:04}.spool"
    if spool.exists():
        shutil.copytree(spool, spool_of(str(path)))
    return path


def test_every_migration_came_with_a_fixture() -> None:
    there = [int(each.stem) for each in sorted(FIXTURES.glob("*.sql"))]
    assert there == list(VERSIONS), "a migration was added: run python -m tests.conformance.schemas.make"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_migrated_file_tells_what_it_told_before(version: int, tmp_path: Path) -> None:
    known = json.loads((FIXTURES / f"{version:04}.json").read_text())
    with closing(SqliteStore(laid_out(version, tmp_path))) as store:
        assert store.open() == 2
        assert differences(known, told(store)) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_migrated_file_has_the_newest_schema(version: int, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = laid_out(version, tmp_path / "old"), tmp_path / "new" / "poolmgr.db"
    for path in (old, new):
        with closing(SqliteStore(path)) as store:
            store.open()
    assert schema(old) == schema(new)


def schema(path: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        return [*found, *connection.execute("PRAGMA user_version"), *connection.execute("PRAGMA application_id")]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_migrated_file_can_be_worked_with(version: int, tmp_path: Path) -> None:
    with closing(SqliteStore(laid_out(version, tmp_path))) as store:
        store.open()
        store.apply([added(16), failed(3, 2, post_mortem=REMAINS), ChunkAdded(task_id(16), 0, bytes(100_000), None)])
        assert 16 in ids(store)
        assert store.chunks(task_id(16), 0, 1) == Chunks([bytes(100_000)], 1, 0, False)
        info = store.task(task_id(3))
        assert info is not None
        assert [each.attempt for each in info.attempts] == [1, 2]
        assert info.attempts[1].post_mortem == REMAINS


def test_what_happens_to_a_fixture_is_what_is_told_of_it(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "poolmgr.db")) as store:
        store.open()
        for changes in history():
            store.apply(changes)
        now = json.loads(json.dumps(told(store)))
    assert differences(json.loads((FIXTURES / f"{NEWEST:04}.json").read_text()), now) == []
    assert {state for state, members in now["states"].items() if not members} == set()

"""Make the fixture of the newest schema: a database as this version of poolmgr leaves it, and what it reads in it.

    python -m tests.conformance.schemas.make

writes ``NNNN.sql``, ``NNNN.json`` and the directory ``NNNN.spool`` beside this file, NNNN being the number of the last
migration. Do so once, in the commit that adds a migration, and never again: a fixture is what files in the field look
like.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from poolmgr.store.schema import APPLICATION_ID, load_migrations
from poolmgr.store.spool import spool_of
from poolmgr.store.sqlite import SqliteStore
from tests.conformance.schemas.history import history, told

HERE = Path(__file__).parent


def main() -> None:
    version = len(load_migrations())
    target = HERE / f"{version:04}.sql"
    if target.exists():
        raise SystemExit(f"{target} is there already, and fixtures are never changed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "poolmgr.db"
        with closing(SqliteStore(path)) as store:
            store.open()
            for changes in history():
                store.apply(changes)
            known = told(store)
        shutil.copytree(spool_of(str(path)), target.with_suffix(".spool"))
        target.write_text("\n".join(dump(path, version)) + "\n")
    target.with_suffix(".json").write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def dump(path: Path, version: int) -> Iterator[str]:
    """The database in ``path`` as SQL that makes it anew."""
    yield f"PRAGMA application_id = {APPLICATION_ID};"
    yield f"PRAGMA user_version = {version};"
    with closing(sqlite3.connect(path)) as connection:
        yield from connection.iterdump()


if __name__ == "__main__":
    main()

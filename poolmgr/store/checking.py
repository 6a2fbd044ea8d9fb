"""What is wrong with a database, in words: its pages and indexes, its log, its rows, and the files that they name.

Only reads, and may run beside the daemon that writes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, Final

from poolmgr.errors import StoreUnavailable
from poolmgr.model import FINAL
from poolmgr.store.inspection import read_only
from poolmgr.store.refusal import refusal
from poolmgr.store.rows import UNREADABLE, attempt_of, info_of
from poolmgr.store.schema import APPLICATION_ID, check_owner, load_migrations, load_statements, version_of
from poolmgr.store.spool import files_in, named, path_in, read_whole, spool_of
from poolmgr.store.write_ahead_log import trouble_with_log

ENOUGH: Final = 100  # findings: after those, nobody looks at each

# Rows that nobody could ask for, or that lack what they say to have. Each gives the id of a task.
_ORPHANS: Final = {
    "a payload of task {} is kept, and not the task": "SELECT id FROM long_payloads",
    "an outcome of task {} is kept, and not the task": "SELECT id FROM long_outcomes",
    "an attempt of task {} is kept, and not the task": "SELECT DISTINCT id FROM attempts",
    "a file of task {} is named, and the task is not kept": "SELECT DISTINCT id FROM spool WHERE kind <> 'chunk'",
    "a stream of task {} is kept, and not the task": "SELECT id FROM streams",
    "chunks of task {} are kept, and not the task": """
        SELECT DISTINCT id FROM chunks WHERE id NOT IN (SELECT id FROM forgotten_streams)""",
}
_LACKING: Final = {
    "task {} has no payload": """
        SELECT id FROM tasks WHERE payload IS NULL AND id NOT IN (SELECT id FROM long_payloads)
        AND id NOT IN (SELECT id FROM spool WHERE kind = 'payload')""",
    "task {} has ended, and has no outcome": """
        SELECT id FROM tasks WHERE ended_at IS NOT NULL AND outcome IS NULL AND id NOT IN (SELECT id FROM long_outcomes)
        AND id NOT IN (SELECT id FROM spool WHERE kind = 'outcome')""",
    "the stream of task {} lacks chunks, or has some too many": """
        SELECT id FROM streams WHERE kept - dropped <> (
            SELECT count(*) FROM chunks WHERE chunks.id = streams.id AND seq >= dropped AND seq < kept)
        OR EXISTS (SELECT 1 FROM chunks WHERE chunks.id = streams.id AND (seq < dropped OR seq >= kept))""",
    "a chunk of task {} has no content": """
        SELECT DISTINCT id FROM chunks WHERE payload IS NULL AND NOT EXISTS (
            SELECT 1 FROM spool WHERE spool.id = chunks.id AND kind = 'chunk' AND spool.seq = chunks.seq)""",
}


def check(database: str | os.PathLike[str], *, alone: bool) -> list[str]:
    """All that is wrong with ``database``, at most ``ENOUGH`` findings; none if it is in order.

    Args:
        alone: nobody else has the database open, nor will meanwhile.

    Raises:
        StoreUnavailable: it cannot be read at all, or is not ours.
    """
    database = os.fspath(database)
    try:
        return list(islice(_findings(database, alone), ENOUGH))
    except (sqlite3.Error, OSError) as error:
        raise refusal(database, error) from error


def _findings(database: str, alone: bool) -> Iterator[str]:
    if alone and (trouble := trouble_with_log(database, APPLICATION_ID, synced=True)) is not None:
        yield trouble
        return
    with closing(read_only(database, 1.0, alone=alone)) as connection:
        check_owner(connection, database)
        for (found,) in connection.execute(f"PRAGMA integrity_check({ENOUGH})"):
            if found != "ok":
                yield " ".join(found.split())
        if version_of(connection) != len(load_migrations()):
            return  # a start brings its rows up to date
        connection.execute("BEGIN")  # one moment for all of what follows
        yield from _rows(connection)
        yield from _relations(connection)
        yield from _files(connection, spool_of(database), alone)


def _rows(connection: sqlite3.Connection) -> Iterator[str]:
    """Rows that make no sense."""
    attempts = load_statements()["attempts"].partition("WHERE")[0]
    kinds: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("task {}", "SELECT id, * FROM task_infos", info_of),
        ("an attempt of task {}", attempts.replace("SELECT", "SELECT id,", 1), attempt_of),
    )
    for what, statement, decode in kinds:
        for id, *row in connection.execute(statement):
            try:
                read = decode(row)
            except UNREADABLE as error:
                yield f"{what.format(_shown(id))} makes no sense: {error}"
                continue
            if decode is info_of and (read.state in FINAL) != (read.ended_at is not None):
                yield f"task {_shown(id)} is {read.state}, and its end is at {read.ended_at}"


def _relations(connection: sqlite3.Connection) -> Iterator[str]:
    for message, statement in _ORPHANS.items():
        for (id,) in connection.execute(f"SELECT id FROM ({statement}) WHERE id NOT IN (SELECT id FROM tasks)"):
            yield message.format(_shown(id))
    for message, statement in _LACKING.items():
        for (id,) in connection.execute(statement):
            yield message.format(_shown(id))


def _files(connection: sqlite3.Connection, spool: str, alone: bool) -> Iterator[str]:
    rows = connection.execute(load_statements()["spooled"]).fetchall()
    connection.execute("COMMIT")
    for id, kind, seq, file, size in rows:
        try:
            read_whole(path_in(spool, file), size, f"the {named(kind, seq)} of task {_shown(id)}")
        except StoreUnavailable as error:
            if _still(connection, id, kind, seq):  # else it was forgotten meanwhile
                yield str(error)
    if alone:  # of a daemon's files, some are just being written or removed
        for file in sorted(files_in(spool) - {file for *_, file, _ in rows}):
            yield f"no row names the file {path_in(spool, file)} (the next start removes it)"


def _still(connection: sqlite3.Connection, id: bytes, kind: str, seq: int) -> bool:
    return connection.execute(load_statements()["spooled_of"], (id, kind, seq)).fetchone() is not None


def _shown(id: Any) -> str:
    return id.hex() if isinstance(id, bytes) else repr(id)

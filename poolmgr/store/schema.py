"""The SQL of the SQLite store: its statements by name, and the migrations that bring a file to this version.

A statement that holds ``VALUES (?, ...)`` applies many rows at once. Python gives up the GIL around each step of
SQLite, and beside a busy event loop it takes longer to get it back than the step itself takes: a statement for each row
made the store twice as dear as one for 64 of them. What is numbered in it, ``VALUES (?1, ?2, ?, ...)``, is the same for
all of its rows, and bound once: most tasks differ in little, and to bind them was a third of what they cost.

Migrations are numbered from 1 and only go forward; ``PRAGMA user_version`` of a file is the number of its
last one.
"""

from __future__ import annotations

import os
import sqlite3
from functools import cache
from typing import Final

from poolmgr.errors import StoreUnavailable

APPLICATION_ID: Final = 0x706D6772  # "pmgr"; the first migration writes it

_HERE: Final = os.path.dirname(__file__)  # importlib.resources would cost every start 3 ms, and the daemon 1.2 MB

_OLDEST_SQLITE: Final = (3, 33, 0)  # of 2020: the first with UPDATE ... FROM

_NAME: Final = "-- name: "
_VALUES: Final = "VALUES ("
_BLOCKS: Final = (64, 8, 1)  # rows in one statement. The largest has under 999 parameters, SQLite's old limit

Block = tuple[int, str]  # how many rows, and the statement that takes so many


def load_statements() -> dict[str, str]:
    """Every statement of queries.sql by its name."""
    statements: dict[str, list[str]] = {}
    current: list[str] = []
    for line in _text_of("queries.sql").splitlines():
        if line.startswith(_NAME):
            current = statements.setdefault(line.removeprefix(_NAME).strip(), [])
        elif line and not line.startswith("--"):
            current.append(line)
    return {name: "\n".join(lines).rstrip(";") for name, lines in statements.items()}


def _text_of(*path: str) -> str:
    with open(os.path.join(_HERE, *path), encoding="utf-8") as file:
        return file.read()


def in_blocks(statement: str) -> list[Block]:
    """The statement for many rows, for fewer, and for one; that alone where it has no ``VALUES (?, ...)``."""
    before, values, after = statement.partition(_VALUES)
    if not values:
        return [(1, statement)]
    row, _, rest = after.partition(")")
    return [(size, f"{before}VALUES {', '.join([f'({row})'] * size)}{rest}") for size in _BLOCKS]


@cache
def load_migrations() -> tuple[str, ...]:
    """The migrations' SQL, in order: the first brings a file to version 1."""
    scripts = sorted(each for each in os.listdir(os.path.join(_HERE, "migrations")) if each.endswith(".sql"))
    numbers = [int(each.partition("_")[0]) for each in scripts]
    if numbers != list(range(1, len(scripts) + 1)):
        raise RuntimeError(f"migrations must be numbered 1, 2, ... without a gap, and are {numbers}")
    return tuple(_text_of("migrations", each) for each in scripts)


def check_library() -> None:
    """Refuse an SQLite that does not know the statements.

    Raises:
        StoreUnavailable: saying what to do.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        oldest = ".".join(map(str, _OLDEST_SQLITE))
        raise StoreUnavailable(
            f"this Python comes with SQLite {sqlite3.sqlite_version}, and {oldest} is needed: use a newer Python"
        )


def check_owner(connection: sqlite3.Connection, path: str) -> None:
    """Refuse a file that is not ours, or that a newer poolmgr has written. Changes nothing.

    Raises:
        StoreUnavailable: saying which, and what to do.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id != APPLICATION_ID and objects:
        raise StoreUnavailable(f"{path} is a database of another program: choose another state directory")
    version, known = version_of(connection), len(load_migrations())
    if version > known:
        raise StoreUnavailable(
            f"{path} was written by a newer poolmgr (schema {version}, this one knows up to {known}): "
            "upgrade poolmgr, or choose another state directory"
        )


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the migrations that the file lacks, each in a transaction of its own."""
    for number, script in enumerate(load_migrations(), start=1):
        if number > version_of(connection):
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")


def version_of(connection: sqlite3.Connection) -> int:
    """The number of the last migration that the file has."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Whether there is a table of that name."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,))
    return found.fetchone() is not None

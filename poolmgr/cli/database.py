"""db: looking after the file that durable tasks are kept in, beside a running daemon or without one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import click

from poolmgr.cli.session import Session, answering
from poolmgr.errors import NotAllowed, NotFound, NotRunning

_STATE_DIR = click.option("--state-dir", metavar="DIR", help="Without a daemon: the directory of the database.")


@click.group(no_args_is_help=False)
def db() -> None:
    """Check, shrink or copy the database, beside the running daemon or without one."""


@db.command()
@_STATE_DIR
@answering
def check(session: Session, state_dir: str | None) -> int:
    """Look for damage: pages, rows that make no sense, missing files. The exit code is 1 where there is any."""
    from poolmgr.store.checking import ENOUGH
    from poolmgr.store.checking import check as findings

    with _database(session, state_dir) as (path, alone):
        found = findings(path, alone=alone)
    lines = [*found, *(["... there may be more"] if len(found) == ENOUGH else [])]
    session.answer(
        {"path": path, "ok": not found, "found": found},
        "\n".join(lines) or f"{path} is in order",
    )
    return 1 if found else 0


@db.command()
@_STATE_DIR
@answering
def vacuum(session: Session, state_dir: str | None) -> None:
    """Give back the space that forgotten tasks have left. Durable submits wait meanwhile."""
    from poolmgr.client import commands

    with _database(session, state_dir) as (path, alone):
        done = _vacuumed(path) if alone else session.ask(commands.VACUUM)
    before, after = (f"{done[name] / 1e6:,.1f} MB" for name in ("bytes_before", "bytes_after"))
    session.answer({"path": path, **done}, f"{path}: {before} before, {after} now")


def _vacuumed(path: str) -> dict[str, int]:
    import sqlite3

    from poolmgr.store.inspection import inspect
    from poolmgr.store.refusal import refusal
    from poolmgr.store.sqlite import vacuum

    inspect(path, synced=True, busy_timeout_s=1.0)
    before = os.stat(path).st_size
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            vacuum(connection)
    except sqlite3.Error as error:
        raise refusal(path, error) from error
    return {"bytes_before": before, "bytes_after": os.stat(path).st_size}


@db.command()
@click.argument("file", type=click.Path())
@_STATE_DIR
@answering
def backup(session: Session, file: str, state_dir: str | None) -> None:
    """Copy the database, as it is at one moment, to the new FILE. The daemon goes on meanwhile.

    A daemon starts from the copy where it is named poolmgr.db in an otherwise empty state directory.
    """
    from poolmgr.client import commands

    target = os.path.abspath(file)
    with _database(session, state_dir) as (path, alone):
        size = _copied(path, target) if alone else session.ask(commands.backup(target))["bytes"]
    session.answer({"path": target, "bytes": size}, f"{target} has a copy of {path} ({size / 1e6:,.1f} MB)")


def _copied(path: str, target: str) -> int:
    from poolmgr.store.backup import back_up

    return back_up(path, target, alone=True)


@contextmanager
def _database(session: Session, state_dir: str | None) -> Iterator[tuple[str, bool]]:
    """Its path, and whether this process alone uses it: where no daemon answers, none can start meanwhile."""
    from poolmgr.client import commands

    if state_dir is None:
        try:
            path = session.ask(commands.DATABASE)["path"]
        except NotRunning:
            if session.socket is not None:
                raise
        else:
            yield path, False
            return
    with _without_daemon(state_dir) as path:
        yield path, True


@contextmanager
def _without_daemon(state_dir: str | None) -> Iterator[str]:
    from poolmgr.config import Settings
    from poolmgr.config.locations import DATABASE, PID_FILE, state_path
    from poolmgr.daemon.pid_file import PidFile

    flags: dict[str, Any] = {} if state_dir is None else {"state_dir": state_dir}
    directory = state_path(Settings.load(flags=flags))
    path = os.path.join(directory, DATABASE)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"there is no {path}: name the directory (--state-dir), or the daemon's socket (--socket)"
        ) from None
    except OSError as error:
        raise NotAllowed(f"{path} cannot be read: {error.strerror}") from None
    guards = f"the state directory {directory} (to have that daemon do it, name its socket: --socket)"
    with PidFile(os.path.join(directory, PID_FILE), guards=guards):
        yield path

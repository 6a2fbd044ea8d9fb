"""dlq: the tasks that used up their failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from poolmgr.cli import pages
from poolmgr.cli.session import Session, answering
from poolmgr.errors import WrongState
from poolmgr.model import TaskState, as_map


@click.group(no_args_is_help=False)
def dlq() -> None:
    """Look at dead letters, run them again, or forget them."""


def _which(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--older-than", "older_than_s", type=float, metavar="S", help="That ended so many seconds ago."),
        click.option("--cause", metavar="CODE", help="That ended so, such as timeout."),
        click.option("--name", metavar="NAME", help="Those of this name."),
    ):
        function = option(function)
    return function


@dlq.command("list")
@_which
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@answering
def list_letters(session: Session, limit: int, **which: Any) -> None:
    """List the dead letters, the newest first."""
    with session.client() as pool:
        found = pool.dead_letters(limit=limit, **_given(which))
    session.answer([as_map(each) for each in found], lambda: pages.dead_table(found))


@dlq.command()
@click.argument("id")
@answering
def show(session: Session, id: str) -> None:
    """Show the dead letter ID with all its attempts."""
    with session.client() as pool:
        found = pool.task(id)
    if found.state != TaskState.DEAD:
        raise WrongState(f"task {id} is {found.state}, not dead")
    session.answer(as_map(found), lambda: pages.task_page(found))


@dlq.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_which
@click.option("--all", "every", is_flag=True, help="All that were not requeued yet.")
@answering
def requeue(session: Session, ids: tuple[str, ...], every: bool, **which: Any) -> None:
    """Submit dead letters again, as new tasks, and print the new ids. By name, cause or age: those not requeued yet."""
    _require_choice(ids, every, which)
    with session.client() as pool:
        made = pool.requeue(*ids, **_given(which))
    session.answer({"requeued": made}, lambda: "\n".join(made.values()) or "no dead letters to requeue")


@dlq.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_which
@click.option("--all", "every", is_flag=True, help="All dead letters.")
@answering
def purge(session: Session, ids: tuple[str, ...], every: bool, **which: Any) -> None:
    """Forget dead letters, with their whole history."""
    _require_choice(ids, every, which)
    with session.client() as pool:
        count = pool.purge(*ids, **_given(which))
    session.answer({"purged": count}, f"{count} dead letters purged")


def _given(which: dict[str, Any]) -> dict[str, Any]:
    return {name: which[name] for name in ("name", "cause", "older_than_s") if which[name] is not None}


def _require_choice(ids: tuple[str, ...], every: bool, which: dict[str, Any]) -> None:
    if bool(ids) + every + bool(_given(which)) != 1:
        raise click.UsageError("name the ids, or say which (--name, --cause, --older-than), or say --all")

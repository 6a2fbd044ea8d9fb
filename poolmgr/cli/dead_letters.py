"""dlq: the tasks that used up their failures."""

from __future__ import annotations

import click

from poolmgr.cli import pages
from poolmgr.cli.session import Session, answering
from poolmgr.errors import WrongState
from poolmgr.model import TaskState, as_map


@click.group(no_args_is_help=False)
def dlq() -> None:
    """Look at dead letters, run them again, or forget them."""


@dlq.command("list")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@answering
def list_letters(session: Session, limit: int) -> None:
    """List the dead letters, the newest first."""
    with session.client() as pool:
        found = pool.dead_letters(limit=limit)
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
@click.option("--all", "every", is_flag=True, help="All that were not requeued yet.")
@answering
def requeue(session: Session, ids: tuple[str, ...], every: bool) -> None:
    """Submit dead letters again, as new tasks, and print the new ids."""
    _require_choice(ids, every)
    with session.client() as pool:
        made = pool.requeue(*ids)
    session.answer({"requeued": made}, lambda: "\n".join(made.values()) or "no dead letters to requeue")


@dlq.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="All dead letters.")
@answering
def purge(session: Session, ids: tuple[str, ...], every: bool) -> None:
    """Forget dead letters, with their whole history."""
    _require_choice(ids, every)
    with session.client() as pool:
        count = pool.purge(*ids)
    session.answer({"purged": count}, f"{count} dead letters purged")


def _require_choice(ids: tuple[str, ...], every: bool) -> None:
    if bool(ids) == every:
        raise click.UsageError("name the ids, or say --all")

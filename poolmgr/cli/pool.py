"""worker, scale, gc, pause and resume: changing the pool."""

from __future__ import annotations

import click

from poolmgr.cli import pages
from poolmgr.cli.session import Session, answering
from poolmgr.cli.worker_check import check
from poolmgr.client import commands


@click.group(no_args_is_help=False)
def worker() -> None:
    """Start or stop one worker, show what became of its processes, or check an executable that is to be one."""


worker.add_command(check)
_GROUP = click.option("--group", metavar="NAME", help="That group of the pool.")


@worker.command("show")
@click.argument("id", required=False)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many processes.")
@answering
def show_worker(session: Session, id: str | None, limit: int) -> None:
    """Show the processes that the worker ID has had, the last first; without ID those of all workers.

    How they ended is kept for the last 1000, also of earlier daemons.
    """
    found = session.ask(commands.worker_lives(id, limit))
    session.answer([life._asdict() for life in found], lambda: pages.life_table(found))


@worker.command("start")
@_GROUP
@answering
def start_worker(session: Session, group: str | None) -> None:
    """Add a worker to the pool, and print its id."""
    with session.client() as pool:
        started = pool.start_worker(group)
    session.answer({"id": started}, str(started))


@worker.command("stop")
@click.argument("id")
@answering
def stop_worker(session: Session, id: str) -> None:
    """Let the worker ID finish what it does, and take it out of the pool."""
    with session.client() as pool:
        pool.stop_worker(id)
    session.answer({"id": id, "stopping": True}, f"{id} is stopping")


def _size(_: click.Context, __: click.Parameter, text: str) -> int | str:
    if not text.lstrip("+-").isdecimal() or len(text) - len(text.lstrip("+-")) > 1:
        raise click.BadParameter("a number of workers, or a change such as +3 or -3")
    return text if text[0] in "+-" else int(text)


# "-3" is an argument here, not an option.
@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("size", metavar="N|+N|-N", callback=_size)
@_GROUP
@answering
def scale(session: Session, size: int | str, group: str | None) -> None:
    """Make the pool N workers big, or N bigger or smaller. Workers that go finish what they do.

    A pool with groups grows and shrinks by what belongs to none of them; with --group, by that one.
    """
    with session.client() as pool:
        reached = pool.scale(size, group)
    what = "the pool" if group is None else f"group {group}"
    session.answer({"size": reached}, f"{what} has {reached} workers")


@click.command()
@answering
def gc(session: Session) -> None:
    """Let idle workers collect garbage."""
    with session.client() as pool:
        found = pool.collect_garbage()
    session.answer(found, "idle workers collect garbage")


@click.command()
@click.argument("name")
@answering
def pause(session: Session, name: str) -> None:
    """Begin no more tasks of NAME until it is resumed. They may still be submitted."""
    with session.client() as pool:
        pool.pause(name)
    session.answer({"name": name, "paused": True}, f"{name} is paused")


@click.command()
@click.argument("name")
@answering
def resume(session: Session, name: str) -> None:
    """Begin tasks of NAME again."""
    with session.client() as pool:
        pool.resume(name)
    session.answer({"name": name, "paused": False}, f"{name} is resumed")

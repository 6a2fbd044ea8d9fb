"""status, health, metrics, workers and events: looking at the daemon."""

from __future__ import annotations

import click

from poolmgr.cli import pages
from poolmgr.cli.session import Session, answering, as_json
from poolmgr.model import as_map


@click.command()
@answering
def status(session: Session) -> None:
    """Show the pool, its tasks, its health and each worker."""
    with session.client() as pool:
        found = pool.status()
    session.answer(found, lambda: pages.status_page(found))


@click.command()
@answering
def health(session: Session) -> int:
    """Show how the pool is. The exit code is 1 when it is critical."""
    with session.client() as pool:
        found = pool.health()
    session.answer(found, lambda: pages.health_page(found))
    return 1 if found["status"] == "critical" else 0


@click.command()
@answering
def metrics(session: Session) -> None:
    """Show the counts and times of the pool, without its workers."""
    with session.client() as pool:
        found = pool.metrics()
    session.answer(found, lambda: pages.metrics_page(found))


@click.command()
@answering
def workers(session: Session) -> None:
    """List the workers."""
    with session.client() as pool:
        found = [as_map(each) for each in pool.workers()]
    session.answer(found, lambda: pages.worker_table(found))


@click.command()
@answering
def events(session: Session) -> None:
    """Print what happens, as it happens, until Ctrl-C. With --json, one object a line."""
    with session.client() as pool:
        try:
            for event in pool.events():
                line = {"name": event.name, "at": event.at, "fields": event.fields}
                click.echo(as_json(line, indent=None) if session.as_json else pages.event_line(event))
        except KeyboardInterrupt:
            pass  # the usual way to end it

"""breakers: names that are held back because their tasks fail."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from poolmgr.breaker import BreakerInfo, BreakerState
from poolmgr.cli.session import Session, answering
from poolmgr.cli.tables import duration, table


@click.group(invoke_without_command=True)
@answering
@click.pass_context
def breakers(ctx: click.Context, session: Session) -> None:
    """List the circuit breakers of names whose tasks fail, or reset one."""
    if ctx.invoked_subcommand is None:
        with session.client() as pool:
            found = pool.breakers()
        session.answer([each._asdict() for each in found], lambda: breaker_table(found, time.time()))


@breakers.command()
@click.argument("name")
@answering
def reset(session: Session, name: str) -> None:
    """Forget the failures of NAME, and begin its tasks again."""
    with session.client() as pool:
        pool.reset_breaker(name)
    session.answer({"name": name, "reset": True}, f"the breaker of {name} is closed")


def breaker_table(found: Sequence[BreakerInfo], now: float) -> str:
    """A line for each breaker."""
    head = ("name", "state", "failures", "opened", "next try", "error")
    rows = [
        (each.name, each.state, str(each.failures), _ago(each.opened_at, now), _next_try(each, now), each.error)
        for each in found
    ]
    return table(head, rows, right="failures opened", flexible="error") if rows else "all breakers are closed"


def _ago(opened_at: float | None, now: float) -> str:
    return "-" if opened_at is None else f"{duration(max(0.0, now - opened_at))} ago"


def _next_try(found: BreakerInfo, now: float) -> str:
    if found.state is BreakerState.CLOSED:
        return "-"
    if found.probing:
        return "runs"
    return "any time" if found.probe_at is None else f"in {duration(max(0.0, found.probe_at - now))}"

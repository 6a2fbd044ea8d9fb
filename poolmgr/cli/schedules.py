"""schedule: tasks that are submitted again and again."""

from __future__ import annotations

import time
from typing import Any

import click

from poolmgr.cli.session import Session, answering
from poolmgr.cli.tables import entry, printable, table
from poolmgr.cli.tasks import argument, keywords, task_options
from poolmgr.errors import NotFound
from poolmgr.schedule import MISSED, ScheduleInfo, Timing


@click.group(no_args_is_help=False)
def schedule() -> None:
    """Make schedules, look at them, hold them back, or forget them."""


@schedule.command()
@click.argument("id")
@click.argument("name")
@click.argument("args", nargs=-1, metavar="[ARG]...")
@click.option("--cron", metavar="EXPR", help="Minute, hour, day of month, month, day of week: '30 8 * * MON-FRI'.")
@click.option("--every", "every_s", type=float, metavar="S", help="Or: every so many seconds.")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="Whose clock --cron means.")
@click.option("--missed", type=click.Choice(MISSED), default="once", show_default=True, help="What to make up for.")
@click.option("--kwargs", callback=keywords, metavar="JSON", help="Keyword arguments, as a JSON object.")
@task_options
@answering
def add(
    session: Session,
    id: str,
    name: str,
    args: tuple[str, ...],
    cron: str | None,
    every_s: float | None,
    timezone: str,
    missed: str,
    kwargs: dict[str, Any],
    **options: Any,
) -> None:
    """Have a durable task NAME submitted at each tick of the schedule ID. The same ID again changes it.

    Each ARG is JSON where it parses, else a string. What begins with a dash goes after "--".
    """
    given = {option: value for option, value in options.items() if value is not None}
    timing = Timing(cron, every_s, timezone, missed)
    with session.client() as pool:
        made = pool.using(**given).schedule(id, timing, name, *[argument(each) for each in args], **kwargs)
    _answer(session, made)


@schedule.command("list")
@answering
def list_schedules(session: Session) -> None:
    """List all schedules, those of the app's code included (app:NAME)."""
    with session.client() as pool:
        found = pool.schedules()
    session.answer([each._asdict() for each in found], lambda: schedule_table(found))


@schedule.command("next")
@click.argument("id")
@click.option("--count", type=click.IntRange(1, 100), default=5, show_default=True, help="How many.")
@answering
def next_ticks(session: Session, id: str, count: int) -> None:
    """Show when the schedule ID will be due next."""
    with session.client() as pool:
        found = [each for each in pool.schedules(upcoming=count) if each.id == id]
    if not found:
        raise NotFound(f"there is no schedule {id!r}: `poolmgr schedule list` shows all")
    ticks = found[0].upcoming
    session.answer({"id": id, "upcoming": ticks}, lambda: "\n".join(map(_moment, ticks)) or _why_never(found[0]))


@schedule.command()
@click.argument("id")
@answering
def remove(session: Session, id: str) -> None:
    """Forget the schedule ID. Tasks that it has made go on."""
    with session.client() as pool:
        pool.unschedule(id)
    session.answer({"id": id, "removed": True}, "removed")


@schedule.command()
@click.argument("id")
@answering
def pause(session: Session, id: str) -> None:
    """Make no tasks for the schedule ID until it is resumed."""
    with session.client() as pool:
        _answer(session, pool.pause_schedule(id))


@schedule.command()
@click.argument("id")
@answering
def resume(session: Session, id: str) -> None:
    """Go on with the next tick of the schedule ID."""
    with session.client() as pool:
        _answer(session, pool.resume_schedule(id))


def _answer(session: Session, found: ScheduleInfo) -> None:
    session.answer(found._asdict(), lambda: f"{printable(found.id)}: {_next(found)}")


def schedule_table(schedules: list[ScheduleInfo]) -> str:
    """A line for each schedule, and one more for each that has trouble."""
    head = ("id", "task", "when", "last", "next")
    rows = [(each.id, each.name, _when(each), _moment(each.last_tick), _next(each)) for each in schedules]
    troubles = [
        entry("trouble", f"{each.id}: {each.trouble}".split(), separator=" ") for each in schedules if each.trouble
    ]
    return "\n".join([table(head, rows, flexible="when"), *troubles]) if rows else "no schedules"


def _when(found: ScheduleInfo) -> str:
    if found.cron is None:
        return f"every {found.every_s:g} s"
    return found.cron if found.timezone == "UTC" else f"{found.cron} {found.timezone}"


def _next(found: ScheduleInfo) -> str:
    return _moment(found.upcoming[0]) if found.upcoming else _why_never(found)


def _why_never(found: ScheduleInfo) -> str:
    return "paused" if found.paused else found.trouble or "never again"


def _moment(wall_time: float | None) -> str:
    """In the reader's time zone."""
    return "-" if wall_time is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall_time))

"""submit, task, result, cancel, preempt, tasks and clear: handing over tasks and asking for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import click

from poolmgr.cli import pages
from poolmgr.cli.chunks import show_chunks, show_end
from poolmgr.cli.session import Session, answering, as_json
from poolmgr.model import TaskState, as_map

# The option of a task that each flag of submit sets (model.TaskOptions).
_OPTIONS: Final = (
    ("--priority", "priority", int, "N", "0 (first) to 100 (last); default 10."),
    ("--delay", "delay_s", float, "S", "Begin no sooner than in so many seconds."),
    ("--timeout", "timeout_s", float, "S", "Kill an attempt after so many seconds; 0: never."),
    ("--retries", "max_retries", int, "N", "Try a failed attempt again so often."),
    ("--expires", "expires_s", float, "S", "Give up if it has not begun in so many seconds."),
    ("--key", "key", str, "TEXT", "Return the unfinished task of this key, if there is one."),
    ("--group", "group", str, "TEXT", "Groups of equal priority take turns."),
    ("--affinity", "affinity", str, "TEXT", "Prefer the worker that last ran this value."),
)

_FOR_EVER: Final = float("inf")  # what --block without seconds stands for


def task_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags that set options of its tasks; it gets them by the options' names, None: not given."""
    for flag, name, kind, metavar, text in reversed(_OPTIONS):
        function = click.option(flag, name, type=kind, metavar=metavar, help=text)(function)
    return function


def keywords(_: click.Context, __: click.Parameter, text: str | None) -> dict[str, Any]:
    """What --kwargs gives."""
    try:
        found = json.loads(text) if text else {}
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise click.BadParameter("a JSON object, such as '{\"size\": 64}'")
    return found


def argument(text: str) -> Any:
    """The value that an argument on the command line stands for: its JSON where it is that, else the text itself."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return text


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are no JSON, and may well be words


@click.command()
@click.argument("name")
@click.argument("args", nargs=-1, metavar="[ARG]...")
@click.option("--kwargs", callback=keywords, metavar="JSON", help="Keyword arguments, as a JSON object.")
@task_options
@click.option("--wait", is_flag=True, help="Wait for the result, and print it.")
@click.option(
    "--block", is_flag=False, flag_value=_FOR_EVER, type=click.FloatRange(0.0), metavar="[S]",
    help="While the queue is full, wait: for so many seconds, or as long as it takes.",
)  # fmt: skip
@click.option("--stream", is_flag=True, help="Print what it yields, as it comes, and then its result.")
@answering
def submit(
    session: Session,
    name: str,
    args: tuple[str, ...],
    kwargs: dict[str, Any],
    wait: bool,
    block: float | None,
    stream: bool,
    **options: Any,
) -> None:
    """Hand over a durable task, and print its id once it is accepted.

    Each ARG is JSON where it parses, else a string. What begins with a dash goes after "--".
    """
    given = {option: value for option, value in options.items() if value is not None}
    if block is not None:
        given |= {"block": True, "block_timeout_s": None if block == _FOR_EVER else block}
    with session.client() as pool:
        future = pool.using(**given).submit(name, *[argument(each) for each in args], **kwargs)
        try:
            future.accepted()
            if stream:
                session.remark(f"task {future.id}")
                show_chunks(session, iter(future))
            elif not wait:
                session.answer({"id": future.id}, future.id)
                return
            value = future.result()
        except KeyboardInterrupt:
            session.remark(f"task {future.id} was handed over; to wait for it again: poolmgr result {future.id}")
            raise
    answer = {"id": future.id, "state": "completed", "result": value}
    if stream:
        show_end(session, answer)
    else:
        session.answer(answer, lambda: _shown(value))


@click.command()
@click.argument("id")
@answering
def task(session: Session, id: str) -> None:
    """Show what is known of the task ID, with its failed attempts."""
    with session.client() as pool:
        found = pool.task(id)
    session.answer(as_map(found), lambda: pages.task_page(found))


@click.command()
@click.argument("id")
@click.option("--timeout", "timeout_s", type=float, metavar="S", help="Wait at most so many seconds.")
@answering
def result(session: Session, id: str, timeout_s: float | None) -> int:
    """Wait for the task ID, and print its result. Text is printed as it is, everything else as JSON."""
    with session.client() as pool:
        try:
            value = pool.result(id, timeout=timeout_s)
        except TimeoutError:
            raise click.ClickException(f"task {id} has no result after {timeout_s:g} s") from None
    session.answer({"id": id, "result": value}, lambda: _shown(value))
    return 0


@click.command()
@click.argument("id")
@click.option("--kill", is_flag=True, help="Also if it runs.")
@answering
def cancel(session: Session, id: str, kill: bool) -> int:
    """Cancel the task ID. The exit code is 1 when it has already begun (see --kill) or ended."""
    with session.client() as pool:
        cancelled = pool.cancel(id, kill=kill)
    session.answer(
        {"id": id, "cancelled": cancelled},
        "cancelled" if cancelled else f"not cancelled: it has {'ended' if kill else 'begun (--kill ends it) or ended'}",
    )
    return 0 if cancelled else 1


@click.command()
@click.argument("id")
@answering
def preempt(session: Session, id: str) -> int:
    """Have the task ID, which runs, give its worker up, and go on later. The exit code is 1 when it does not run."""
    with session.client() as pool:
        asked = pool.preempt(id)
    session.answer({"id": id, "preempted": asked}, "it was asked to give way" if asked else "it does not run")
    return 0 if asked else 1


@click.command()
@click.option("--state", type=click.Choice([str(state) for state in TaskState]), help="Only tasks in this state.")
@click.option("--name", metavar="NAME", help="Only tasks of this name.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@answering
def tasks(session: Session, state: str | None, name: str | None, limit: int) -> None:
    """List tasks, the newest first."""
    with session.client() as pool:
        found = pool.tasks(state=state, name=name, limit=limit)
    session.answer([as_map(each) for each in found], lambda: pages.task_table(found))


@click.command()
@answering
def clear(session: Session) -> None:
    """Cancel every task that waits. Running ones go on."""
    with session.client() as pool:
        count = pool.clear()
    session.answer({"cancelled": count}, f"{count} waiting tasks cancelled")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else as_json(value)

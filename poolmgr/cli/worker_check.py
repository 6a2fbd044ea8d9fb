"""worker check: an executable on trial as a worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from poolmgr.cli.session import Session, answering

if TYPE_CHECKING:
    from poolmgr.manager.rules import Verdict
    from poolmgr.manager.trial import Job


# What stands behind the executable is for it, also what looks like an option.
@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--task", metavar="CALL", help="A task that it knows and that succeeds, such as 'add [1, 2]'.")
@click.option("--slow", metavar="CALL", help="One that takes 0.3 s to 5 s, such as 'nap [1]'.")
@click.option("--stream", metavar="CALL", help="A stream that it knows, of 3 to 1,000 chunks, such as 'count [20]'.")
@click.option("--rule", default="", metavar="TEXT", help="Only rules in whose name this occurs.")
@click.option(
    "--patience", "patience_s", type=float, default=10.0, metavar="S", help="Wait for anything (default: 10)."
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@answering
def check(
    session: Session,
    task: str | None,
    slow: str | None,
    stream: str | None,
    rule: str,
    patience_s: float,
    command: tuple[str, ...],
) -> int:
    """Check that COMMAND is a worker: start it, drive it through docs/protocol.md, and name what it breaks.

    No daemon is needed. The exit code is 1 where a rule is broken.
    """
    from poolmgr.manager.known import Known
    from poolmgr.manager.rules import try_rules

    known = Known(_job(task), _job(slow), _job(stream))
    verdicts = []
    for verdict in try_rules(command, known, patience_s, rule):
        verdicts.append(verdict)
        if not session.as_json:
            click.echo(_lines(verdict))
    broken = sum(verdict.outcome == "violated" for verdict in verdicts)
    kept = sum(verdict.outcome == "kept" for verdict in verdicts)
    session.answer([verdict._asdict() for verdict in verdicts], f"{kept} rules kept, {broken} broken")
    return 1 if broken else 0


def _lines(verdict: Verdict) -> str:
    reason = f": {verdict.reason}" if verdict.reason else ""
    lines = [f"{_MARKS[verdict.outcome]:<8} {verdict.rule}{reason}"]
    if verdict.outcome == "violated":
        lines += [f"         see docs/protocol.md#{verdict.section}"]
        lines += [f"         | {line}" for line in verdict.output.splitlines()[-8:]]
    return "\n".join(lines)


_MARKS = {"kept": "ok", "violated": "BROKEN", "skipped": "skipped"}


def _job(call: str | None) -> Job | None:
    from poolmgr.manager.trial import Job

    if call is None:
        return None
    name, _, written = call.strip().partition(" ")
    try:
        arguments = json.loads(written or "[]")
    except ValueError:
        arguments = None
    if not name or not isinstance(arguments, list):
        raise click.BadParameter(f"a call is a name and a JSON array of arguments, such as 'add [1, 2]', got {call!r}")
    return Job.calling(name, arguments)

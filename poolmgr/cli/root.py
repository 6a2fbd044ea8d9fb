"""The root of all commands: finds them, and turns errors into one line and an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import click

from poolmgr.cli.session import JSON, SOCKET, Session
from poolmgr.errors import BadOption, ConfigError, NotRunning, PoolError
from poolmgr.version import __version__, is_compiled

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_RUNNING: Final = 3
INTERRUPTED: Final = 130  # as shells report a command that Ctrl-C ended

# Where each command lives: imported when it is called (or when help lists them all, in this order).
COMMANDS: Final = {
    "start": "lifecycle:start",
    "stop": "lifecycle:stop",
    "restart": "lifecycle:restart",
    "reload": "lifecycle:reload",
    "status": "watching:status",
    "health": "watching:health",
    "metrics": "watching:metrics",
    "workers": "watching:workers",
    "events": "watching:events",
    "worker": "pool:worker",
    "scale": "pool:scale",
    "gc": "pool:gc",
    "pause": "pool:pause",
    "resume": "pool:resume",
    "breakers": "breakers:breakers",
    "submit": "tasks:submit",
    "task": "tasks:task",
    "result": "tasks:result",
    "chunks": "chunks:chunks",
    "cancel": "tasks:cancel",
    "preempt": "tasks:preempt",
    "tasks": "tasks:tasks",
    "clear": "tasks:clear",
    "schedule": "schedules:schedule",
    "dlq": "dead_letters:dlq",
    "config": "settings:config",
    "db": "database:db",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(import_module(f"poolmgr.cli.{module}"), name)
        return command


def _show_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"poolmgr {__version__}{' (compiled)' if is_compiled() else ''}")
        ctx.exit()


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@SOCKET
@JSON
@click.pass_context
def poolmgr(ctx: click.Context) -> None:
    """A daemon with a pool of warm worker processes, and all that one does with it.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no daemon is running.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command in ``arguments`` (``sys.argv`` unless given); its exit code. Errors are told on stderr."""
    session = Session()
    try:
        code = poolmgr.main(arguments, prog_name="poolmgr", standalone_mode=False, obj=session)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return _tell(session, "usage", error.format_message() + hint, USAGE)
    except click.ClickException as error:
        return _tell(session, "error", error.format_message(), FAILED)
    except PoolError as error:
        return _tell(session, error.code, str(error) or error.code, _exit_code(error))
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _exit_code(error: PoolError) -> int:
    if isinstance(error, NotRunning):
        return NOT_RUNNING
    return USAGE if isinstance(error, (ConfigError, BadOption)) else FAILED


def _tell(session: Session, code: str, message: str, exit_code: int) -> int:
    if session.as_json:
        click.echo(json.dumps({"error": {"code": code, "message": message}}), err=True)
    else:
        click.echo(f"poolmgr: {message}", err=True)
    return exit_code

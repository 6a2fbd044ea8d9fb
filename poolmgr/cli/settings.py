"""config: the settings that a start would use."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from poolmgr.cli.session import Session, answering

_FILE = click.option("--config", "file", metavar="FILE", help="Settings in TOML (default: $POOLMGR_CONFIG).")


@click.group(no_args_is_help=False)
def config() -> None:
    """Show or check the settings."""


@config.command()
@_FILE
@click.option("--running", is_flag=True, help="Those of the running daemon.")
@answering
def show(session: Session, file: str | None, running: bool) -> None:
    """Print the settings that a start would use now: defaults, the file, POOLMGR_* variables."""
    if running:
        with session.client() as pool:
            found = pool.config()
    else:
        found = _load(session, file)
    session.answer(found, lambda: as_toml(found))


@config.command()
@_FILE
@answering
def check(session: Session, file: str | None) -> None:
    """Check the settings file and the POOLMGR_* variables. The exit code is 2 when something is wrong."""
    _load(session, file)
    session.answer({"ok": True}, "the settings are in order")


def as_toml(settings: dict[str, Any]) -> str:
    """``settings`` as lines of TOML; those that are None have no line, and lists of tables follow the rest."""
    tables = {name: value for name, value in settings.items() if value and _is_tables(value)}
    flat = {name: value for name, value in settings.items() if value is not None and name not in tables}
    lines = [f"{name} = {_literal(value)}" for name, value in flat.items()]
    for name, each in ((name, each) for name, value in tables.items() for each in value):
        lines += ["", f"[[{name}]]", as_toml(each)]
    return "\n".join(lines)


def _is_tables(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(each, dict) for each in value)


def _load(session: Session, file: str | None) -> dict[str, Any]:
    from poolmgr.config import Settings

    flags = {"socket": session.socket} if session.socket else {}
    return asdict(Settings.load(file=file, flags=flags))


def _literal(value: Any) -> str:
    import json

    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_literal(each) for each in value)}]"
    return json.dumps(value, ensure_ascii=False)  # text, numbers, true and false are written alike in JSON and TOML

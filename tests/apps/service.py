"""Handlers of a service that may be down: so it is while a file is there."""

from __future__ import annotations

from pathlib import Path

from poolmgr import task


@task(max_retries=0)
def ask(down: str, value: int = 0) -> int:
    """The value."""
    if Path(down).exists():
        raise ConnectionError("the service is down")
    return value


@task
def insist(down: str, value: int = 0) -> int:
    """The same, and it is tried again."""
    return ask(down, value)


@task
def beside() -> str:
    return "another service"

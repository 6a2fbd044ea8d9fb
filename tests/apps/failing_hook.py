"""An app whose workers cannot start."""

from __future__ import annotations

from poolmgr import task, worker_startup


@task
def add(a: int, b: int) -> int:
    return a + b


@worker_startup
def connect() -> None:
    raise ConnectionRefusedError("the database is not there")

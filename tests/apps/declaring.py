"""An app whose workers find out by themselves what they are capable of: each by its group."""

from __future__ import annotations

import os

from poolmgr import task, worker_startup

GROUP = "POOLMGR_GROUP"


@worker_startup
def find_devices() -> set[str]:
    return {"cuda"} if os.environ[GROUP] == "gpu" else set()


@worker_startup
def open_something() -> object:
    return object()


@task
def whereami() -> tuple[str, int]:
    return os.environ[GROUP], os.getpid()


@task(requires={"cuda"})
def embed() -> tuple[str, int]:
    return whereami()


@task(requires={"tpu"})
def impossible() -> None:
    pass

"""The handlers that the proofs run."""

from __future__ import annotations

import os
import subprocess
import time

from poolmgr import task

_FOR_EVER = ["sleep", "1000"]


@task
def nothing() -> None:
    """Does nothing."""


@task
def echo(value: int) -> int:
    """Its argument."""
    return value


@task
def whoami() -> int:
    """The process that runs it."""
    return os.getpid()


@task(retry_backoff_s=0.01)
def square_slowly(number: int, seconds: float) -> int:
    """The square of a number, after so many seconds."""
    time.sleep(seconds)
    return number * number


@task
def bear(own_session: bool) -> None:
    """Starts a process that would live on, and never returns."""
    subprocess.Popen(_FOR_EVER, start_new_session=own_session)
    time.sleep(1000)

"""The handlers that the proofs run."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any

from poolmgr import task


@task
def echo(value: Any) -> Any:
    """What it was given."""
    return value


@task
def ran_in(number: int) -> tuple[int, int]:
    """The process that ran it, and the number that it was given."""
    return os.getpid(), number


@task(retry_backoff_s=0.01)
def square_slowly(number: int, seconds: float) -> int:
    """The square of a number, after so many seconds."""
    time.sleep(seconds)
    return number * number


@task
def bear(born: str, own_session: bool) -> None:
    """Starts a process that would live on, notes its pid in the file ``born``, and never returns."""
    child = subprocess.Popen(["sleep", "1000"], start_new_session=own_session)
    with open(born, "a") as file:
        file.write(f"{child.pid}\n")
    time.sleep(1000)

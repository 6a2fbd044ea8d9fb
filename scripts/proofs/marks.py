"""Handlers that leave a mark each time that they run: a line in the file $MARKS, which outlives them and the daemon."""

from __future__ import annotations

import os
import time
from functools import cache

from poolmgr import current_task, task


@cache
def _file() -> int:
    return os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


def result(number: int, size: int) -> bytes:
    """What a task of this number returns: so many bytes, and no other task's."""
    return (number.to_bytes(8) * (size // 8 + 1))[:size]


@task(retry_backoff_s=0.02)
def work(number: int, seconds: float, failures: int, size: int, padding: bytes = b"") -> bytes:
    """Works for so long. The first ``failures`` attempts fail."""
    run = current_task()
    os.write(_file(), f"{run.id} {run.attempt}\n".encode())  # one write, to the end: no two lines mix
    if seconds:
        time.sleep(seconds)
    if run.attempt <= failures:
        raise ValueError(f"attempt {run.attempt} of {number}")
    return result(number, size)


@task
def work_until(number: int, path: str) -> bytes:
    """Works until there is a file ``path``."""
    os.write(_file(), f"{current_task().id} {current_task().attempt}\n".encode())
    while not os.path.exists(path):
        time.sleep(0.002)
    return result(number, 16)

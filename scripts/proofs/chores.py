"""The handlers that the proofs run."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import time
from collections.abc import Generator
from itertools import repeat
from typing import Any

from poolmgr import Chunk, current_task, task


@task
def echo(value: Any) -> Any:
    """What it was given."""
    return value


@task
def ran_in(number: int) -> tuple[int, int]:
    """The process that ran it, and the number that it was given."""
    return os.getpid(), number


@task
def note(file: str, number: int, padding: str) -> None:
    """Adds the number to the file, as one line."""
    with open(file, "a") as noted:
        noted.write(f"{number}\n")


@task(max_retries=2, retry_backoff_s=0.02)
def stumble(times: int) -> int:
    """Fails in its first so many attempts; which attempt succeeded."""
    attempt = current_task().attempt
    if attempt <= times:
        raise ValueError(f"attempt {attempt} of {times} that fail")
    return attempt


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


@task
def hold_the_gil(seconds: float) -> float:
    """Computes in one call of native code, for so many seconds of CPU; how many they were."""
    began = time.thread_time()
    sum(repeat(1, 2_000_000))
    each_s = (time.thread_time() - began) / 2_000_000
    began = time.thread_time()
    sum(repeat(1, int(2 * seconds / each_s)))  # now others may share the processor's caches and clock
    return time.thread_time() - began


@task
def deadlock() -> None:
    """Waits in native code, with the GIL held, for a lock that it has itself."""
    native = ctypes.PyDLL(None)
    lock = ctypes.create_string_buffer(64)
    native.pthread_mutex_init(lock, None)
    native.pthread_mutex_lock(lock)
    native.pthread_mutex_lock(lock)


@task
def rest(seconds: float) -> int:
    """Sleeps; the process that did."""
    time.sleep(seconds)
    return os.getpid()


@task
def now() -> float:
    """When it runs, by the clock that all processes of this machine share."""
    return time.monotonic()


@task
def rest_natively(seconds: int) -> None:
    """Sleeps in native code, with the GIL held."""
    ctypes.PyDLL(None).sleep(seconds)


@task(max_retries=10, retry_backoff_s=0.05)
def kill_its_worker() -> None:
    """Poison."""
    os.kill(os.getpid(), signal.SIGKILL)


@task
def rest_unless(file: str, seconds: float) -> None:
    """Sleeps for so long, but not where the file is there."""
    if not os.path.exists(file):
        time.sleep(seconds)


def page(seed: int, number: int) -> bytes:
    """One chunk of ``pages``: most are small, some are files of the store, and no two are alike."""
    chance = random.Random(seed * 1_000_003 + number)
    return chance.randbytes(chance.choice((0, 1, 100, 3_000, 40_000, 200_000 if number % 20 == 7 else 10)))


@task
def pages(seed: int, count: int, every: int) -> Generator[Any, None, int]:
    """``count`` chunks, with a checkpoint after each ``every``; 0: none."""
    for number in range(current_task().restored or 0, count):
        content = page(seed, number)
        yield Chunk(content, checkpoint=number + 1) if every and (number + 1) % every == 0 else content
    return count


@task
def gated_pages(seed: int, count: int, every: int, gates: str) -> Generator[Any, None, int]:
    """The same, each once its gate, a file, is there. It says which it has come to, of how many."""
    for number in range(current_task().restored or 0, count):
        current_task().progress(number / count, str(current_task().attempt))
        while not os.path.exists(f"{gates}/{number}"):
            time.sleep(0.0005)
        content = page(seed, number)
        yield Chunk(content, checkpoint=number + 1) if every and (number + 1) % every == 0 else content
    return count


@task
def flood(megabytes: int, chunk_bytes: int) -> Generator[bytes, None, int]:
    """So much, in chunks of that size; how many those were."""
    chunk = bytes(chunk_bytes)
    count = (megabytes << 20) // chunk_bytes
    for _ in range(count):
        yield chunk
    return count

"""Errors, retries, time-outs, killed workers, dead letters. Run it with: python examples/failures.py"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from private_daemon import private_daemon

from poolmgr import Client, Retry, TaskFailed, current_task, task
from poolmgr.errors import TaskTimeout, WorkerDied


@task(no_retry_on=ValueError)
def parse(text: str) -> int:
    """A ValueError will not mend by trying again. Anything else is retried, three times unless told otherwise."""
    return int(text)


@task
def flaky() -> str:
    """Raise Retry to be tried again, at a time that you know better than the back-off does."""
    if current_task().attempt < 3:
        raise Retry("the server is busy", delay_s=0.05)
    return f"done at attempt {current_task().attempt}"


@task(timeout_s=0.3, max_retries=0)
def endless() -> None:
    while True:
        pass


@task(max_retries=1, retry_backoff_s=0.05)
def crash() -> None:
    """What a bug in native code, or the kernel when memory is short, does to a process."""
    os.kill(os.getpid(), signal.SIGKILL)


@task(max_retries=0)
def read(path: str) -> str:
    return Path(path).read_text()


def main() -> None:
    with private_daemon(app="failures") as socket, Client(socket) as pool:
        # A task's failure is an exception here, with the exception of the worker in it.
        try:
            pool.run(parse, "four")
        except TaskFailed as error:
            print(f"{error.code}: {error.type}: {error.message}")
            print("  " + error.traceback.strip().splitlines()[-1])

        print(f"retried: {pool.run(flaky)}")

        # Subclasses say how it failed. A hung or killed worker costs its own task one attempt, and nothing else.
        began = time.monotonic()
        try:
            pool.run(endless)
        except TaskTimeout as error:
            print(f"{error.code} after {time.monotonic() - began:.1f} s: {error.message}")
        try:
            pool.run(crash)
        except WorkerDied as error:
            print(f"{error.code}: {error.message}")

        # A task that used up its retries is a dead letter: kept, with its history, until you decide. A call's
        # (those above) is kept as long as the daemon lives, a durable task's on disk.
        missing = Path(socket).with_name("report.txt")
        future = pool.submit(read, str(missing))
        print(f"dead: {type(future.exception(timeout=30)).__name__}")
        for letter in pool.dead_letters():
            last = pool.task(letter.id).attempts[-1]
            print(f"  {letter.name}, {letter.cause}, {letter.failures} failed: {last.type or last.message}")

        # Mend the cause, then send it again: as a new task, which knows its origin.
        missing.write_text("all is well")
        again = pool.requeue(future.id)[future.id]
        print(f"requeued: {pool.result(again, timeout=30)}")
        print(f"its origin is the dead one: {pool.task(again).origin == future.id}")
        print(f"purged: {pool.purge()}")


if __name__ == "__main__":
    main()

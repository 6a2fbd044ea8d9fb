"""Streams: read what a task yields while it works. Run it with: python examples/streaming.py"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from typing import Any

from private_daemon import private_daemon

from poolmgr import Chunk, Client, current_task, task


@task(retry_backoff_s=0.1)
def primes(count: int, pause_s: float = 0.0) -> Generator[Any, None, str]:
    """Each chunk is a prime number, with what the handler needs to go on behind it."""
    found, candidate = current_task().restored or (0, 2)
    while found < count:
        if all(candidate % each for each in range(2, int(candidate**0.5) + 1)):
            time.sleep(pause_s)
            found += 1
            yield Chunk(candidate, checkpoint=(found, candidate + 1))
        candidate += 1
    return f"{found} primes in attempt {current_task().attempt}"


def main() -> None:
    with private_daemon(app="streaming") as socket, Client(socket) as pool:
        # A call: the loop gets each chunk as soon as it is there, and the task is at most ten chunks ahead.
        print("a call:", *pool.stream(primes, 10))

        # Handed over. Its worker is killed in the midst of it, and the reader does not notice.
        future = pool.submit(primes, 10, pause_s=0.02)
        seen = []
        for number in future:
            seen.append(number)
            if len(seen) == 4:
                os.kill(
                    next(worker.pid for worker in pool.workers() if worker.pid and worker.current_task), signal.SIGKILL
                )
        print("across a crash:", *seen)
        print(future.result(timeout=10))

        # Chunks are kept with the result: anybody may read them, from any one on.
        print("the last three:", *pool.chunks(future.id, offset=7))


if __name__ == "__main__":
    main()

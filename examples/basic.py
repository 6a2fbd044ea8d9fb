"""Basic use: hand over tasks, get results. Run it with: python examples/basic.py"""

from __future__ import annotations

import os

from private_daemon import private_daemon

from poolmgr import Client, task


@task
def greet(name: str, greeting: str = "Hello") -> str:
    """A handler is an ordinary function. It runs in a worker process, which lives on for the next task."""
    return f"{greeting}, {name}! (process {os.getpid()})"


def main() -> None:
    print(f"this is process {os.getpid()}")
    with private_daemon(app="basic") as socket, Client(socket) as pool:
        # A call: wait for the result. It is not kept anywhere, and cancelled when this program ends.
        print(pool.run(greet, "Ada"))

        # Handed over: `submit` does not wait. Once accepted, the task is on disk, and survives even a power cut.
        future = pool.submit(greet, "Grace", greeting="Good morning")
        future.accepted(timeout=10)
        print(future.result(timeout=10))

        # With options, and by name: a client need not have the handler's code.
        future = pool.using(priority=0, timeout_s=5, max_retries=0).submit("greet", "Edsger")

        # A durable task is known by its id, to other programs too, and tomorrow.
        print(pool.result(future.id, timeout=10))
        known = pool.task(future.id)
        print(f"task {known.id} is {known.state}: {known.name}, priority {known.priority}, attempt {known.attempt}")


if __name__ == "__main__":
    main()

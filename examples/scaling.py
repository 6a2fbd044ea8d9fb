"""Make the pool larger and smaller while it works. Run it with: python examples/scaling.py"""

from __future__ import annotations

import time

from private_daemon import private_daemon

from poolmgr import Client, PoolError, task


@task
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def show(pool: Client, expected: int) -> None:
    """Wait until the pool has so many workers that can work, and print them."""
    while True:
        workers = pool.workers()
        if len(workers) == expected and all(worker.state in ("ready", "busy") for worker in workers):
            break
        time.sleep(0.01)
    print(f"{expected:>3} workers: {' '.join(sorted(worker.id.removeprefix('worker-') for worker in workers))}")


def main() -> None:
    with private_daemon(app="scaling", min_workers=2, max_workers=8) as socket, Client(socket) as pool:
        show(pool, 4)
        pool.scale(8)  # to a size ...
        show(pool, 8)
        pool.scale("-2")  # ... or by a difference
        show(pool, 6)

        # Workers that go finish what they do. Nothing is lost, and nothing is run twice.
        futures = [pool.submit(nap, 0.2) for _ in range(12)]
        pool.scale(2)
        print(f"    12 naps, while it shrinks: {sum(future.result(timeout=30) for future in futures):.1f} s slept")
        show(pool, 2)

        # One certain worker more, one certain worker less.
        new = pool.start_worker()
        show(pool, 3)
        pool.stop_worker(new)
        show(pool, 2)

        try:
            pool.scale(100)
        except PoolError as error:
            print(f"    refused, {error.code}: {error}")


if __name__ == "__main__":
    main()

"""Many tasks in parallel, three ways. Run it with: python examples/parallel.py"""

from __future__ import annotations

import os
from concurrent.futures import as_completed
from time import perf_counter

from private_daemon import private_daemon

from poolmgr import Client, task

STEP = 10_000


@task
def count_primes(low: int) -> tuple[int, int]:
    """How many primes there are from ``low`` to ``low + STEP``, and the process that counted them."""
    found = sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(max(low, 2), low + STEP))
    return found, os.getpid()


@task
def double(number: int) -> int:
    return 2 * number


def main() -> None:
    with private_daemon(app="parallel", workers=8) as socket, Client(socket) as pool:
        # map: each input is a task of its own, the results come in the order of the inputs.
        began = perf_counter()
        counts, pids = zip(*pool.map(count_primes, range(0, 200_000, STEP)), strict=True)
        print(f"{sum(counts):,} primes below 200,000, counted by {len(set(pids))} processes")
        print(f"  the first ranges: {counts[:4]}; {perf_counter() - began:.2f} s")

        # submit: durable tasks, whose futures are those of the standard library. Here: first come, first served.
        futures = [pool.submit(count_primes, low) for low in (1_000_000, 0, 500_000)]
        for future in as_completed(futures, timeout=60):
            found, pid = future.result()
            print(f"  {found:,} more, from process {pid}")

        # Small tasks are what the pool is made for: they need no chunks.
        began = perf_counter()
        total = sum(pool.map(double, range(20_000)))
        print(f"20,000 small tasks: sum {total:,}, {20_000 / (perf_counter() - began):,.0f} tasks/s")


if __name__ == "__main__":
    main()

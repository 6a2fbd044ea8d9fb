"""A balancer of your own decides which worker gets a task. Run it with: python examples/custom_balancer.py

The setting names it: load_balancing = "custom_balancer:LowestFirst".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from private_daemon import private_daemon

from poolmgr import Client, current_task, task

if TYPE_CHECKING:
    from poolmgr.core.slot import Slot
    from poolmgr.core.task import Task


class LowestFirst:
    """Fills the pool from below: worker-0 before worker-1. It runs in the daemon, for each task that has a choice: be
    quick, do not block."""

    def choose(self, task: Task, candidates: Sequence[Slot]) -> Slot:
        """One of ``candidates``: at least two, which all fit the task and hold the least work."""
        return min(candidates, key=lambda slot: int(slot.id.removeprefix("worker-")))


@task
def where() -> str:
    return current_task().worker


def main() -> None:
    for load_balancing in ("round-robin", "custom_balancer:LowestFirst"):
        with (
            private_daemon(app="custom_balancer", load_balancing=load_balancing) as socket,
            Client(socket) as pool,
        ):
            # One after the other, so all workers are idle each time and the balancer has the choice of all.
            seen = Counter(pool.run(where) for _ in range(12))
            print(f"{load_balancing}: " + ", ".join(f"{worker} {count}" for worker, count in sorted(seen.items())))


if __name__ == "__main__":
    main()

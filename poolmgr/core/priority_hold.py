"""Holding the tasks of the less urgent priorities back, and letting one of them through."""

from __future__ import annotations

from collections.abc import Iterator

from poolmgr.core.ready_queue import ReadyQueue, blocks
from poolmgr.core.row import Row
from poolmgr.core.task import Task
from poolmgr.model import PRIORITY_MOST


class PriorityHold:
    """One of a queue. A row that is held leaves the heap when it surfaces, and costs nothing then."""

    def __init__(self, queue: ReadyQueue) -> None:
        self._queue = queue

    def hold_from(self, priority: int) -> None:
        """Hold every task of this priority and of less urgent ones; ``PRIORITY_MOST + 1``: none."""
        queue = self._queue
        if priority != queue.held_from:
            queue.held_from = priority
            queue.let = None
            for lane in queue.lanes:
                queue.unpark(lane)

    def let_one_through(self) -> None:
        """The next of the tasks that are held may be started. One that could be since the last time, and was not, no
        longer may."""
        queue = self._queue
        queue.let = None
        held = list(self._held())
        if held:
            queue.let, _ = min(held, key=lambda each: (each[0].priority, each[0].turns.had, each[1].order))
            queue.unpark(queue.let.lane)

    @property
    def holds_any(self) -> bool:
        """Whether a task waits for nothing but that its priority is held no more."""
        return any(True for _ in self._held())

    def _held(self) -> Iterator[tuple[Row, Task]]:
        queue = self._queue
        if queue.held_from > PRIORITY_MOST:
            return
        for lane in queue.lanes:
            for row in lane.rows.values():
                if row.priority >= queue.held_from and not blocks(queue, lane) and (first := row.first()) is not None:
                    yield row, first

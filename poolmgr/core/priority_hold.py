"""Holding the tasks of the less urgent priorities back, and letting one of them through."""

from __future__ import annotations

from poolmgr.core.ready_queue import ReadyQueue, blocks
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
            self._let(False)

    def let_one_through(self) -> None:
        """One of the tasks that are held may be started: the next for which there is a worker. One that has none
        would else keep its turn for ever. If none has been started since the last time, it is still one."""
        self._let(self.holds_any)

    def _let(self, one: bool) -> None:
        queue = self._queue
        queue.lets_one = one
        for lane in queue.lanes:
            queue.unpark(lane)

    @property
    def holds_any(self) -> bool:
        """Whether a task waits for nothing but that its priority is held no more."""
        queue = self._queue
        if queue.held_from > PRIORITY_MOST:
            return False
        free = (lane for lane in queue.lanes if not blocks(queue, lane))
        return any(row.priority >= queue.held_from and row.waiting for lane in free for row in lane.rows.values())

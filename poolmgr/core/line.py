"""A line of queued tasks: the one with the smallest ``order`` is first.

Nearly all tasks arrive in their order and are taken in it: those stand in a deque. The ones that come back to an
earlier place (a retry, a recall, a delay that is over) are in a heap beside it. What has left the queue by another way
than its turn is only counted, and goes when it comes to the front, or when there is more of it than of the living.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush

from poolmgr.core.allotment import that_fit
from poolmgr.core.past import NO_PAST
from poolmgr.core.task import Task

_DEAD_KEPT = 32


class Line:
    """Tasks in order. ``len()`` counts the dead, too; ``waiting`` does not."""

    __slots__ = ("_back", "_dead", "_line")

    def __init__(self) -> None:
        self._line: deque[Task] = deque()
        self._back: list[tuple[int, Task]] = []
        self._dead = 0

    def __len__(self) -> int:
        return len(self._line) + len(self._back)

    @property
    def waiting(self) -> int:
        """How many are alive."""
        return len(self) - self._dead

    def add(self, task: Task) -> None:
        """At the place that its order gives it."""
        line = self._line
        if not line or task.order > line[-1].order:
            line.append(task)
        else:
            heappush(self._back, (task.order, task))

    def extend(self, tasks: Sequence[Task]) -> bool:
        """Add many, which come in their order. False, and none is added, if one that is here comes behind the first."""
        line = self._line
        if line and line[-1].order > tasks[0].order:
            return False
        line.extend(tasks)
        return True

    def first(self) -> Task | None:
        """The living task with the smallest order, left where it is."""
        line, back = self._line, self._back
        while line and not line[0].in_queue:
            line.popleft()
            self._dead -= 1
        if not back:
            return line[0] if line else None
        while back and not back[0][1].in_queue:
            heappop(back)
            self._dead -= 1
        if back and (not line or back[0][0] < line[0].order):
            return back[0][1]
        return line[0] if line else None

    def take(self, most: int = 1) -> list[Task]:
        """Remove what ``first`` has just returned; and what follows it, at most so many in all, as long as each has
        never been started, and differs from the first in no option."""
        line, back = self._line, self._back
        if back and (not line or back[0][0] < line[0].order):
            return [heappop(back)[1]]
        taken = [line.popleft()]
        options = taken[0].options
        if most == 1 or back or not _is_fresh(taken[0]):
            return taken
        while line and len(taken) < most:
            task = line[0]
            if not task.in_queue:
                self._dead -= 1
            elif task.options is options and _is_fresh(task):
                taken.append(task)
            else:
                break
            line.popleft()
        return taken

    def heads(self) -> list[Task]:
        """The first living task of those that came in their order, and of those that came back: one of them is
        ``first``, and there is at least one where that is not None."""
        self.first()
        found = [self._line[0]] if self._line else []
        return [*found, self._back[0][1]] if self._back else found

    def cut(self, keep: int, keep_bytes: int) -> list[Task]:
        """Take out the living but the first ``keep`` ``that_fit`` in ``keep_bytes``; they come in order."""
        tasks = sorted(self, key=lambda task: task.order)
        kept = that_fit(tasks, keep, keep_bytes)
        self._line = deque(kept)
        self._back = []
        self._dead = 0
        return tasks[len(kept) :]

    def died(self) -> None:
        """One of them has left the queue by another way than its turn (``in_queue`` is false)."""
        self._dead += 1
        if self._dead > _DEAD_KEPT and self._dead * 2 > len(self):
            self._line = deque(task for task in self._line if task.in_queue)
            self._back = [entry for entry in self._back if entry[1].in_queue]
            heapify(self._back)
            self._dead = 0

    def __iter__(self) -> Iterator[Task]:
        """The living, in no particular order."""
        yield from (task for task in self._line if task.in_queue)
        yield from (task for _, task in self._back if task.in_queue)


def _is_fresh(task: Task) -> bool:
    """Whether it has nothing behind it."""
    return task.past is NO_PAST and not task.attempt

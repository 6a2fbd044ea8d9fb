"""What waits and is kept by the store alone: how such tasks are told apart, and where they stand.

A *line* is a row of the ready queue, or the schedule. The first of a line are in memory; what stands beyond a certain
*place* may be on its *shelf*: known to the store, and to nobody else but by number.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from poolmgr.core.changes import TaskRecord
from poolmgr.core.task import Task
from poolmgr.model import TaskOptions, TaskState

Place = tuple[float, int]  # in the schedule: (wall time at which it is due, order); in a row: (0.0, order)
START: Final[Place] = (float("-inf"), 0)


class LineKey(NamedTuple):
    """Names a row of the ready queue."""

    name: str
    requires: frozenset[str]
    ephemeral: bool
    priority: int
    group: str


class ShelfSize(NamedTuple):
    """What a store tells of a shelf. ``line`` None is the schedule."""

    line: LineKey | None
    tasks: int
    last_order: int  # the largest ``order`` of its tasks


class Tally:
    """How many tasks stand on shelves, of all of them together."""

    __slots__ = ("tasks",)

    def __init__(self) -> None:
        self.tasks = 0


class Shelf:
    """The part of a line beyond the place ``after``.

    ``count`` tasks of it are in the store alone. Those that it must not be left to (``may_be_shelved``) are in memory:
    in a row they wait ``beyond``, by their order, until all before them have been loaded.
    """

    __slots__ = ("_count", "_tally", "after", "asked", "asked_up_to", "beyond")

    def __init__(self, after: Place, tally: Tally, count: int = 0) -> None:
        self.after = after
        self._tally = tally
        self._count = count
        tally.tasks += count
        self.beyond: list[Task] = []
        self.asked = False  # the next of it are being read
        self.asked_up_to = 0  # the order of the last task then: the answer shows none that came later

    @property
    def count(self) -> int:
        """How many of its tasks are in the store alone."""
        return self._count

    @count.setter
    def count(self, count: int) -> None:
        self._tally.tasks += count - self._count
        self._count = count


def place(state: TaskState, due_at: float | None, order: int) -> Place:
    """Where a waiting task stands in its line; ``due_at`` is the wall time that a store keeps."""
    if state is TaskState.SCHEDULED:
        assert due_at is not None
        return due_at, order
    return 0.0, order


def place_of(record: TaskRecord) -> Place:
    """Where the waiting task of a record stands."""
    return place(record.state, record.due_at, record.order)


def is_plain(options: TaskOptions) -> bool:
    """Whether nothing but its turn or its time can concern a task of these options while it waits for the first time:
    no key that others ask for, no expiry, and nobody counts those of its name."""
    return options.durable and options.key is None and options.expires_s is None and not options.max_queued


def may_be_shelved(task: Task) -> bool:
    """Whether all there is to know of a waiting task is in its record, but for who submitted it and watches it."""
    watchers, past = task.watchers, task.past
    return (
        task.attempt == 0
        and is_plain(task.options)
        and not past.cancel_tokens
        and not past.cancel_wanted
        and not past.unshown
        and (not watchers or (len(watchers) == 1 and next(iter(watchers))[1] is None))
    )

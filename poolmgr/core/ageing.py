"""Ageing: what has waited long goes before what is more urgent and came later, so that nothing waits for ever.

With it on, a task stands at the time since which it has waited, plus its priority times ``aging_s``; the smallest goes
first. So of two tasks the less urgent one goes first once it has waited longer by the difference of their priorities
times ``aging_s``. That place does not change while it waits: nothing is ever sorted anew.
"""

from __future__ import annotations

from collections.abc import Callable

from poolmgr.core.row import Row
from poolmgr.core.task import Task


class Ageing:
    """Says where rows stand among each other.

    Args:
        aging_s: how much longer a task must have waited, for each step of priority that it is less urgent.
        offset_of: the wall time less the boot time as the task of that order was submitted (``State.offset_of``): what
            the wall clock does meanwhile makes nobody older.
    """

    def __init__(self, aging_s: float, offset_of: Callable[[int], float]) -> None:
        self.aging_s = aging_s
        self._offset_of = offset_of

    def waits_since(self, task: Task) -> float:
        """Since when it could have run, as boot time: its submit, or the time that it was to wait for. What a record
        says is all that counts, so a restart makes nobody younger, nor does a retry or a recall."""
        options = task.options
        since = task.submitted_at + options.delay_s
        if options.at is not None:
            since = max(since, options.at)
        return since - self._offset_of(task.order)

    def rank(self, row: Row) -> float:
        """Where a row that is not empty stands: the smallest is next.

        Its tasks go by their order, whatever their ages. So it stands where the older one of its two heads does: one
        that has come back to its place in front (its delay is over) does not make those wait that it stands before.
        """
        return min(map(self.waits_since, row.heads())) + row.priority * self.aging_s

    def moved(self, row: Row) -> Task | None:
        """The first task of a row that is to be entered into the heap anew, since it may stand elsewhere than its entry
        says: another task has come to its front, and has waited longer or less. None: all is well, or will be."""
        entry = row.entry
        first = None if entry is None else row.first()
        if entry is None or first is None or (rank := self.rank(row)) == row.rank:
            return None
        if rank > row.rank and entry[1] != row.turns.had:  # it has had a turn: as it surfaces, it is put back
            row.rank = rank
            return None
        return first

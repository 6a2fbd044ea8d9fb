"""The changes of one transaction, in runs that one statement can apply.

Most durable tasks are short, and a store that has much to do commits many at a time: so a task often begins and ends in
one transaction. Then it is one row to insert, instead of one to insert and to rewrite.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from poolmgr.core.changes import AttemptEnded, Change, TaskAdded, TaskEnded, TaskMoved, TaskRecord

SHORT_BYTES: Final = 256  # a payload or outcome of at most so many is in its task's row

_OF_A_LIFE: Final = frozenset({TaskAdded, TaskMoved, AttemptEnded, TaskEnded})


class ShortLife(NamedTuple):
    """A task that was added and has ended in one transaction: one statement, where both would be two."""

    task: TaskRecord
    end: TaskEnded


def runs_of(changes: Iterable[Change]) -> Iterator[tuple[type, Sequence[Any]]]:
    """The changes in runs of one kind, each with its kind; in an order that comes to the same."""
    for of_lives, some in groupby(changes, _is_of_a_life):
        if of_lives:
            lives, rest = _short_lives(list(some))
            if lives:
                yield ShortLife, lives
            some = iter(rest)
        for kind, run in groupby(some, type):
            yield kind, list(run)


def _is_of_a_life(change: Change) -> bool:
    return type(change) in _OF_A_LIFE


def _short_lives(changes: list[Change]) -> tuple[list[ShortLife], list[Change]]:
    """Those of which only the beginning and the end is told, with contents that are in the row; and the rest."""
    seen: set[bytes] = set()
    begun: dict[bytes, TaskRecord] = {}
    lives: dict[bytes, ShortLife] = {}
    for change in changes:
        if type(change) is TaskAdded:
            task = change.task
            if task.id not in seen and len(task.payload) <= SHORT_BYTES:
                begun[task.id] = task
            seen.add(task.id)
            continue
        id = _id_of(change)
        seen.add(id)
        found = begun.pop(id, None)
        if found is not None and type(change) is TaskEnded and len(change.outcome) <= SHORT_BYTES:
            lives[id] = ShortLife(found, change)
    if not lives:
        return [], changes
    return list(lives.values()), [each for each in changes if type(each) is AttemptEnded or _id_of(each) not in lives]


def _id_of(change: Any) -> bytes:
    id: bytes = change.task.id if type(change) is TaskAdded else change.id
    return id

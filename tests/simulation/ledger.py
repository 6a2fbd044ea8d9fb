"""What the store must hold by now: every committed change in a memory store apart, which no crash can reach."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from poolmgr.core.changes import Change, TaskEnded, TasksPurged
from poolmgr.core.shelf import START
from poolmgr.store.base import Store
from poolmgr.store.memory import MemoryStore

_ALL = 1_000_000
_NEWEST = b"\xff" * 16


class Ledger:
    """Written beside the store, and compared with it."""

    def __init__(self) -> None:
        self.forgotten: set[bytes] = set()  # ended, and then purged, or kept for long enough
        self._store = MemoryStore(limit=None, limit_bytes=None)
        self._store.open()
        self._expires: dict[bytes, float | None] = {}  # of each final task

    def applied(self, changes: Sequence[Change]) -> None:
        """These are committed."""
        self._store.apply(changes)
        for change in changes:
            if isinstance(change, TaskEnded):
                self._expires.setdefault(change.id, change.expires_at)
            elif isinstance(change, TasksPurged):
                self._forget([id for id in change.ids if id in self._expires])

    def expired(self, wall_now: float, count: int) -> None:
        """The store has forgotten so many final tasks whose time was over."""
        due = [id for id, expires_at in self._expires.items() if expires_at is not None and expires_at <= wall_now]
        assert count == len(due) == self._store.expire(wall_now), f"{count} tasks were forgotten, and {len(due)} due"
        self._forget(due)

    def _forget(self, ids: Sequence[bytes]) -> None:
        for id in ids:
            del self._expires[id]
            self.forgotten.add(id)

    def compare(self, store: Store) -> None:
        """The store holds what it must, and nothing else: tasks, their failed attempts, their ends."""
        mine = self._store
        _same("in hand", store.in_hand(), mine.in_hand())
        _same("a shelf", sorted(store.shelves(), key=repr), sorted(mine.shelves(), key=repr))
        for line, tasks, _ in mine.shelves():
            _same("on a shelf", store.shelf(line, START, tasks), mine.shelf(line, START, tasks))
        _same("an id", (*store.ids(_NEWEST), store.forgotten()), (*mine.ids(_NEWEST), mine.forgotten()))
        _same("a count", sorted(store.counts().items()), sorted(mine.counts().items()))
        infos = mine.tasks(limit=_ALL)
        _same("known", store.tasks(limit=_ALL), infos)
        ids = [bytes.fromhex(info.id) for info in infos]
        _same("an end", map(store.outcome, ids), map(mine.outcome, ids))
        _same("a history", map(store.task, ids), map(mine.task, ids))
        _same("a schedule", store.schedules(), mine.schedules())


def _same(what: str, found: Iterable[object], expected: Iterable[object]) -> None:
    for have, want in zip_longest(found, expected):
        assert have == want, f"{what}: the store has {have}, and should have {want}"

"""What the ready queue is made of: rows in lanes, lanes in demands. See core/ready_queue.py."""

from __future__ import annotations

from typing import Any

from poolmgr.core.line import Line
from poolmgr.core.shelf import LineKey, Shelf
from poolmgr.core.task import Task

# In a demand's heap: rank, turns had, order of the row's first task, the row. Of no fixed length for mypyc's sake: one
# of fixed length it would keep unboxed, and such a tuple has no identity.
Entry = tuple[Any, ...]


class Turns:
    """How many turns one group has had at one priority."""

    __slots__ = ("had",)

    def __init__(self, had: int) -> None:
        self.had = had


class Row(Line):
    """The queued tasks of one lane, priority and group. ``next`` is its first task, once ``head`` has returned it."""

    __slots__ = (
        "counted", "entry", "group", "lane", "most", "most_bytes", "next", "parked", "priority", "rank", "served",
        "shelf", "turns", "weight",
    )  # fmt: skip
    __deletable__ = ("next",)  # of mypyc: what a compiled class lets be deleted
    next: Task

    def __init__(self, lane: Lane, priority: int, group: str, turns: Turns, served: Turns) -> None:
        super().__init__()
        self.lane = lane
        self.priority = priority
        self.group = group
        self.rank: float = float(priority)  # what goes before all else; with ageing it is more than the priority
        self.turns = turns  # of its group
        self.served = served  # the turn last served, of its priority
        self.entry: Entry | None = None  # its only valid entry in the demand's heap
        self.parked = False  # out of the heap, because its lane is blocked
        self.shelf: Shelf | None = None
        self.weight = 0  # bytes of its payloads
        self.counted = 0  # of them so many count among those of all rows: none, as long as it is light
        self.most = 0  # it is no use to shorten it before it is longer than this,
        self.most_bytes = 0  # or heavier

    def entry_at(self, order: int) -> Entry:
        """An entry of this row, whose first task has that order."""
        return self.rank, self.turns.had, order, self

    @property
    def key(self) -> LineKey:
        """What a store knows it by."""
        demand = self.lane.demand
        return LineKey(self.lane.name, demand.requires, demand.fresh, self.priority, self.group)

    @property
    def shelved(self) -> int:
        """How many tasks stand on its shelf, in memory or not."""
        return 0 if self.shelf is None else self.shelf.count + len(self.shelf.beyond)


class Lane:
    """The tasks of one name and one set of capabilities, durable or not: what blocks, blocks them all."""

    __slots__ = ("blocks", "demand", "durable", "name", "parked", "rows")

    def __init__(self, name: str, demand: Demand, durable: bool, blocks: dict[str, None]) -> None:
        self.name = name
        self.demand = demand
        self.durable = durable
        self.rows: dict[tuple[int, str], Row] = {}
        # Why it is held ("paused", "rate", "concurrency", "breaker"): shared by the lanes of its name.
        self.blocks = blocks
        self.parked: list[Row] = []


class Demand:
    """What a task needs of a worker: capabilities, perhaps a fresh process; or that no other suspect runs beside it."""

    __slots__ = ("alone", "fresh", "heads", "requires")

    def __init__(self, requires: frozenset[str], fresh: bool, alone: bool) -> None:
        self.requires = requires
        self.fresh = fresh
        self.alone = alone
        self.heads: list[Entry] = []

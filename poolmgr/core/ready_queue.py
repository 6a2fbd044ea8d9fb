"""The tasks that could run now, in the order in which they should.

Order: by priority (lower first); within a priority the groups take turns; within a group first in, first out. A
*lane* holds the tasks that block together (one name, one set of required capabilities, durable or not). A *demand*
holds the lanes that can use the same workers.

How the turns work. Each (priority, group) counts the turns that it has had. A *row* (one lane, one priority, one
group) is a line of its tasks by ``order``, and stands in its demand's heap under (priority, turns had, order of its
first task). Turns only grow, so an entry that is out of date is one that is too small: it surfaces too early, is put
back under its right key, and nothing else needs to be touched. A group that comes back from idleness starts at the
turn last served, so it can neither save turns up nor be starved.

Cost: O(log n) a push and a pop. The rows of a blocked lane leave the heap when they surface, and cost nothing then.

Ageing (core/ageing.py), where it is on, has rows stand by how long they have waited instead, whatever their groups;
turns only part those that have waited equally long. A row's rank is looked at whenever its first task may be another.

Long rows. Of a row with more than ``most`` tasks the rest may stay in the store: then it has a *shelf* (core/shelf.py),
and ``push`` leaves what stands beyond to core/storeroom.py. Where there are many rows, each is allowed less. The same
goes for one whose payloads weigh more than its ``room``; but its first task may be in memory whatever it weighs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush, heapreplace

from poolmgr.core.ageing import Ageing
from poolmgr.core.allotment import Allotment, weight
from poolmgr.core.past import NO_PAST
from poolmgr.core.row import Demand, Lane, Row, Turns
from poolmgr.core.shelf import LineKey, Tally
from poolmgr.core.task import Task
from poolmgr.model import PRIORITY_MOST

_ROWS_KEPT = 64
_FULL_ROWS = 5  # so many may have ``window`` tasks in memory; more have a share of that each
_NO_PRIORITY = PRIORITY_MOST + 1
_LIGHT = 512  # a row that weighs no more than the whole by this is *light*: it is left in peace, and costs no counting


class ReadyQueue:
    """Every queued task that is not assigned to a worker. ``len()`` counts those that may be next, ``depth`` all.

    Args:
        window: a row with more than so many tasks may be shortened to half of it; where there are many rows, earlier.
        payloads: of all tasks that wait in memory; those in the queue are entered here.
        ageing: None: priorities are strict.
    """

    def __init__(self, window: int, payloads: Allotment, ageing: Ageing | None = None) -> None:
        self.window = window
        self.ageing = ageing
        self.payloads = payloads
        self.light = payloads.whole // _LIGHT
        self.most = window  # of a row, at present
        self.shelved_rows: dict[Row, None] = {}  # those that have a shelf
        self.wanting: dict[Row, None] = {}  # those that have become short, and have a shelf
        self.tally = Tally()  # of all shelves
        self.beyond = 0  # tasks that wait in memory beyond the beginning of a shelf
        self._rows = 0
        self.demands: list[Demand] = []
        self.lanes: list[Lane] = []
        self._lane_of: dict[tuple[str, frozenset[str], bool, bool, bool], Lane] = {}
        self._lanes_of: dict[str, list[Lane]] = {}  # by name
        self._blocks: dict[str, dict[str, None]] = {}
        self._turns: dict[tuple[int, str], Turns] = {}
        self._served: dict[int, Turns] = {}  # the turn last served, by priority
        self._turns_limit = 256
        self._lanes_limit = 256
        self._length = 0
        self.durable_held = False
        self.held_from = _NO_PRIORITY  # tasks of this priority and less urgent ones are held
        self.lets_one = False  # but one of them may go: core/priority_hold.py

    def __len__(self) -> int:
        return self._length

    @property
    def depth(self) -> int:
        """How many tasks are queued, wherever they are."""
        return self._length + sum(row.shelved for row in self.shelved_rows)

    def lane(self, name: str, requires: frozenset[str], fresh: bool, durable: bool = True, alone: bool = False) -> Lane:
        """The lane of that name and demand, made if need be."""
        lane = self._lane_of.get((name, requires, fresh, durable, alone))
        if lane is not None:
            return lane
        if len(self.lanes) >= self._lanes_limit:
            self._forget_empty()
        wanted = (requires, fresh, alone)
        demand = next((d for d in self.demands if (d.requires, d.fresh, d.alone) == wanted), None)
        if demand is None:
            demand = Demand(requires, fresh, alone)
            self.demands.append(demand)
        lane = Lane(name, demand, durable, self._blocks.setdefault(name, {}))
        self.lanes.append(lane)
        self._lanes_of.setdefault(name, []).append(lane)
        self._lane_of[name, requires, fresh, durable, alone] = lane
        return lane

    def push(self, task: Task) -> Row | None:
        """Queue a task at the place that its priority, group and order give it.

        Returns its row where there is more to be done: the task has *not* been queued, since it stands on the row's
        shelf; or the row has become too long.
        """
        row = self.row_of(task)
        if row.shelf is not None and (0.0, task.order) > row.shelf.after:
            return row
        self.place(row, task)
        if row.counted and self.is_heavy(row):
            return row
        return row if self._length > self.most and len(row) > self.most and len(row) > row.most else None

    def push_many(self, tasks: Sequence[Task], weighs: int) -> bool:
        """``push`` for new tasks of one row, in order, whose payloads have so many bytes together. False, and none is
        queued, where ``push`` might return a row."""
        row = self.row_of(tasks[0])
        if row.shelf is not None or len(row) + len(tasks) > self.most:
            return False
        if (row.weight + weighs > self.light and row.weight + weighs > self.room(row)) or not row.extend(tasks):
            return False
        for task in tasks:
            task.in_queue = True
        self._length += len(tasks)
        row.weight += weighs
        if row.weight > self.light:
            self._count(row)
        first = tasks[0]
        if row.entry is None or first.order < row.entry[2]:
            self._enter(row, first)
        elif self.ageing is not None and (moved := self.ageing.moved(row)) is not None:
            self._enter(row, moved)
        return True

    def row_of(self, task: Task) -> Row:
        """The row that a task belongs to, made if need be."""
        options = task.options
        alone = task.past is not NO_PAST and task.runs_alone
        named = task.name, options.requires, options.ephemeral, options.durable, alone
        lane = self._lane_of.get(named) or self.lane(*named)
        key = (options.priority, task.group)
        row = lane.rows.get(key)
        return self._row(lane, *key) if row is None else row

    def row(self, key: LineKey) -> Row:
        """The row of that key, made if need be."""
        lane = self.lane(key.name, key.requires, key.ephemeral)
        row = lane.rows.get((key.priority, key.group))
        return self._row(lane, key.priority, key.group) if row is None else row

    def room(self, row: Row) -> int:
        """How many bytes a row may weigh, at present."""
        return max(self.light, self.payloads.share(row.counted))

    def is_heavy(self, row: Row) -> bool:
        """Whether some of a row that is ``counted`` may have to go."""
        return row.weight > max(self.room(row), row.most_bytes) and row.waiting > 1

    def _count(self, row: Row) -> None:
        counted = row.weight if row.weight > self.light else 0
        self.payloads.held += counted - row.counted
        row.counted = counted

    def place(self, row: Row, task: Task) -> None:
        """Queue a task in its row, where nothing before it is on a shelf."""
        row.add(task)
        task.in_queue = True
        self._length += 1
        row.weight += len(task.payload)
        if row.weight > self.light:
            self._count(row)
        if row.entry is None or task.order < row.entry[2]:
            self._enter(row, task)
        elif self.ageing is not None and task in row.heads() and (first := self.ageing.moved(row)) is not None:
            self._enter(row, first)

    def shorten(self, row: Row) -> list[Task]:
        """Take all but the first tasks out of a row that is too long; in order."""
        taken = row.cut(self.most // 2, self.room(row) // 2)
        for task in taken:
            task.in_queue = False
        self._length -= len(taken)
        row.weight -= weight(taken)
        self._count(row)
        return taken

    def _row(self, lane: Lane, priority: int, group: str) -> Row:
        served = self._served.setdefault(priority, Turns(0))
        row = lane.rows[priority, group] = Row(lane, priority, group, self._turns_of((priority, group)), served)
        self._counted(1)
        return row

    def _counted(self, more: int) -> None:
        """There are so many more rows."""
        self._rows += more
        self.most = max(self.window // 64, self.window * _FULL_ROWS // max(_FULL_ROWS, self._rows), 2)

    def head(self, demand: Demand) -> Row | None:
        """The row whose first task is next among those of ``demand`` that are not blocked, or None."""
        heads = demand.heads
        while heads:
            entry = heads[0]
            row: Row = entry[3]
            if entry is not row.entry:
                heappop(heads)
                continue
            first = row.first()
            if first is None:
                heappop(heads)
                self._emptied(row)
            elif (row.lane.blocks or row.priority >= self.held_from or self.durable_held) and self.holds(row):
                heappop(heads)
                row.entry = None
                row.parked = True
                row.lane.parked.append(row)
            elif entry[1] != row.turns.had or entry[2] != first.order:
                row.entry = row.entry_at(first.order)
                heapreplace(heads, row.entry)
            else:
                row.next = first
                return row
        return None

    def pop(self, row: Row, most: int = 1) -> list[Task]:
        """Take ``row.next``, which ``head`` or ``goes_on`` has just set; and what follows it and is alike, at most so
        many in all, as if ``goes_on`` had been asked between them. For each, its group has had a turn."""
        tasks = row.take(1 if self.lets_one else most)
        turns, served = row.turns, row.served
        had = turns.had + len(tasks)
        if self.lets_one and row.priority >= self.held_from:
            self.lets_one = False
        if had > served.had:  # one that waited long for a worker stands far behind
            served.had = had - 1
        turns.had = had
        del row.next  # a row may live long, and its last task be heavy
        for task in tasks:
            task.in_queue = False
            row.weight -= len(task.payload)
        self._length -= len(tasks)
        if row.counted:
            self._count(row)
        if row.shelf is not None and row.waiting <= self.most // 4:
            self.wanting[row] = None
        if self.ageing is not None and (first := self.ageing.moved(row)) is not None:
            self._enter(row, first)
        return tasks

    def goes_on(self, row: Row) -> bool:
        """Whether ``row``, the only one of its demand, has another task; then that is ``row.next``."""
        first = row.first()
        if first is None:
            return False
        if (row.lane.blocks or row.priority >= self.held_from or self.durable_held) and self.holds(row):
            return False
        row.next = first
        return True

    def discard(self, task: Task) -> None:
        """A queued task has become final: it no longer counts, and leaves the heap in its own time."""
        row = self.row_of(task)
        if task.past.beyond:
            assert row.shelf is not None
            self.payloads.held -= len(task.payload)
            self.beyond -= 1
            row.shelf.beyond.remove(task)
            task.past = task.past._replace(beyond=False)
            return
        task.in_queue = False
        self._length -= 1
        row.weight -= len(task.payload)
        self._count(row)
        row.died()
        if row.shelf is not None and row.waiting <= self.most // 4:
            self.wanting[row] = None
        if self.ageing is not None and (first := self.ageing.moved(row)) is not None:
            self._enter(row, first)

    def block(self, name: str, why: str) -> None:
        """Hold every lane of this name."""
        self._blocks.setdefault(name, {})[why] = None

    def unblock(self, name: str, why: str) -> None:
        """Take one reason away; lanes with none left run again."""
        blocks = self._blocks.get(name)
        if not blocks or why not in blocks:
            return
        del blocks[why]
        if blocks:
            return
        for lane in self._lanes_of.get(name, ()):
            self.unpark(lane)

    def hold_durable(self, held: bool) -> None:
        """Hold every lane of durable tasks, or hold them no more."""
        if held != self.durable_held:
            self.durable_held = held
            for lane in self.lanes:
                self.unpark(lane)

    def holds(self, row: Row) -> bool:
        """Whether the next task of this row may not be started."""
        return blocks(self, row.lane) or (row.priority >= self.held_from and not self.lets_one)

    def unpark(self, lane: Lane) -> None:
        """Whatever may have been held of this lane, and is not any more, can be next again."""
        if lane.parked:
            parked = [row for row in lane.parked if not self.holds(row)]
            lane.parked = [row for row in lane.parked if self.holds(row)]
            for row in parked:
                row.parked = False
                first = row.first()
                if first is not None:
                    self._enter(row, first)

    def tasks(self) -> Iterator[Task]:
        """Every queued task, in no particular order."""
        for lane in self.lanes:
            for row in lane.rows.values():
                yield from row

    def _enter(self, row: Row, first: Task) -> None:
        if row.parked:
            return
        had = row.served.had
        if row.entry is None and row.turns.had < had:
            row.turns.had = had
        if self.ageing is not None:
            row.rank = self.ageing.rank(row)
        row.entry = row.entry_at(first.order)
        heappush(row.lane.demand.heads, row.entry)

    def _emptied(self, row: Row) -> None:
        row.entry = None
        row.most = row.most_bytes = 0
        rows = row.lane.rows
        if len(rows) > _ROWS_KEPT and row.shelf is None:  # kept for its group's next task, but not thousands
            self._counted(-1 if rows.pop((row.priority, row.group), None) is not None else 0)

    def _turns_of(self, key: tuple[int, str]) -> Turns:
        turns = self._turns.get(key)
        if turns is None:
            if len(self._turns) >= self._turns_limit:
                self._forget_idle()
            turns = self._turns[key] = Turns(self._served[key[0]].had)
        return turns

    def _forget_empty(self) -> None:
        """Lanes in which nothing waits, and then demands without a lane: both are made again when they are needed."""
        self.lanes = [lane for lane in self.lanes if any(row.waiting or row.shelf for row in lane.rows.values())]
        self._counted(sum(len(lane.rows) for lane in self.lanes) - self._rows)
        self._lane_of = {
            (lane.name, lane.demand.requires, lane.demand.fresh, lane.durable, lane.demand.alone): lane
            for lane in self.lanes
        }
        self._lanes_of = {}
        for lane in self.lanes:
            self._lanes_of.setdefault(lane.name, []).append(lane)
        used = {lane.demand for lane in self.lanes}
        self.demands = [demand for demand in self.demands if demand in used]
        self._lanes_limit = max(256, 2 * len(self.lanes))

    def _forget_idle(self) -> None:
        used = {(row.priority, row.group) for lane in self.lanes for row in lane.rows.values()}
        # An idle group is at most one turn ahead of the turn last served: that is all it gains by being forgotten.
        self._turns = {key: turns for key, turns in self._turns.items() if key in used}
        self._turns_limit = max(256, 2 * len(self._turns))


def blocks(queue: ReadyQueue, lane: Lane) -> bool:
    """Whether nothing of this lane may be started, whatever its priority."""
    return bool(lane.blocks) or (queue.durable_held and lane.durable)

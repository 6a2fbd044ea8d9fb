"""Between memory and the store: which of the tasks that wait are in memory, and when the next of them are fetched.

A million durable tasks may wait; the daemon holds the first thousands of each line (a row of the ready queue, or the
schedule). The rest is on the line's shelf (core/shelf.py): no more is left of it here than a number, and who watches
it. When a line becomes short, its next tasks are asked for (``Refill``), and come by ``loaded``. One that is asked for
by its id is looked up by the shell, and taken in by ``fetch``, out of its turn; it waits ``beyond`` until that comes.
So does what came while it could not be put away. Where such *strays* are many, they are put back when they can be.

How much of a line is in memory is measured twice: in tasks, and in bytes of payloads. The bytes are shared by all lines
and by what is being read (core/allotment.py). But a line's next task may be in memory whatever it weighs: so all lines
go on, however little is left.

Order is kept: what stands beyond a shelf's beginning is never queued before all that stands between has been loaded.

What is read is old when it comes. A task that it shows may meanwhile have been brought into memory (then it is known
here), or have ended (``_ended`` remembers what does, while anything is being read); and the line may have been
shortened (then its beginning is another, and the answer is of no use). Nothing is put away into the middle of what is
being read: the answer would not show it, and the line would go on behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from poolmgr.core.changes import TaskRecord
from poolmgr.core.effects import Refill
from poolmgr.core.row import Row
from poolmgr.core.shelf import START, Place, Shelf, ShelfSize, is_plain, place_of
from poolmgr.core.shelving import Shelving
from poolmgr.core.state import State
from poolmgr.core.task import Task
from poolmgr.model import TaskState

_AHEAD_S = 2.0  # before the last scheduled task in memory is due, the next are read


class Storeroom(Shelving):
    """Puts waiting tasks away, and has them brought back."""

    def __init__(self, state: State, window: int) -> None:
        super().__init__(state, window)
        self._last_read = 0
        self._reads: dict[int, tuple[Row | None, Shelf, Place, int, int]] = {}
        self._ended: set[bytes] = set()

    def recover(self, sizes: Iterable[ShelfSize]) -> None:
        """What waits in the store since earlier epochs."""
        state = self._state
        for line, tasks, last_order in sizes:
            state.last_order = max(state.last_order, last_order)
            if line is None:
                state.shelf = Shelf(START, state.queue.tally, tasks)
            else:
                row = state.queue.row(line)
                row.shelf = Shelf((0.0, 0), state.queue.tally, tasks)
                state.queue.shelved_rows[row] = state.queue.wanting[row] = None

    def ask(self, now: float) -> None:
        """Have the next tasks read, of all lines that are short. Not while many strays wait for what is being read: it
        comes to an end then, and they are put away."""
        if self._reads and self._strays_are_many:
            return
        queue = self._state.queue
        for row in queue.wanting:
            room = queue.room(row)
            short = row.waiting <= queue.most // 4 and row.weight <= room // 4
            if row.shelf is not None and not row.shelf.asked and short:
                self._read(row, row.shelf, queue.most // 2, room // 2)
        queue.wanting.clear()
        shelf = self._state.shelf
        if shelf is not None and not shelf.asked and self._schedule_is_short(shelf, now):
            self._read(None, shelf, self._schedule_window // 2, self._schedule_room // 2)

    def _schedule_is_short(self, shelf: Shelf, now: float) -> bool:
        """Where the clock was set, what is kept by the time that it showed then may be due earlier.

        Where it is heavy, no more is read before that is due, and all that is in memory has had its tick: of many that
        are due at once too many would soon be here.
        """
        state = self._state
        known_until = shelf.after[0] - state.largest_offset
        if state.scheduled_weight > self._schedule_room // 4:
            return known_until <= now < state.deadlines.next
        return state.scheduled < self._schedule_window // 8 or known_until < now + _AHEAD_S

    def _read(self, row: Row | None, shelf: Shelf, limit: int, limit_bytes: int) -> None:
        """Until it comes, what it may weigh is taken from what all have."""
        limit, limit_bytes = min(max(1, limit), self._page), min(max(1, limit_bytes), self._page_bytes)
        shelf.asked, shelf.asked_up_to = True, self._state.last_order
        self._last_read += 1
        self._state.payloads.held += limit_bytes
        self._reads[self._last_read] = row, shelf, shelf.after, shelf.count, limit_bytes
        line = None if row is None else row.key
        self._state.effects.append(Refill(self._last_read, line, shelf.after, limit, limit_bytes))

    @property
    def expected_bytes(self) -> int:
        """What is to come of what is being read, at most, in bytes of payloads; but each read may end beyond it."""
        return sum(limit_bytes for *_, limit_bytes in self._reads.values())

    def loaded(self, number: int, records: Sequence[TaskRecord], now: float) -> list[Task]:
        """The store has answered. Returns the tasks that are in memory again, each in its line."""
        row, shelf, after, counted, limit_bytes = self._reads.pop(number)
        self._state.payloads.held -= limit_bytes
        ended = self._ended
        if not self.reading:
            self._ended = set()
        shelf.asked = False
        self.untidy = True
        if (self._state.shelf if row is None else row.shelf) is not shelf:
            return []
        if row is not None:
            self._state.queue.wanting[row] = None  # if it is still short, or this is of no use, it asks again
        if shelf.after != after:
            return []
        known = self._state.tasks
        tasks = [
            self._take(record, shelf, now) for record in records if record.id not in known and record.id not in ended
        ]
        if records:
            shelf.after = place_of(records[-1])
        else:
            self._correct(shelf, counted)
        if not shelf.count:
            self._emptied[row] = None
        if row is None:
            for task in tasks:
                self._state.schedule(task)
        else:
            self._fill(row, tasks, shelf)
        return tasks

    def not_loaded(self, number: int) -> None:
        """The store could not be read. What was asked for is asked for anew: by now it may be something else."""
        row, shelf, *_, limit_bytes = self._reads.pop(number)
        self._state.payloads.held -= limit_bytes
        if not self.reading:
            self._ended = set()
        shelf.asked = False
        self.untidy = True
        if row is not None and row.shelf is shelf:
            self._state.queue.wanting[row] = None
            if not shelf.count:
                self._emptied[row] = None
        elif row is None and self._state.shelf is shelf and not shelf.count:
            self._emptied[None] = None

    def _correct(self, shelf: Shelf, counted: int) -> None:
        """Nothing is left of what was on the shelf when it was asked for: then it was counted wrong. That cannot be,
        unless somebody else has written to the store; asking for it for ever would not help."""
        shelf.count = max(0, shelf.count - counted)
        if counted:
            self._state.emit("shelf-corrected", {"missing": counted})

    def _take(self, record: TaskRecord, shelf: Shelf, now: float) -> Task:
        state = self._state
        task = Task.restored(record, now)
        if record.order <= state.recovered_to or isinstance(record.origin, str):
            task.past = task.past._replace(cautious=True)
        task.queued_at = min(now, record.submitted_at - state.wall_offset)
        shelf.count -= 1
        state.tasks[task.id] = task
        client = state.absent.pop(task.order, 0)
        if client in state.sessions:
            task.watchers = state.sessions[client].watching
        if record.state is TaskState.SCHEDULED:
            assert record.due_at is not None
            task.state = TaskState.SCHEDULED
            if record.options.at == record.due_at:
                task.past = task.past._replace(due_wall=record.due_at)
                task.due_at = record.due_at - state.wall_offset
            else:
                task.due_at = record.due_at - state.offset_of(task.order)
        return task

    def _fill(self, row: Row, tasks: list[Task], shelf: Shelf) -> None:
        for task in tasks:
            self._state.queue.place(row, task)
        reached = 0
        for task in shelf.beyond:
            if (0.0, task.order) > shelf.after:
                break
            reached += 1
            self._rejoin(row, task)
        del shelf.beyond[:reached]

    @property
    def reading(self) -> bool:
        """Whether something is being read, so that what ends meanwhile is to be remembered."""
        return self._looking or bool(self._reads)

    def look_up(self, looking: bool) -> None:
        """The shell begins to look tasks up by their ids, or has ended that."""
        self._looking = looking
        self.tidy()
        if not self.reading:
            self._ended = set()

    def fetch(self, record: TaskRecord, now: float) -> Task | None:
        """The task of a record that the store has shown, in memory; None if it is on no shelf (any more): it has been
        loaded, and has ended since the record was read."""
        if record.attempt or not is_plain(record.options) or record.id in self._ended:
            return None
        if record.state is TaskState.SCHEDULED:
            return self._fetch_scheduled(record, now)
        row = self._state.queue.row_of(Task.restored(record, now))
        shelf = row.shelf
        if shelf is None or place_of(record) <= shelf.after:
            return None
        task = self._take(record, shelf, now)
        self._wait_beyond(task, shelf)
        if not shelf.count:
            self._emptied[row] = None
        return task

    def _fetch_scheduled(self, record: TaskRecord, now: float) -> Task | None:
        shelf = self._state.shelf
        if shelf is None or place_of(record) <= shelf.after:
            return None
        task = self._take(record, shelf, now)
        self._stray(task)
        self._state.schedule(task)
        if not shelf.count:
            self._emptied[None] = None
        return task

    def ended(self, task: Task) -> None:
        """A durable task has ended, and something is being read that may still show it."""
        self._ended.add(task.id)
        self._forget_stray(task)

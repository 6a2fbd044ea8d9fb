"""Between memory and the store: which of the tasks that wait are in memory, and when the next of them are fetched.

A million durable tasks may wait; the daemon holds the first thousands of each line (a row of the ready queue, or the
schedule). The rest is on the line's shelf (core/shelf.py): no more is left of it here than a number, and who watches
it. When a line becomes short, its next tasks are asked for (``Refill``), and come by ``loaded``. One that is asked for
by its id is looked up by the shell, and taken in by ``fetch``, out of its turn; it waits ``beyond`` until that comes.

Order is kept: what stands beyond a shelf's beginning is never queued before all that stands between has been loaded.

What is read is old when it comes. A task that it shows may meanwhile have been brought into memory (then it is known
here), or have ended (``_ended`` remembers what does, while anything is being read); and the line may have been
shortened (then its beginning is another, and the answer is of no use). Nothing is put away into the middle of what is
being read: the answer would not show it, and the line would go on behind it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence

from poolmgr.core.changes import TaskRecord
from poolmgr.core.effects import Refill
from poolmgr.core.ready_queue import Row
from poolmgr.core.shelf import START, Place, Shelf, ShelfSize, is_plain, may_be_shelved, place, place_of
from poolmgr.core.state import State
from poolmgr.core.task import Task
from poolmgr.model import TaskState

_PAGE = 2000  # tasks that are read at a time: to take them in is to take the loop from all else
_AHEAD_S = 2.0  # before the last scheduled task in memory is due, the next are read


class Storeroom:
    """Puts waiting tasks away, and has them brought back."""

    def __init__(self, state: State, window: int) -> None:
        self._state = state
        self._schedule_window = window
        self._schedule_most = self._schedule_window
        self._last_read = 0
        self._reads: dict[int, tuple[Row | None, Shelf, Place, int]] = {}
        self._ended: set[bytes] = set()
        self._looking = False

    # ------------------------------------------------------------------------------------------ putting away

    def overflow(self, row: Row, task: Task) -> None:
        """What ``ReadyQueue.push`` has left to be done for ``task``."""
        shelf = row.shelf
        if shelf is None or task.in_queue:
            self._shorten(row)
        elif may_be_shelved(task) and (not shelf.asked or task.order == self._state.last_order):
            self._put_away(task, shelf)
        else:
            _wait_beyond(task, shelf)

    def _shorten(self, row: Row) -> None:
        queue = self._state.queue
        if not any(may_be_shelved(task) for task in row):
            row.most = 2 * len(row)  # what must be in memory must be; ask again when it is twice as much
            return
        taken = queue.shorten(row)
        last = max(task.order for task in row)  # of those that stay
        if row.shelf is None:
            row.shelf = Shelf((0.0, last))
            queue.shelved_rows[row] = None
        row.shelf.after = (0.0, last)
        row.most = 0
        for task in taken:
            if may_be_shelved(task):
                self._put_away(task, row.shelf)
            else:
                _wait_beyond(task, row.shelf)
        if not row.shelf.count:
            self._clear_away(row)

    def schedule(self, task: Task, due_at: float) -> None:
        """A task waits for its time."""
        state, shelf = self._state, self._state.shelf
        task.due_at = due_at
        if shelf is not None and not shelf.asked and self._place(task) > shelf.after and may_be_shelved(task):
            self._put_away(task, shelf)
            return
        state.scheduled += 1
        state.deadlines.add(due_at, "due", task)
        if state.scheduled > self._schedule_most:
            self._shorten_schedule()

    def _shorten_schedule(self) -> None:
        state, shelf = self._state, self._state.shelf
        if shelf is not None and shelf.asked:
            return
        waiting = [task for task in state.tasks.values() if task.state is TaskState.SCHEDULED and may_be_shelved(task)]
        places = sorted(map(self._place, waiting))
        self._schedule_most = max(self._schedule_window, 2 * (state.scheduled - len(waiting)))
        if len(places) <= self._schedule_window // 2:
            return
        after = places[self._schedule_window // 2 - 1]
        if shelf is None:
            shelf = state.shelf = Shelf(after)
        shelf.after = min(after, shelf.after)  # some may be in memory that stand behind others that are not
        taken = [task for task in waiting if self._place(task) > shelf.after]
        gone = set(taken)
        state.deadlines.drop(lambda kind, subject: kind == "due" and subject in gone)
        state.scheduled -= len(taken)
        for task in taken:
            self._put_away(task, shelf)

    def _place(self, task: Task) -> Place:
        return place(task.state, self._state.stored_due(task), task.order)

    def _put_away(self, task: Task, shelf: Shelf) -> None:
        """All there is to know of it is kept, or on its way to be."""
        state = self._state
        shelf.count += 1
        state.tasks.pop(task.id, None)
        for client, _ in task.watchers:
            state.absent[task.order] = client

    # ------------------------------------------------------------------------------------------ bringing back

    def recover(self, sizes: Iterable[ShelfSize]) -> None:
        """What waits in the store since earlier epochs."""
        state = self._state
        for line, tasks, last_order in sizes:
            state.last_order = max(state.last_order, last_order)
            if line is None:
                state.shelf = Shelf(START, tasks)
            else:
                row = state.queue.row(line)
                row.shelf = Shelf((0.0, 0), tasks)
                state.queue.shelved_rows[row] = state.queue.wanting[row] = None

    def ask(self, now: float) -> None:
        """Have the next tasks read, of all lines that are short."""
        queue = self._state.queue
        for row in queue.wanting:
            if row.shelf is not None and not row.shelf.asked and row.waiting <= queue.most // 4:
                self._read(row, row.shelf, min(max(1, queue.most // 2), _PAGE))
        queue.wanting.clear()
        shelf = self._state.shelf
        if shelf is not None and not shelf.asked and self._schedule_is_short(shelf, now):
            self._read(None, shelf, min(max(1, self._schedule_window // 2), _PAGE))

    def _schedule_is_short(self, shelf: Shelf, now: float) -> bool:
        """Where the clock was set, what is kept by the time that it showed then may be due earlier."""
        state = self._state
        known_until = shelf.after[0] - state.largest_offset
        return state.scheduled < self._schedule_window // 8 or known_until < now + _AHEAD_S

    def _read(self, row: Row | None, shelf: Shelf, limit: int) -> None:
        shelf.asked = True
        self._last_read += 1
        self._reads[self._last_read] = row, shelf, shelf.after, shelf.count
        line = None if row is None else row.key
        self._state.effects.append(Refill(self._last_read, line, shelf.after, limit))

    def loaded(self, number: int, records: Sequence[TaskRecord], now: float) -> list[Task]:
        """The store has answered. Returns the tasks that are in memory again, each in its line."""
        row, shelf, after, counted = self._reads.pop(number)
        ended = self._ended
        if not self.reading:
            self._ended = set()
        shelf.asked = False
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
        if row is None:
            self._fill_schedule(tasks, shelf)
        else:
            self._fill(row, tasks, shelf)
        return tasks

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
        if not shelf.count:
            self._clear_away(row)
            return
        reached = 0
        for task in shelf.beyond:
            if (0.0, task.order) > shelf.after:
                break
            reached += 1
            self._rejoin(row, task)
        del shelf.beyond[:reached]

    def _fill_schedule(self, tasks: list[Task], shelf: Shelf) -> None:
        for task in tasks:
            self._wait_for(task)
        if not shelf.count:
            self._state.shelf = None

    def _wait_for(self, task: Task) -> None:
        assert task.due_at is not None
        self._state.scheduled += 1
        self._state.deadlines.add(task.due_at, "due", task)

    def _clear_away(self, row: Row) -> None:
        """Nothing of the row is in the store alone."""
        assert row.shelf is not None
        beyond, row.shelf = row.shelf.beyond, None
        self._state.queue.shelved_rows.pop(row, None)
        for task in beyond:
            self._rejoin(row, task)

    def _rejoin(self, row: Row, task: Task) -> None:
        task.past = task.past._replace(beyond=False)
        self._state.queue.place(row, task)

    @property
    def reading(self) -> bool:
        """Whether something is being read, so that what ends meanwhile is to be remembered."""
        return self._looking or bool(self._reads)

    def look_up(self, looking: bool) -> None:
        """The shell begins to look tasks up by their ids, or has ended that."""
        self._looking = looking
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
        _wait_beyond(task, shelf)
        if not shelf.count:
            self._clear_away(row)
        return task

    def _fetch_scheduled(self, record: TaskRecord, now: float) -> Task | None:
        shelf = self._state.shelf
        if shelf is None or place_of(record) <= shelf.after:
            return None
        task = self._take(record, shelf, now)
        self._wait_for(task)
        if not shelf.count:
            self._state.shelf = None
        return task

    def ended(self, task: Task) -> None:
        """A durable task has ended, and something is being read that may still show it."""
        self._ended.add(task.id)


def _wait_beyond(task: Task, shelf: Shelf) -> None:
    task.past = task.past._replace(beyond=True)
    insort(shelf.beyond, task, key=lambda each: each.order)

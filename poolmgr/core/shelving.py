"""Putting waiting tasks away, so that no more of them is in memory than may be. See core/storeroom.py for the whole."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

from poolmgr.core.allotment import that_fit, weight
from poolmgr.core.row import Row
from poolmgr.core.shelf import Place, Shelf, may_be_shelved, place
from poolmgr.core.state import State
from poolmgr.core.task import Task
from poolmgr.model import TaskState

PAGE = 2000  # tasks that are read at a time: to take them in is to take the loop from all else
PAGE_BYTES = 8 << 20  # of their payloads: whoever waits for the store waits for this


class Shelving:
    """The half of ``Storeroom`` that puts tasks away."""

    def __init__(self, state: State, window: int) -> None:
        self._state = state
        self._page = min(PAGE, max(1, window // 2))
        self._page_bytes = min(PAGE_BYTES, max(1, state.payloads.whole // 8))
        self._schedule_window = window
        self._schedule_most = window
        self.schedule_most_bytes = 0  # it is no use to shorten it before it is heavier
        self._strays: dict[bytes, Task] = {}  # belong on a shelf; some have since ended, or had their turn
        self._strays_bytes = 0
        self._emptied: dict[Row | None, None] = {}  # lines of whose shelves all that was there is in memory
        self._looking = False
        self.untidy = False  # then ``tidy`` is to be called before anything is started

    def overflow(self, row: Row, task: Task) -> None:
        """What ``ReadyQueue.push`` has left to be done for ``task``."""
        shelf = row.shelf
        if shelf is None or task.in_queue:
            self._shorten(row)
        elif may_be_shelved(task) and not self._may_be_shown(task, shelf):
            self._put_away(task, shelf)
        else:
            self._wait_beyond(task, shelf)

    def _may_be_shown(self, task: Task, shelf: Shelf) -> bool:
        """Whether what is being read may show a task that is in memory, and belongs on its row's ``shelf``. It stays
        there until then: whoever finds it in the answer, and not in memory, would take it for one that is put away. It
        may be shown by the shelf's own answer; or, where it has been scheduled, by the schedule's."""
        return (shelf.asked and task.order <= shelf.asked_up_to) or self._schedule_may_show(task)

    def _schedule_may_show(self, task: Task) -> bool:
        schedule = self._state.shelf
        if schedule is None or not schedule.asked or task.order > schedule.asked_up_to:
            return False
        return bool(task.options.delay_s) or task.options.at is not None

    def overflow_many(self, row: Row, tasks: Sequence[Task]) -> bool:
        """Put new tasks, all of one kind, on their row's shelf before they have been anywhere else. False where they do
        not all belong there: then nothing has happened."""
        shelf, first = row.shelf, tasks[0]
        if shelf is None or (0.0, first.order) <= shelf.after or not may_be_shelved(first):
            return False
        if self._may_be_shown(first, shelf):
            return False
        shelf.count += len(tasks)
        for client, _ in first.watchers:
            self._state.absent.update((task.order, client) for task in tasks)
        return True

    def _shorten(self, row: Row) -> None:
        queue = self._state.queue
        if not any(may_be_shelved(task) for task in row):
            _bear(row)
            return
        taken = queue.shorten(row)
        last = max(task.order for task in row)  # of those that stay
        if row.shelf is None:
            row.shelf = Shelf((0.0, last), queue.tally)
            queue.shelved_rows[row] = None
        row.shelf.after = (0.0, last)
        row.most = row.most_bytes = 0
        for task in taken:
            if may_be_shelved(task) and not self._schedule_may_show(task):
                self._put_away(task, row.shelf)
            else:
                self._wait_beyond(task, row.shelf)
        if not row.shelf.count:
            self._drop_shelf(row)
            _bear(row)

    def schedule(self, task: Task, due_at: float) -> None:
        """A task waits for its time."""
        state, shelf = self._state, self._state.shelf
        task.due_at = due_at
        belongs_there = shelf is not None and self._place(task) > shelf.after and may_be_shelved(task)
        if belongs_there and shelf is not None and not shelf.asked:
            self._put_away(task, shelf)
            return
        if not state.scheduled:
            self.schedule_most_bytes = 0
        state.schedule(task)
        if belongs_there:
            self._stray(task)
        if self._schedule_is_heavy or state.scheduled > self._schedule_most:
            self._shorten_schedule()

    @property
    def _schedule_is_heavy(self) -> bool:
        state = self._state
        return state.scheduled_weight > max(self._schedule_room, self.schedule_most_bytes) and state.scheduled > 1

    @property
    def _schedule_room(self) -> int:
        """How many bytes the schedule may weigh, at present."""
        state = self._state
        return max(state.queue.light, state.payloads.share(state.scheduled_weight))

    def _shorten_schedule(self) -> None:
        state, shelf = self._state, self._state.shelf
        if shelf is not None and shelf.asked:
            return
        waiting = [task for task in state.tasks.values() if task.state is TaskState.SCHEDULED and may_be_shelved(task)]
        waiting.sort(key=self._place)
        self._schedule_most = max(self._schedule_window, 2 * (state.scheduled - len(waiting)))
        self.schedule_most_bytes = 2 * (state.scheduled_weight - weight(waiting))
        kept = that_fit(waiting, max(1, self._schedule_window // 2), self._schedule_room // 2)
        if len(kept) == len(waiting):
            self._bear_schedule()
            return
        after = self._place(kept[-1])
        if shelf is None:
            shelf = state.shelf = Shelf(after, state.queue.tally)
        shelf.after = min(after, shelf.after)  # some may be in memory that stand behind others that are not
        self._take_off_schedule([task for task in waiting if self._place(task) > shelf.after], shelf)
        self._bear_schedule()

    def _bear_schedule(self) -> None:
        """What must be in memory must be: ask again when it is twice as much. To ask is to look at every task."""
        if self._schedule_is_heavy:
            self.schedule_most_bytes = 2 * self._state.scheduled_weight

    def _take_off_schedule(self, tasks: list[Task], shelf: Shelf) -> None:
        state = self._state
        if not tasks:
            return
        gone = set(tasks)
        state.deadlines.drop(lambda kind, subject: kind == "due" and subject in gone)
        state.unschedule(tasks)
        for task in tasks:
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

    def _drop_shelf(self, row: Row | None) -> None:
        """Nothing of the line is in the store alone."""
        if row is None:
            self._state.shelf = None
            return
        assert row.shelf is not None
        beyond, row.shelf = row.shelf.beyond, None
        self._state.queue.shelved_rows.pop(row, None)
        for task in beyond:
            self._rejoin(row, task)

    def _rejoin(self, row: Row, task: Task) -> None:
        task.past = task.past._replace(beyond=False)
        self._state.queue.beyond -= 1
        self._state.payloads.held -= len(task.payload)
        self._state.queue.place(row, task)

    def _wait_beyond(self, task: Task, shelf: Shelf) -> None:
        task.past = task.past._replace(beyond=True)
        self._state.queue.beyond += 1
        self._state.payloads.held += len(task.payload)
        insort(shelf.beyond, task, key=_order)
        if may_be_shelved(task):
            self._stray(task)

    def _stray(self, task: Task) -> None:
        """It belongs on a shelf, and was asked for; or something is being read there."""
        self._strays[task.id] = task
        self._strays_bytes += len(task.payload)

    def _forget_stray(self, task: Task) -> None:
        if self._strays.pop(task.id, None) is not None:
            self._strays_bytes -= len(task.payload)

    def tidy(self) -> None:
        """Put back the strays, if they are many, and take down the shelves on which nothing is left."""
        if self._looking:
            return
        self.untidy = False
        if self._strays_are_many:
            self._put_back()
        for row in self._emptied:
            shelf = self._state.shelf if row is None else row.shelf
            if shelf is not None and not shelf.count and not shelf.asked:  # else what comes will tell
                self._drop_shelf(row)
        self._emptied.clear()

    @property
    def _strays_are_many(self) -> bool:
        return len(self._strays) > self._page or self._strays_bytes > self._page_bytes

    def _put_back(self) -> None:
        """Each stray whose place is beyond its shelf's beginning; but if that is being read, the next time. Lines in
        which others have found their place have become longer."""
        state = self._state
        strays, self._strays, self._strays_bytes = self._strays, {}, 0
        scheduled: list[Task] = []
        longer: dict[Row | None, None] = {}
        for task in strays.values():
            if state.tasks.get(task.id) is not task or not may_be_shelved(task):
                continue
            row = None if task.state is TaskState.SCHEDULED else state.queue.row_of(task)
            shelf = state.shelf if row is None else row.shelf
            if shelf is None or self._place(task) <= shelf.after:
                longer[row] = None
            elif shelf.asked or (row is not None and self._may_be_shown(task, shelf)):
                self._stray(task)
            elif row is None:
                scheduled.append(task)
            else:
                state.queue.discard(task)
                self._put_away(task, shelf)
        if state.shelf is not None:
            self._take_off_schedule(scheduled, state.shelf)
        for row in longer:
            if row is None and self._schedule_is_heavy:
                self._shorten_schedule()
            elif row is not None and row.counted and state.queue.is_heavy(row):
                self._shorten(row)


def _order(task: Task) -> int:
    return task.order


def _bear(row: Row) -> None:
    """What must be in memory must be: ask again when it is twice as much."""
    row.most, row.most_bytes = 2 * len(row), 2 * row.weight

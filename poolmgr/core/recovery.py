"""What comes from the store: the tasks that earlier epochs left, and those that have waited there for their turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from poolmgr.core.changes import StreamRecord, TaskRecord
from poolmgr.core.intake import Intake
from poolmgr.core.lifecycle import Lifecycle
from poolmgr.core.shelf import ShelfSize
from poolmgr.core.state import State
from poolmgr.core.storeroom import Storeroom
from poolmgr.core.stream import Stream
from poolmgr.core.task import Task
from poolmgr.model import TaskState
from poolmgr.payload import Lost


class Recovery:
    """The store's side of the scheduler."""

    def __init__(self, state: State, storeroom: Storeroom, lifecycle: Lifecycle, intake: Intake) -> None:
        self._state = state
        self._storeroom = storeroom
        self._lifecycle = lifecycle
        self._intake = intake

    def recover(
        self,
        records: Iterable[TaskRecord],
        known: Callable[[str], bool],
        now: float,
        shelves: Iterable[ShelfSize] = (),
        keys: Iterable[tuple[str, bytes, float]] = (),
        streams: Iterable[StreamRecord] = (),
    ) -> None:
        """Take over the unfinished tasks of earlier epochs. One that ran when its daemon died was interrupted.

        Args:
            records: those that may not stay in the store alone.
            known: whether the app has a handler of that name.
            shelves: how many others there are, and where.
            keys: deduplication keys of final tasks whose windows last: (key, task, wall time until when).
            streams: those of ``records``.
        """
        state = self._state
        state.known = known
        for stream in streams:
            state.streams[stream.id] = Stream.restored(stream)
        for key, id, until in keys:
            state.keys[key] = (id, until - state.wall_offset)
            state.deadlines.add(until - state.wall_offset, "key", key)
        self._storeroom.recover(shelves)
        for record in records:
            task = Task.restored(record, now)
            was_running = record.state is TaskState.RUNNING
            interruptions = record.interruptions + was_running  # before it is queued: its lane depends on it
            task.past = task.past._replace(cautious=True, interruptions=interruptions)
            state.last_order = max(state.last_order, record.order)
            due_at = None if record.due_at is None else record.due_at - state.wall_offset
            follows_wall = record.options.at is not None and not record.attempt
            self._intake.limit(task.name, task.options)
            self._lifecycle.admit(task, due_at, record.due_at if follows_wall else None, now)
            if record.cancel_wanted:
                self._lifecycle.cancel(task, now)
            elif was_running:
                self._interrupted(task, now)
            if task.id in state.tasks:
                self._give_up_hopeless(task, now)
        state.recovered_to = state.last_order

    def _interrupted(self, task: Task, now: float) -> None:
        state = self._state
        state.statistics.interrupted += 1
        state.moved(task)
        if not task.options.restartable:
            message = "the daemon died while it ran, and it may not be run again (restartable=False)"
            self._lifecycle.give_up(task, now, "interrupted", message)
        elif task.past.interruptions >= state.settings.poison_after:
            message = f"quarantined: the daemon died {task.past.interruptions} times while it ran"
            self._lifecycle.give_up(task, now, "interrupted", message)

    def _give_up_hopeless(self, task: Task, now: float) -> None:
        if isinstance(task.payload, Lost):
            self._lifecycle.give_up(task, now, "payload_lost", f"its payload is gone: {task.payload.why}")
        elif not self._state.known(task.name):
            self._lifecycle.give_up(task, now, "unknown_task", f"the app has no task {task.name!r} any more")

    def loaded(self, number: int, records: Sequence[TaskRecord], now: float) -> None:
        """The answer to the ``Refill`` of that number."""
        for task in self._storeroom.loaded(number, records, now):
            self._take_in(task, now)

    def not_loaded(self, number: int) -> None:
        """The ``Refill`` of that number has failed, some time ago."""
        self._storeroom.not_loaded(number)

    def look_up(self, looking: bool) -> None:
        """Tasks are looked up by their ids from now on; or, where not ``looking``, no more. ``fetch`` is to be called
        with what was read in between."""
        self._storeroom.look_up(looking)

    def fetch(self, record: TaskRecord, now: float) -> Task | None:
        """Take a waiting task that only the store holds into memory, so that it can be asked about by its id.

        ``record`` is what the store has shown after all that had been decided before. None if the task is on no shelf
        any more, or has just ended (shed, or it can never run): look again.
        """
        task = self._storeroom.fetch(record, now)
        if task is not None:
            self._take_in(task, now)
        return task if task is not None and task.id in self._state.tasks else None

    def _take_in(self, task: Task, now: float) -> None:
        self._intake.limit(task.name, task.options)
        self._give_up_hopeless(task, now)
        if self._state.shedding and task.state is TaskState.QUEUED:
            self._lifecycle.shed(task, now)

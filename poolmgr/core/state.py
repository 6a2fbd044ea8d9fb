"""What the scheduler knows, and the effects that it has decided on and not yet handed over."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from poolmgr.config import Settings
from poolmgr.core.ageing import Ageing
from poolmgr.core.allotment import Allotment, weight
from poolmgr.core.balancer import Balancer
from poolmgr.core.breaker import Breaker
from poolmgr.core.changes import Change, TaskAdded, TaskMoved
from poolmgr.core.deadlines import NEVER, Deadlines
from poolmgr.core.effects import Accepted, Effect, Emit, Persist
from poolmgr.core.limits import NameLimits
from poolmgr.core.live_streams import LiveStreams
from poolmgr.core.measurements import Statistics
from poolmgr.core.memory import Memory
from poolmgr.core.ready_queue import ReadyQueue
from poolmgr.core.retry import ExponentialBackoff, RetryPolicy
from poolmgr.core.schedule import Schedule
from poolmgr.core.shelf import LineKey, Shelf
from poolmgr.core.slot import Slot
from poolmgr.core.task import Task, Watchers
from poolmgr.model import TaskState

MARK_AFTER_S = 0.020  # so long a task runs before that is kept


class Session:
    """One client connection."""

    __slots__ = ("calls", "commit", "group", "submits", "unkept_bytes", "watching")

    def __init__(self, client: int) -> None:
        self.group = f"client-{client}"  # of its tasks that name none
        self.submits = 0
        self.commit = 0  # the commit of its latest durable submit
        self.calls: dict[bytes, Task] = {}  # that it owns: cancelled when it goes
        self.watching: Watchers = ((client, None),)  # of the tasks that it alone watches
        self.unkept_bytes = 0  # payloads of its durable submits since it was told of some


class State:
    """Shared by the scheduler's parts. ``now`` is boot time; ``now + wall_offset`` is wall time."""

    def __init__(
        self,
        settings: Settings,
        balancer: Balancer,
        random: Callable[[], float],
        wall_offset: float,
        window: int,
        window_bytes: int,
    ) -> None:
        self.settings = settings
        self.groups = {group.name: group for group in settings.worker_groups()}
        self.reserving = any(group.is_reserved for group in self.groups.values())
        self.balancer = balancer
        self.retry: RetryPolicy = ExponentialBackoff(random, settings.retry_jitter)
        self.wall_offset = wall_offset
        self._offsets = [(-1, wall_offset)]  # (order, the offset since the task of that order was submitted)
        self.largest_offset = wall_offset  # of all in this epoch
        self.known: Callable[[str], bool] = lambda name: True  # whether the app has a handler of that name
        self.started_at = 0.0
        self.generation = 1  # of the code that new processes run
        self.shutting_down = False
        self.listening = False  # someone wants the events of every single task

        self.tasks: dict[bytes, Task] = {}
        self.slots: dict[str, Slot] = {}
        self.schedules: dict[str, Schedule] = {}
        self.payloads = Allotment(window_bytes)  # of what waits in memory, for its turn or its time, or is being read
        ageing = Ageing(settings.aging_s, self.offset_of) if settings.aging_s else None
        self.queue = ReadyQueue(window, self.payloads, ageing)
        self.shelf: Shelf | None = None  # of the schedule
        self.absent: dict[int, int] = {}  # who watches what is on a shelf: order -> client
        self.recovered_to = 0  # tasks up to this order are of earlier epochs
        self.deadlines = Deadlines()
        self.statistics = Statistics()
        self.limits: dict[str, NameLimits] = {}
        self.crowds: dict[str, int] = {}  # how many tasks wait that have a ``max_queued``, by name
        self.waiting_for_room = 0  # requests by clients that would submit (core/room.py)
        self.paused: dict[str, None] = {}
        self.breakers: dict[str, Breaker] = {}  # of the names whose last attempt has failed
        self.store_trouble = ""  # why the store refuses to write, while it does
        self.memory = Memory()
        self.shedding = False  # sheddable tasks do not wait: they end
        self.keys: dict[str, tuple[bytes, float]] = {}  # deduplication key -> (task, held until)
        self.sessions: dict[int, Session] = {}
        self.stuck_pids: dict[int, str] = {}
        self.streams = LiveStreams(settings.stream_limit_mb)
        self.scheduled = 0  # tasks in memory that wait for their time
        self.scheduled_weight = 0  # bytes of their payloads
        self.last_fence = 0
        self.last_order = 0

        self.effects: list[Effect] = []
        self.commit = 1  # the number that the next commit will have
        self._added: list[Task] = []
        self._moved: dict[bytes, Task] = {}
        self._begun: deque[tuple[float, int, Task]] = deque()
        self._facts: list[Change] = []
        self._unkept: list[Change] = []
        self._to_accept: dict[int, Session] = {}
        self._lingering: list[Task] = []

    def clock_changed(self, wall_offset: float) -> None:
        """The wall clock was set."""
        self.wall_offset = wall_offset
        self._offsets.append((self.last_order, wall_offset))
        self.largest_offset = max(self.largest_offset, wall_offset)

    @property
    def clock_was_set(self) -> bool:
        """Whether that has happened in this epoch."""
        return len(self._offsets) > 1

    def offset_of(self, order: int) -> float:
        """The wall time less the boot time when the task of that order was submitted; of earlier epochs: at start."""
        return self._offsets[bisect_left(self._offsets, (order,)) - 1][1]

    def stored_due(self, task: Task) -> float | None:
        """When the task is due, as a store keeps it: wall time. A delay is kept by the clock of its submit, so that one
        that comes back from a shelf has the length that it had."""
        if task.due_at is None or task.past.due_wall is not None:
            return task.past.due_wall
        return task.due_at + (self.wall_offset if task.attempt else self.offset_of(task.order))

    def schedule(self, task: Task) -> None:
        """A task in memory waits for its time, ``due_at``."""
        assert task.due_at is not None
        self.deadlines.add(task.due_at, "due", task)
        self._scheduled(1, len(task.payload))

    def unschedule(self, tasks: Sequence[Task]) -> None:
        """These do so no more. What the deadlines have of them goes in its own time."""
        self._scheduled(-len(tasks), -weight(tasks))

    def _scheduled(self, more: int, more_bytes: int) -> None:
        self.scheduled += more
        self.scheduled_weight += more_bytes
        self.payloads.held += more_bytes

    @property
    def all_scheduled(self) -> int:
        """How many tasks wait for their time, wherever they are."""
        return self.scheduled + (0 if self.shelf is None else self.shelf.count)

    @property
    def waiting(self) -> int:
        """How many tasks wait, for their turn or their time. Costs no more when they are many."""
        queue = self.queue
        return len(queue) + queue.tally.tasks + queue.beyond + self.scheduled

    def crowd(self, name: str, more: int) -> None:
        """So many more tasks of a name wait that have a ``max_queued``."""
        self.crowds[name] = self.crowds.get(name, 0) + more
        if not self.crowds[name]:
            del self.crowds[name]

    def shelved_lines(self) -> list[LineKey | None]:
        """The lines that have a shelf; None is the schedule."""
        rows: list[LineKey | None] = [row.key for row in self.queue.shelved_rows]
        return rows if self.shelf is None else [*rows, None]

    def emit(self, name: str, fields: dict[str, Any], commit: int = 0) -> None:
        """An event. Those of every single task are asked for first (``listening``): they cost more than the task."""
        self.effects.append(Emit(name, fields, commit))

    def added(self, task: Task, session: Session | None) -> None:
        """A durable task was accepted: it is to be kept."""
        self._added.append(task)
        if session is not None:
            session.commit = self.commit
            session.unkept_bytes += len(task.payload)

    def added_many(self, tasks: Iterable[Task], weighs: int, session: Session) -> None:
        """The same of many, whose payloads have so many bytes together."""
        self._added.extend(tasks)
        session.commit = self.commit
        session.unkept_bytes += weighs

    def counted(self, client: int, session: Session) -> None:
        """Another of its submits was answered, one way or the other: the client is to be told how many."""
        self._to_accept[client] = session

    def moved(self, task: Task) -> None:
        """A durable task's state or counts have changed."""
        self._moved[task.id] = task

    def unwanted(self, task: Task) -> int:
        """A task that runs was cancelled, and does not run again. Which commit keeps that; 0: it is not durable."""
        if not task.options.durable:
            return 0
        self._moved[task.id] = task
        return self.commit

    def began(self, task: Task, at: float, now_known: bool) -> None:
        """A durable task runs since ``at``. Unless it waits for that to be kept, that is kept once it has run for a
        while: most have ended by then. A daemon that dies sooner has not interrupted it."""
        if now_known:
            self._moved[task.id] = task
        else:
            self._begun.append((at, task.fence, task))

    def next_mark(self) -> float:
        """When the next running task is to be kept as such; infinity for never."""
        begun = self._begun
        while begun:
            at, fence, task = begun[0]
            if task.fence == fence and task.state is TaskState.RUNNING:
                return at + MARK_AFTER_S
            begun.popleft()  # it has ended by now: nobody is to be woken for it
        return NEVER

    def mark_running(self, now: float) -> None:
        """Keep that those run that have run for a while."""
        while self.next_mark() <= now:
            _, _, task = self._begun.popleft()
            if task.id in self.tasks:
                self._moved[task.id] = task

    def ended(self, task: Task) -> None:
        """A durable task is final: that says all."""
        self._moved.pop(task.id, None)

    def lingers(self, task: Task) -> None:
        """A task has ended, and a line or the deadlines may hold it until they come to it, which may take days: without
        its payload, once its record is made."""
        self._lingering.append(task)

    def settled(self) -> int:
        """The number of the commit that holds all that has been decided until now."""
        decided = self._added or self._moved or self.streams.changes or self._facts
        return self.commit if decided else self.commit - 1

    def fact(self, change: Change, durable: bool) -> int:
        """Remember ``change``; the number of the commit to wait for, 0 if it is not durable."""
        if durable:
            self._facts.append(change)
            return self.commit
        self._unkept.append(change)
        return 0

    def streamed(self, change: Change) -> int:
        """A durable stream has gone on; the number of the commit that keeps it."""
        self.streams.changes.append(change)
        return self.commit

    def take(self) -> list[Effect]:
        """Everything decided since the last time, what is to be kept first."""
        effects = self.effects
        if self._added or self._moved or self.streams.changes or self._facts or self._unkept:
            effects = [*self._persist(), *effects]
        if self._to_accept:
            for client, session in self._to_accept.items():
                effects.append(Accepted(client, session.submits, session.commit, session.unkept_bytes))
                session.unkept_bytes = 0
            self._to_accept = {}
        if self._lingering:
            for task in self._lingering:
                task.payload = b""
            self._lingering = []
        self.effects = []
        return effects

    def _persist(self) -> list[Effect]:
        found: list[Effect] = []
        if self._unkept:
            found.append(Persist(0, False, tuple(self._unkept)))
            self._unkept = []
        changes = self.streams.changes  # first, as their tasks were added before: so the others stay together
        for task in self._added:
            runs_unkept = task.state is TaskState.RUNNING and task.id not in self._moved  # see ``began``
            changes.append(TaskAdded(task.record(self.stored_due(task), TaskState.QUEUED if runs_unkept else None)))
            if not task.past.cancel_wanted:
                self._moved.pop(task.id, None)
        for task in self._moved.values():
            due, past = self.stored_due(task), task.past
            counts = past.failures, past.kills, past.interruptions
            changes.append(TaskMoved(task.id, task.state, due, task.attempt, *counts, past.cancel_wanted))
        changes.extend(self._facts)
        if changes:
            found.append(Persist(self.commit, True, tuple(changes)))
            self.commit += 1
        self._added, self._moved, self._facts, self.streams.changes = [], {}, [], []
        return found

"""The scheduler's own record of a slot and of the worker process in it."""

from __future__ import annotations

from collections import deque

from poolmgr.config import Group
from poolmgr.core.memory_trend import MemoryTrend
from poolmgr.core.task import Task
from poolmgr.model import WorkerState

_NEVER = float("inf")
READY_WITHIN_S = 60.0  # a process that has just been made; one that hangs would have others wait for ever
_PLAIN = Group()


class Slot:
    """One place in the pool. ``incarnation`` counts the processes that it has had.

    ``in_flight`` holds what was written to the worker, oldest first: the first is begun (or about to be), the rest
    prefetched. A worker runs them in this order.
    """

    __slots__ = (
        "affinities", "begun_at", "bucket", "cancelled", "capabilities", "charges", "continued_after", "cpu_percent",
        "doomed", "executed", "executed_before", "generation", "group", "heard_at", "id", "in_flight", "incarnation",
        "interrupted", "last_activity", "leaving", "memory_limit_mb", "memory_mb", "memory_peak_mb", "memory_trend",
        "memory_used_mb", "next_look", "open", "pid", "preempt_by", "preempt_told", "preempting", "preempting_for",
        "proven", "ready_at", "recalling", "restarts", "retired_at", "retiring", "seen", "slow", "spawned_at",
        "start_commit", "state", "suspected", "tasks_limit", "trim", "trouble", "watched", "weighing",
    )  # fmt: skip

    def __init__(self, id: str, group: Group = _PLAIN) -> None:
        self.id = id
        self.group = group
        self.tasks_limit = group.max_tasks_per_worker
        self.capabilities = group.offers  # and, from when it is ready, what the process says
        self.incarnation = 0
        self.generation = 0  # of the code that its process runs
        self.state = WorkerState.STOPPED
        self.restarts = -1  # the first process is none
        self.charges = 0  # deaths in a row that were the slot's own fault
        self.executed_before = 0  # by earlier processes
        self.leaving = False  # the slot goes when its process has
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """A fresh process: forget what was known of the last one."""
        self.pid: int | None = None
        self.in_flight: deque[Task] = deque()
        self.executed = 0
        self.proven = False  # the last attempt that has ended here, and says something of it, went well
        self.spawned_at = now
        self.ready_at = 0.0
        self.heard_at = now  # the last heartbeat
        self.last_activity = now
        self.begun_at = 0.0  # when the first in flight was begun, as well as is known
        self.seen = 0  # the fence that its page has shown to be begun, at ``begun_at``
        self.next_look = _NEVER
        self.slow = False  # runs one task for over 10 ms: takes no prefetch
        self.recalling = 0  # the fence of a recall that has no answer yet
        self.start_commit = 0  # the commit that the latest start which waited for one has waited for
        self.interrupted = 0  # the fence that was told of its soft time-out
        self.cancelled = 0  # the fence that was told that it is cancelled
        self.preempting = 0  # the fence that is to give the worker up (core/preemption.py)
        self.preempting_for = ""  # why
        self.preempt_by = _NEVER  # when the worker is killed if it has not
        self.preempt_told = 0  # the fence that was asked to
        self.retiring = ""  # why it is being drained: costs nobody
        self.retired_at = 0.0  # since when
        self.doomed: tuple[str, int] | None = None  # (reason, fence) for which it is being killed
        self.trouble = ""  # why the process was of no use; of one that lives: why nothing that it says of tasks counts
        self.suspected = False  # an ``Inspect`` was asked for, and its heart has not beaten since
        self.continued_after = -1  # it was stopped, and continued, when it had executed so many
        self.open = False  # it may be given work: it is ready, and neither being drained nor killed
        self.bucket = -1
        self.affinities: dict[str, None] = {}
        self.cpu_percent = 0.0
        self.memory_mb = 0.0  # resident
        self.memory_used_mb = 0.0  # what it has taken, as that counts against its limit
        self.memory_limit_mb: int = self.group.worker_memory_limit_mb  # in force now; 0: none
        self.memory_peak_mb = 0.0  # what it was seen to take while its task ran
        self.memory_trend = MemoryTrend()
        self.watched = False  # something about its memory is to be looked after when its task has ended
        self.weighing = False  # a ``Weigh`` has no answer yet
        # It held too much, and was told to give back what it can: after so many tasks, and until when it may be at it.
        self.trim: tuple[int, float] | None = None

    def is_coming(self, now: float) -> bool:
        """Whether its process will be ready before long."""
        return self.state is WorkerState.STARTING and now < self.spawned_at + READY_WITHIN_S

    def fits(self, requires: frozenset[str]) -> bool:
        """Whether the worker may be given a task that requires these capabilities."""
        return requires <= self.capabilities and (bool(requires) or not self.group.is_reserved)

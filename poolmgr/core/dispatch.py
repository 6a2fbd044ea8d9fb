"""From the queue to the workers: which task starts where, how many wait there, and how they come back.

A worker holds the task that it runs and, where both are known to be short by their names, a few more behind it. No task
waits behind another while a fitting worker is idle. Once the running one has taken 10 ms, what waits behind it is
recalled; see ``recall_sent`` for why the shared page is proof enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heapreplace

from poolmgr.core.balancer import Waiting
from poolmgr.core.breakers import Breakers
from poolmgr.core.effects import Recall
from poolmgr.core.measurements import PREFETCH_MAX
from poolmgr.core.past import NO_PAST
from poolmgr.core.row import Demand, Entry, Row
from poolmgr.core.slot import Slot
from poolmgr.core.starter import Starter, starts_after_commit
from poolmgr.core.state import State
from poolmgr.core.task import Task
from poolmgr.model import CRITICAL_MOST, WorkerState

_COMING = frozenset({WorkerState.STARTING, WorkerState.DRAINING})


class Dispatcher:
    """Hands queued tasks to workers. Keeps the available workers sorted by how much they hold."""

    def __init__(self, state: State, breakers: Breakers, starter: Starter) -> None:
        self._state = state
        self._breakers = breakers
        self._starter = starter
        self._by_load: list[dict[str, Slot]] = [{} for _ in range(PREFETCH_MAX)]
        self._loads = 0  # bit n is set where ``_by_load[n]`` is not empty
        self._touched: dict[str, Slot] = {}
        self._heads: list[Entry] = []  # of the demands that may still start something, while ``dispatch`` runs
        self.worn_out: list[Slot] = []  # to be retired, so that fresh processes come for ephemeral tasks
        self.starved: dict[Demand, float] = {}  # demands whose next task is CRITICAL, and has no worker; its rank

    def touch(self, slot: Slot) -> None:
        """Something about the worker has changed: sort it anew before the next dispatch."""
        self._touched[slot.id] = slot

    def dispatch(self, now: float) -> None:
        """Start all that can be started."""
        if self._touched:
            for touched in self._touched.values():
                self._sort(touched)
            self._touched.clear()
        state = self._state
        queue = state.queue
        if not len(queue) or state.shutting_down:
            return
        alone = self._starter.one_runs_alone()
        first = [queue.head(demand) for demand in queue.demands if demand.heads and not (demand.alone and alone)]
        heads = self._heads = [row.entry for row in first if row is not None and row.entry is not None]
        heapify(heads)
        row = self._next()
        while row is not None:
            task, demand = row.next, row.lane.demand
            if state.limits and self._held_back(task, now):
                row = self._next()
                continue
            if demand.alone and self._starter.one_runs_alone():
                heappop(heads)
                row = self._next()
                continue
            slot = self._choose(task, demand)
            if slot is None:
                if demand.fresh:
                    self._wear_out(row)
                if row.priority <= CRITICAL_MOST:
                    self.starved[demand] = row.rank
                heappop(heads)  # nothing of this demand can run now
                row = self._next()
            else:
                row = self._fill(slot, row, now)

    def _fill(self, slot: Slot, row: Row, now: float) -> Row | None:
        """Start the first task of ``row`` on a worker. If that is busy, no other is idle: then also a fair share of
        those that follow in the same lane, since to choose a worker for each costs more than it gains.

        Returns the row to go on with.
        """
        queue, starter = self._state.queue, self._starter
        lane = row.lane
        share = -(-len(queue) // len(self._state.slots)) if slot.in_flight else 1
        if slot.tasks_limit:
            share = min(share, slot.tasks_limit - slot.executed - len(slot.in_flight))
        alone = len(self._heads) == 1 == len(lane.demand.heads)  # there is no other row whose turn it could be
        options, depth, room = None, 0, 1
        if share > 1:
            options, depth = row.next.options, self._depth(row.next)
            room = min(share, depth - len(slot.in_flight))
        following: Row | None = row
        while following is not None:
            tasks = queue.pop(following, room if alone else 1)
            if len(tasks) == 1:
                starter.start(tasks[0], slot, now)
            else:
                starter.start_many(tasks, slot, now)
            share -= len(tasks)
            following = row if alone and queue.goes_on(row) else self._next()
            if share <= 0 or following is None or following.lane is not lane:
                break
            task = following.next
            past = task.past
            if past is not NO_PAST and past.last_worker is not None:
                break
            if task.options is not options or past is not NO_PAST:
                options, depth = task.options, self._depth(task)
            room = min(share, depth - len(slot.in_flight))
            if room <= 0:
                break
        self._sort(slot)
        return following

    def _next(self) -> Row | None:
        """The row that is next among all demands that are not known to be starved; its entry leads ``_heads``."""
        heads = self._heads
        while heads:
            row = self._state.queue.head(heads[0][3].lane.demand)
            if row is None or row.entry is None:
                heappop(heads)
                continue
            if row.entry is not heads[0]:
                heapreplace(heads, row.entry)  # it has had a turn
            if row.entry is heads[0]:
                return row
        return None

    def _held_back(self, task: Task, now: float) -> bool:
        limits = self._state.limits.get(task.name)
        if limits is None:
            return False
        if limits.full:
            self._state.queue.block(task.name, "concurrency")
            return True
        free_at = limits.rate_free_at(now)
        if free_at > now:
            self._state.queue.block(task.name, "rate")
            self._state.deadlines.add(free_at, "rate", task.name)
            return True
        return False

    def _choose(self, task: Task, demand: Demand) -> Slot | None:
        """The worker for a task: of those that hold least, and are fit for it, the balancer's choice."""
        loads = self._loads & ((1 << (1 if demand.fresh else self._depth(task))) - 1)
        while loads:
            lowest = loads & -loads
            candidates: Sequence[Slot] = Waiting(self._by_load[lowest.bit_length() - 1])
            if demand.requires or self._state.reserving:
                candidates = [slot for slot in candidates if slot.fits(demand.requires)]
            if demand.fresh:
                candidates = [slot for slot in candidates if not slot.executed]
            avoided = task.past.last_worker
            if avoided is not None and len(candidates) > 1:
                candidates = [slot for slot in candidates if slot.id != avoided]
            if candidates:
                return candidates[0] if len(candidates) == 1 else self._state.balancer.choose(task, candidates)
            loads ^= lowest
        return None

    def _wear_out(self, row: Row) -> None:
        """Ephemeral tasks wait, and no idle process is fresh: give idle used ones up for as many as wait."""
        requires = row.lane.demand.requires
        fit = [slot for slot in self._state.slots.values() if slot.fits(requires)]
        coming = sum(not slot.in_flight and not slot.leaving and slot.state in _COMING for slot in fit)
        wanted = row.waiting - coming
        idle = [slot for slot in self._by_load[0].values() if slot.fits(requires)]
        for slot in idle[: max(0, wanted)]:
            self.forget(slot)
            self.worn_out.append(slot)

    def _depth(self, task: Task) -> int:
        options = task.options
        if (
            (not options.restartable and options.durable)
            or options.affinity is not None
            or options.memory_limit_mb is not None
            or task.past.cautious
            or task.past.kills
            or task.name in self._state.limits
            or (self._state.breakers and self._breakers.tries(task.name))
        ):
            return 1
        times = self._state.statistics.by_name.get(task.name)
        return times.depth if times is not None else 1

    def recall(self, slot: Slot) -> None:
        """Ask for what the worker holds behind its running task."""
        if len(slot.in_flight) > 1 and (slot.slow or not slot.recalling):
            slot.recalling = slot.in_flight[-1].fence
            self.touch(slot)
            self._state.effects.append(Recall(slot.id, slot.incarnation, slot.recalling))

    def recall_name(self, name: str) -> None:
        """Ask for what waits in workers, where a task of this name is among it: nothing of it is to begin."""
        for slot in self._state.slots.values():
            if any(task.name == name for task in list(slot.in_flight)[1:]):
                self.recall(slot)

    def recall_sent(self, slot: Slot, page_fence: int) -> list[Task]:
        """The tasks that are certain not to have begun, out of flight.

        RECALL was written before the page was read. After a task of over 1 ms a worker publishes the next fence, and
        then looks for recalls: so while the page still shows a task that is known to be slow, whatever the worker
        begins next will see this recall first, and not begin. Where the page has moved on, or the running task may yet
        turn out to be a short one, the worker's word (RECALLED) decides.
        """
        if not slot.recalling or not slot.slow or not slot.in_flight or slot.in_flight[0].fence != page_fence:
            return []
        return self._take(slot, {task.fence for task in list(slot.in_flight)[1:] if task.fence <= slot.recalling})

    def recalled(self, slot: Slot, fences: list[int]) -> list[Task]:
        """The worker says that it has not begun these, and will not."""
        slot.recalling = 0
        return self._take(slot, set(fences))

    def _take(self, slot: Slot, fences: set[int]) -> list[Task]:
        taken = [task for task in slot.in_flight if task.fence in fences]
        if taken:
            kept = [task for task in slot.in_flight if task.fence not in fences]
            slot.in_flight.clear()
            slot.in_flight.extend(kept)
            self.touch(slot)
        return taken

    def _sort(self, slot: Slot) -> None:
        load = len(slot.in_flight)
        worn_out = slot.tasks_limit and slot.executed + load >= slot.tasks_limit
        bucket = load if slot.open and not worn_out and not (load and self._is_full(slot, load)) else -1
        self._leave_bucket(slot)
        if bucket >= 0:
            self._by_load[bucket][slot.id] = slot
            self._loads |= 1 << bucket
        slot.bucket = bucket

    def _leave_bucket(self, slot: Slot) -> None:
        old = slot.bucket
        if old >= 0:
            bucket = self._by_load[old]
            del bucket[slot.id]
            if not bucket:
                self._loads ^= 1 << old
            slot.bucket = -1

    def _is_full(self, slot: Slot, load: int) -> bool:
        """Whether nothing more may be put behind what the worker holds."""
        if load >= PREFETCH_MAX or slot.slow or slot.recalling:
            return True
        first = slot.in_flight[0]
        times = self._state.statistics.by_name.get(first.name)
        if times is None or times.depth == 1:
            return True  # it may take long: what waits in the queue has the next worker that is free, here it would not
        options = first.options
        return options.ephemeral or options.memory_limit_mb is not None or starts_after_commit(first)

    def forget(self, slot: Slot) -> None:
        """The slot has no process now."""
        self._leave_bucket(slot)
        self._touched.pop(slot.id, None)

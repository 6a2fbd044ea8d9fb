"""Looks what workers take, and tells the scheduler: ten times a second while they are busy, once a second all others.

One timer, which runs while something is busy. It passes over those that have neither run a task for a moment nor ended
one since the last look. One that grows fast is looked at again sooner.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from poolmgr.core import effects as do
from poolmgr.core.scheduler import Scheduler
from poolmgr.core.slot import Slot
from poolmgr.manager import memory_controller, procfs
from poolmgr.manager.cgroups import Cgroups
from poolmgr.manager.clock import now
from poolmgr.manager.descendants import Descendants
from poolmgr.manager.process import WorkerProcess
from poolmgr.manager.worker_memory import LONGEST_S, SHORTEST_S, WorkerMemory
from poolmgr.post_mortem import PostMortem
from poolmgr.wire.messages import COLLECT

MOMENT_S: Final = 0.02  # a task that has run for less is not looked at


class WorkerWatch:
    """Of all workers of a pool."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        scheduler: Scheduler,
        processes: Mapping[str, WorkerProcess],
        kin: Descendants,
        cgroups: Cgroups | None,
        wake: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._state = scheduler.state
        self._limits = scheduler.memory_limits
        self._processes = processes
        self._kin = kin
        self._cgroups = cgroups
        self._wake = wake
        self._memories: dict[str, WorkerMemory] = {}  # by label
        self._timer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, "weigher")
        self._oom_kills = procfs.oom_kills()
        self.refused = ""  # why RLIMIT_DATA cannot be set

    def stop(self) -> None:
        """Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
        self._thread.shutdown(wait=False)

    def worker_came(self, process: WorkerProcess) -> None:
        """A worker is ready: from here on counts what it takes."""
        if process.pid is not None:
            self._kin.look()
            limit_mb = process.group.worker_memory_limit_mb
            memory = self._memories[process.label] = WorkerMemory(process.pid, limit_mb, self._kin.of(process))
            self.refused = memory.refused

    def worker_gone(self, process: WorkerProcess) -> None:
        """It has ended."""
        self._memories.pop(process.label, None)

    # ------------------------------------------------------------------------------------------ looking

    def started(self) -> None:
        """Something was started: watch it."""
        if self._timer is None:
            self._timer = self._loop.call_later(LONGEST_S, self._look)

    def _look(self) -> None:
        at = now()
        wake_at = at + LONGEST_S
        busy = False
        self._kin.look()
        for slot in list(self._state.slots.values()):
            busy = busy or bool(slot.in_flight)
            memory = self._memory_of(slot)
            if memory is None or not slot.memory_limit_mb or slot.doomed is not None:
                continue
            if slot.executed == memory.executed and (not slot.in_flight or at - slot.begun_at < MOMENT_S):
                continue
            if memory.next_at <= at + SHORTEST_S / 2:
                self._sample(slot, memory, at)
            wake_at = min(wake_at, memory.next_at)
        self._timer = self._loop.call_later(wake_at - at, self._look) if busy else None
        if self._state.effects:
            self._wake()

    def each_second(self, at: float) -> None:
        """All that were not looked at anyway. Those that are idle get back the limit that a task has changed."""
        self._oom_kills = procfs.oom_kills()
        self._kin.look()
        for slot in list(self._state.slots.values()):
            memory = self._memory_of(slot)
            if memory is None or slot.doomed is not None:
                continue
            if not slot.in_flight:
                memory.keep_limit()
            if at - memory.next_at > -SHORTEST_S:
                self._sample(slot, memory, at)
        if self._state.effects:
            self._wake()

    def _sample(self, slot: Slot, memory: WorkerMemory, at: float) -> None:
        memory.executed = slot.executed
        used_mb = memory.used_mb(self._kin.of(self._processes[slot.id]), at)
        self._limits.sampled(slot.id, slot.incarnation, used_mb, at)

    def _memory_of(self, slot: Slot) -> WorkerMemory | None:
        return self._memories.get(f"{slot.id}.{slot.incarnation}") if slot.id in self._processes else None

    # ------------------------------------------------------------------------------------------ effects

    def _current(self, worker: str, incarnation: int) -> tuple[WorkerProcess, WorkerMemory] | None:
        process = self._processes.get(worker)
        if process is None or process.incarnation != incarnation:
            return None
        memory = self._memories.get(process.label)
        return None if memory is None else (process, memory)

    def cap(self, effect: do.Cap) -> None:
        """Before the task's START is written, or after its result was read."""
        if found := self._current(effect.worker, effect.incarnation):
            process, memory = found
            self._kin.look()
            memory.cap(effect.limit_mb, self._kin.of(process))
            if self._cgroups is not None:
                limit_mb = effect.limit_mb
                if limit_mb is None:
                    self._cgroups.cap(process.label, process.group.worker_memory_limit_mb, more=False)
                else:
                    self._cgroups.cap(process.label, limit_mb, more=True)

    def weigh(self, effect: do.Weigh) -> None:
        """In a thread: the worker may be large."""
        if found := self._current(effect.worker, effect.incarnation):
            process, memory = found
            weighing = self._loop.run_in_executor(self._thread, memory.weigh, self._kin.of(process))
            weighing.add_done_callback(partial(self._weighed, effect))

    def _weighed(self, effect: do.Weigh, weighing: asyncio.Future[float | None]) -> None:
        found = self._current(effect.worker, effect.incarnation)
        if found and not weighing.cancelled():
            process, memory = found
            process.take_in()
            at = now()
            used_mb = memory.weighed(weighing.result(), at)
            self._limits.weighed(effect.worker, effect.incarnation, effect.fence, used_mb, at)
            self._wake()

    def measure(self, effect: do.Measure) -> None:
        """At once: what it is given next is written after this."""
        if found := self._current(effect.worker, effect.incarnation):
            process, memory = found
            at = now()
            self._limits.measured(effect.worker, effect.incarnation, memory.used_mb(self._kin.of(process), at), at)

    def give_back(self, effect: do.GiveBack) -> None:
        """It is looked at each second."""
        if found := self._current(effect.worker, effect.incarnation):
            process, _ = found
            if process.tell([COLLECT]):
                process.signal(signal.SIGUSR1)

    # ------------------------------------------------------------------------------------------ telling

    def examined(self, process: WorkerProcess, found: PostMortem) -> PostMortem:
        """What is left of a process that has ended, with what is known of its memory."""
        memory = self._memories.get(process.label)
        if memory is None:
            return found
        grown_mb = max(0.0, found.peak_memory_mb - memory.resident_mb)
        killed = found.signal == signal.SIGKILL and self._killed_by_kernel(process)
        return found._replace(peak_growth_mb=round(grown_mb, 1), oom_killed=killed)

    def _killed_by_kernel(self, process: WorkerProcess) -> bool:
        """Whether the kernel has killed it for want of memory. Where its control group does not know: whether it has
        killed anything within the last second, that no other worker's death is explained by."""
        known = self._cgroups.oom_killed(process.label) if self._cgroups is not None else None
        if known is not None:
            return known
        if procfs.oom_kills() <= self._oom_kills:
            return False
        self._oom_kills += 1
        return True

    def describe(self) -> dict[str, Any]:
        """Which limits are in force."""
        rlimit = f"refused: {self.refused}" if self.refused else "in force"
        cgroup = memory_controller.without_groups() if self._cgroups is None else self._cgroups.memory
        limit_mb = self._state.settings.worker_memory_limit_mb
        statm = f"{1 / LONGEST_S:.0f} Hz"
        return {"worker_memory_limit_mb": limit_mb, "statm": statm, "rlimit_data": rlimit, "cgroup_memory_max": cgroup}

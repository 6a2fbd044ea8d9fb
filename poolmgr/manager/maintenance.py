"""Once a second: what nobody sends an event for: CPU and memory, the wall clock, old results, garbage, freed memory."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

from poolmgr.errors import StoreUnavailable
from poolmgr.manager import procfs
from poolmgr.manager.clock import now, wall_offset
from poolmgr.manager.processors import Processors
from poolmgr.manager.shell import Shell
from poolmgr.manager.system import give_back_memory
from poolmgr.model import WorkerState
from poolmgr.wire.messages import COLLECT

INTERVAL_S = 1.0
CLOCK_JUMP_S = 1.0  # a wall clock that is so far from where it should be was set
EXPIRE_INTERVAL_S = 10.0
TRIM_INTERVAL_S = 30.0
_AT_ONCE = 1000  # old results that are forgotten in one transaction
_SWEPT_AT_ONCE = 200  # chunks of theirs that are removed in one


class Maintenance:
    """A timer that runs for as long as the manager does."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._handle = shell.loop.call_later(INTERVAL_S, self._run)
        self._expire_at = now() + EXPIRE_INTERVAL_S
        self._trim_at = now() + TRIM_INTERVAL_S
        self._collect_at = now() + (shell.settings.gc_interval_s or float("inf"))
        self._processors = Processors() if shell.settings.autoscale else None
        self._cpu: dict[int, tuple[float, int]] = {}
        self._forgetting: asyncio.Future[None] = shell.loop.create_future()
        self._forgetting.set_result(None)

    def stop(self) -> None:
        """Safe to call twice."""
        self._handle.cancel()
        self._forgetting.cancel()

    def _run(self) -> None:
        shell = self._shell
        at = now()
        self._sample(at)
        self._look_at_processors(at)
        shell.worker_watch.each_second(at)
        self._watch_clock(at)
        if at >= self._expire_at:
            self._expire_at = at + EXPIRE_INTERVAL_S
            wall = at + shell.scheduler.state.wall_offset
            shell.memory.expire(wall)
            if self._forgetting.done():
                self._forgetting = shell.loop.create_task(self._forget_old(wall))
        if at >= self._trim_at:
            self._trim_at = at + TRIM_INTERVAL_S
            shell.writer.read(lambda store: give_back_memory())  # in that thread, so that the loop goes on
        if at >= self._collect_at:
            self._collect_at = at + shell.settings.gc_interval_s
            collect_garbage(shell)
        self._handle = shell.loop.call_later(INTERVAL_S, self._run)

    async def _forget_old(self, wall: float) -> None:
        """Old results go, some at a time: commits and reads come between."""
        writer = self._shell.writer
        with suppress(StoreUnavailable):
            while await asyncio.wrap_future(writer.read(lambda store: store.expire(wall, _AT_ONCE))) == _AT_ONCE:
                pass
            while await asyncio.wrap_future(writer.read(lambda store: store.sweep(_SWEPT_AT_ONCE))) == _SWEPT_AT_ONCE:
                pass

    def _sample(self, at: float) -> None:
        """CPU and memory of each worker, for the balancers and for status."""
        seen = {}
        for slot in self._shell.scheduler.state.slots.values():
            if slot.pid is None:
                continue
            ticks = procfs.cpu_ticks(slot.pid)
            before, ticks_before = self._cpu.get(slot.pid, (at, ticks))
            if at > before:
                slot.cpu_percent = 100.0 * (ticks - ticks_before) / procfs.CLOCK_TICKS / (at - before)
            slot.memory_mb = procfs.resident_mb(slot.pid)
            seen[slot.pid] = (at, ticks)
        self._cpu = seen

    def _look_at_processors(self, at: float) -> None:
        """For the autoscaler."""
        if self._processors is not None:
            self._shell.scheduler.autoscaler.machine(self._processors.used_percent(), at)

    def _watch_clock(self, at: float) -> None:
        offset = wall_offset()
        self._shell.recent_ids.advance(now() + offset)
        if abs(offset - self._shell.scheduler.state.wall_offset) > CLOCK_JUMP_S:
            self._shell.scheduler.clock_changed(offset, at)
            self._shell.wake()


def collect_garbage(shell: Shell) -> int:
    """Have the idle workers run their garbage collectors; how many were asked."""
    asked = 0
    for slot in shell.scheduler.state.slots.values():
        process = shell.processes.get(slot.id)
        if slot.state is WorkerState.READY and process is not None and process.tell([COLLECT]):
            process.signal(signal.SIGUSR1)
            asked += 1
    return asked

"""What the parts of the manager share."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from typing import TypeVar

from poolmgr.config import Settings
from poolmgr.core.scheduler import Scheduler
from poolmgr.errors import StoreUnavailable
from poolmgr.manager.backlog import Backlog
from poolmgr.manager.clock import now, wall_offset
from poolmgr.manager.journal import log_line
from poolmgr.manager.outbox import Outbox, Port
from poolmgr.manager.process import WorkerProcess
from poolmgr.manager.readers import Readers
from poolmgr.manager.recent_ids import RecentIds
from poolmgr.manager.sweeper import Sweeper
from poolmgr.manager.templates import Templates
from poolmgr.manager.worker_watch import WorkerWatch
from poolmgr.model import TaskOptions
from poolmgr.parcels.parcel import Allowance
from poolmgr.store.base import Store
from poolmgr.store.memory import MemoryStore
from poolmgr.store.writer import StoreWriter
from poolmgr.wire.framing import read_buffer

T = TypeVar("T")

_SHARE = 4  # of the descriptors that the process may have: workers and clients need the rest


class Shell:
    """The scheduler and everything outside of it that it decides over."""

    def __init__(self, settings: Settings, store: Store, scheduler: Scheduler, wake: Callable[[], None]) -> None:
        self.settings = settings
        self.store = store  # durable tasks; for the writer's thread alone
        self.memory: Store = MemoryStore()  # dead letters that are not durable
        self.memory.open()
        self.scheduler = scheduler
        self.wake = wake  # something was told to the scheduler: flush before this turn ends
        self.loop = asyncio.get_running_loop()
        self.outbox = Outbox()
        self.processes: dict[str, WorkerProcess] = {}  # by slot: the current incarnation
        self.dying: dict[int, WorkerProcess] = {}  # by pid: given up (stuck), and not gone yet
        self.ports: dict[int, Port] = {}
        self.backlog = Backlog(self.ports)
        self.readers = Readers(self.loop)
        self.listeners: dict[int, Port] = {}  # those who want events
        self.answers: dict[int, tuple[int, int]] = {}  # the scheduler's token -> (client, the client's request)
        self.handlers: dict[str, TaskOptions] = {}
        # What is done with a line that a worker has printed: (worker, task id, "stdout" or "stderr", line).
        self.printed: Callable[[str, str, str, str], None] = log_line
        self.writer: StoreWriter
        self.templates: Templates
        self.sweeper: Sweeper
        self.worker_watch: WorkerWatch
        # For all payloads in files that this process holds.
        self.descriptors = Allowance(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE)
        self.buffer = read_buffer()  # for what is read of the workers, one after the other
        self.recent_ids = RecentIds(now() + wall_offset())
        self.declares = True  # the schedules that the app's code declares are in force
        self.store_error: str | None = None
        self.drained = False

    async def read_store(self, function: Callable[[Store], T]) -> T:
        """Run ``function(store)`` in the store's thread, after every commit so far.

        Once the store is closed this never returns: as the daemon goes, whoever asks is better told nothing than that
        its task cannot be looked up. Its connection is about to end, and with it the wait; the next daemon knows.

        Raises:
            StoreUnavailable: the store refuses.
        """
        try:
            return await asyncio.wrap_future(self.writer.read(function))
        except StoreUnavailable:
            if self.writer.closed:
                await self.loop.create_future()
            raise

    def generations(self) -> set[int]:
        """Of the code that living processes run, or are to run."""
        return {process.generation for process in (*self.processes.values(), *self.dying.values())}

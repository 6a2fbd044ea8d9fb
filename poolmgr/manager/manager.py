"""The manager: it performs the scheduler's effects, and tells the scheduler what has happened. It decides nothing.

One turn of the loop: what clients (server/) and workers (ears.py) have sent is told to the scheduler; then one
``_flush`` takes its effects, performs them (performer.py), and writes once to each worker and client. What tells of
durable tasks waits in the outbox for their commit; the store's thread says when.

    clients --> server --.                               .--> performer --> workers, clients
                         +--> scheduler --> _flush ------+
    workers --> ears ----'         ^                     '--> store's thread --.
                                   '---- committed <-- outbox <----------------'
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from poolmgr.config import Settings
from poolmgr.core.scheduler import Scheduler
from poolmgr.errors import StartFailed
from poolmgr.manager.alarm import Alarm
from poolmgr.manager.balancers import load_balancer
from poolmgr.manager.cgroups import make_cgroups
from poolmgr.manager.clock import now, wall_offset
from poolmgr.manager.descendants import Descendants
from poolmgr.manager.ears import Ears
from poolmgr.manager.handlers import all_handlers, declared_schedules, resolve
from poolmgr.manager.launch import Launched
from poolmgr.manager.lookups import LookUps
from poolmgr.manager.machine_memory import MachineMemory, MemoryWatch
from poolmgr.manager.maintenance import Maintenance
from poolmgr.manager.outbox import Port
from poolmgr.manager.performer import Performer
from poolmgr.manager.recent_ids import AHEAD_S
from poolmgr.manager.reloads import Reloads
from poolmgr.manager.shell import Shell
from poolmgr.manager.sweeper import Sweeper
from poolmgr.manager.system import become_subreaper
from poolmgr.manager.templates import Templates
from poolmgr.manager.timetable import Timetable
from poolmgr.manager.worker_watch import WorkerWatch
from poolmgr.model import TaskOptions, WorkerState, last_id_of
from poolmgr.parcels.parcel import Allowance
from poolmgr.store.base import Store, left_in
from poolmgr.store.writer import StoreWriter
from poolmgr.version import __version__, is_compiled

_log = logging.getLogger(__name__)

T = TypeVar("T")

_EXIT_PATIENCE_S = 1.0  # for idle workers to exit by themselves
_KILL_PATIENCE_S = 2.0  # for those that were killed
_STORE_PATIENCE_S = 10.0  # for the last commits


class Manager:
    """One pool, from ``start`` to ``stopped``.

    Args:
        settings: checked.
        store: open; used from here on by the manager's own thread alone, and closed by its owner.
        epoch: the number that opening the store has given.
        launched, order: the template that is coming up, and what it was told.
        read_settings: reads them anew, for a reload.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        epoch: int,
        launched: Launched,
        order: dict[str, Any],
        read_settings: Callable[[], Settings],
    ) -> None:
        self.epoch = epoch
        scheduler = Scheduler(
            settings,
            random=_random,
            balancer=load_balancer(settings.load_balancing),
            wall_offset=wall_offset(),
        )
        self.shell = Shell(settings, store, scheduler, self._wake)
        self.scheduler = scheduler
        self.timetable = Timetable()
        self._ears = Ears(self.shell)
        self.reloads = Reloads(self.shell, read_settings)
        self._performer = Performer(self.shell, self._ears, self.reloads.rolled)
        self._loop = self.shell.loop
        self.shell.writer = StoreWriter(store, self._store_says)
        ears = self._ears
        self.shell.templates = Templates(order, ears.spawned, ears.not_spawned, ears.unanswered, self._template_died)
        self._cgroup: str = order["cgroup"]
        self._first_template = self.shell.templates.start(launched, scheduler.state.generation)
        self._maintenance: Maintenance | None = None
        self._memory_watch: MemoryWatch | None = None
        self._flush_wanted = False
        self._closed = False  # the store takes nothing more
        self.look_ups = LookUps(self.shell, self.act)
        self._alarm = Alarm(self._loop, self._tick)
        self._last_client = 0
        self._last_token = 0
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._grace: asyncio.TimerHandle | None = None
        self._winding_up: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------------ life

    async def start(self) -> None:
        """Import the app, take over what earlier epochs left, fill the pool; returns when all workers are ready.

        Raises:
            AppError: the app cannot be imported; the message holds the traceback.
            StartFailed: a worker did not become ready; the message says why.
        """
        become_subreaper()
        self.shell.writer.start()
        wall_now = now() + self.scheduler.state.wall_offset
        newest = last_id_of(wall_now + AHEAD_S)
        reading = asyncio.wrap_future(self.shell.writer.read(lambda store: left_in(store, wall_now, newest)))
        app = await self._first_template.handlers
        self.shell.handlers = all_handlers(self.settings, app)
        declared = declared_schedules(app, time.time()) if self.shell.declares else {}
        left = await reading
        self.shell.recent_ids.begin(left.ids.last, left.ids.ahead)
        at = now()
        known = self.shell.handlers.__contains__
        self.scheduler.recovery.recover(left.in_hand, known, at, left.shelves, left.keys, left.streams)
        periodic = self.scheduler.periodic
        periodic.begin(left.schedules, self.timetable, self._options_of, at)
        periodic.declare(declared, at)
        self.scheduler.begin(at)
        self._maintenance = Maintenance(self.shell)
        self._memory_watch = MemoryWatch(self.shell, MachineMemory())
        shell = self.shell
        cgroups = make_cgroups(self._loop, self._cgroup)
        self._cgroup = cgroups.path if cgroups is not None else ""
        kin = Descendants(shell.processes, shell.templates, cgroups)
        shell.worker_watch = WorkerWatch(self._loop, self.scheduler, shell.processes, kin, cgroups, self._wake)
        shell.sweeper = Sweeper(self._loop, shell.processes, shell.dying, shell.templates, cgroups)
        self._wake()
        await self._ready

    def drain(self) -> None:
        """No new work; running tasks may finish, for ``graceful_shutdown_timeout_s``. Returns at once."""
        if not self.scheduler.state.shutting_down:
            self.scheduler.drain(now())
            self.reloads.stop()
            self._grace = self._loop.call_later(self.settings.graceful_shutdown_timeout_s, self.stop_now)
            self._wake()

    def stop_now(self) -> None:
        """End what runs. Safe to call twice, and before ``start`` has ended."""
        if not self._stopped.done():
            self.scheduler.stop_now(now())
            self.reloads.stop()
            self._wake()

    async def stopped(self) -> None:
        """Returns when the pool has been drained, its processes are gone and its last commit is made."""
        await asyncio.shield(self._stopped)

    def _stop(self) -> None:
        """Nothing runs any more."""
        if self._winding_up is None:
            self._winding_up = self._loop.create_task(self._wind_up())
            self._winding_up.add_done_callback(lambda _: self._stopped.set_result(None))

    async def _wind_up(self) -> None:
        """End the processes, then the store's thread. Meanwhile clients are served, and workers' last words heard."""
        shell = self.shell
        self.reloads.stop()
        if self._maintenance is not None:
            self._maintenance.stop()
            shell.sweeper.stop()
            shell.worker_watch.stop()
        if self._memory_watch is not None:
            self._memory_watch.stop()
        if self._grace is not None:
            self._grace.cancel()
        self.scheduler.state.emit("pool-shutdown", {})
        self._flush()
        for process in shell.processes.values():
            process.retire()
        await self._all_gone(_EXIT_PATIENCE_S)
        await shell.templates.close()  # the warden kills what is left
        if not await self._all_gone(_KILL_PATIENCE_S):
            left = [process.pid for process in (*shell.processes.values(), *shell.dying.values())]
            _log.error("these processes were killed and do not end: %s", left)
        self._flush()  # the ends of the last ones are kept, too
        self._closed = True
        self._alarm.cancel()
        if await self._loop.run_in_executor(None, shell.writer.close, _STORE_PATIENCE_S):
            self._release(self.scheduler.state.commit)
            self._performer.flush()
        else:
            _log.error("the store did not take the last commits: %s", shell.store_error or "it does not answer")

    async def _all_gone(self, patience_s: float) -> bool:
        """Whether every worker process has ended, after at most so long."""
        give_up_at = now() + patience_s
        while any(process.pid is not None for process in self.shell.processes.values()) or self.shell.dying:
            if now() > give_up_at:
                return False
            await asyncio.sleep(0.002)
        return True

    @property
    def settings(self) -> Settings:
        """Those that are in force: a reload changes some."""
        return self.shell.settings

    def _options_of(self, name: str, packed: bytes | None) -> TaskOptions:
        return resolve(self.shell.handlers, name, packed)

    def _template_died(self, generation: int, how: str) -> None:
        self.scheduler.state.emit("worker-error", {"worker_id": "template", "error": f"the template ended: {how}"})
        self.reloads.template_died(generation, how)
        self._wake()

    # ------------------------------------------------------------------------------------------ turns

    def _wake(self) -> None:
        if not self._flush_wanted:
            self._flush_wanted = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_wanted = False
        scheduler = self.scheduler
        performer = self._performer
        if self._closed:  # what is decided now can not be kept any more, so it is neither done nor told
            performer.flush()
            return
        at = now()
        while effects := scheduler.flush(at):
            performer.perform(effects)
        performer.flush()
        self._alarm.set(scheduler.next_wake(), at)
        if not self._ready.done():
            self._check_ready()
        if self.shell.drained and not self._stopped.done():
            self._loop.call_soon(self._stop)

    def _tick(self) -> None:
        self.scheduler.tick(now())
        self._flush()

    def _check_ready(self) -> None:
        slots = self.scheduler.state.slots.values()
        if self._ears.first_trouble is not None:
            self._ready.set_exception(StartFailed(self._ears.first_trouble))
        elif slots and all(slot.state not in (WorkerState.STARTING, WorkerState.STOPPED) for slot in slots):
            self._ready.set_result(None)

    # ------------------------------------------------------------------------------------------ the store

    def _store_says(self, number: int, error: BaseException | None) -> None:
        """In the store's thread."""
        try:
            self._loop.call_soon_threadsafe(self._committed, number, error)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    def _committed(self, number: int, error: BaseException | None) -> None:
        if error is not None:
            if self.shell.store_error is None:
                _log.error("the store refuses commit %d: %s", number, error)
            self.shell.store_error = str(error)
            self.shell.outbox.drop_starts()
            self.shell.backlog.store_refuses()
            self.scheduler.store_trouble.begins(str(error), number, now())
            self._wake()
            return
        if self.shell.store_error is not None:
            _log.info("the store takes commits again")
            self.shell.store_error = None
            self.scheduler.store_trouble.ends()
            self._wake()
        self._release(number)
        self._performer.flush()

    def _release(self, number: int) -> None:
        self._performer.perform(self.shell.outbox.release(number))

    async def read_store(self, function: Callable[[Store], T]) -> T:
        """See ``Shell.read_store``."""
        return await self.shell.read_store(function)

    # ------------------------------------------------------------------------------------------ clients

    def attach(self, port: Port) -> int:
        """A client has come: its number."""
        self._last_client += 1
        self.shell.ports[self._last_client] = port
        self.scheduler.intake.connected(self._last_client)
        return self._last_client

    def detach(self, client: int) -> None:
        """A client has gone."""
        self.shell.ports.pop(client, None)
        if self.shell.listeners.pop(client, None) is not None:
            self.scheduler.state.listening = bool(self.shell.listeners)
        self.scheduler.intake.disconnected(client, now())
        self._wake()

    def descriptors(self) -> Allowance:
        """For the payloads in files of one client: half of what there is for all."""
        most = self.shell.descriptors
        return Allowance(most.most // 2, most)

    def refused_to(self, client: int) -> None:
        """A refusal was sent to this client: let it go out with this turn."""
        self._performer.clients.sent_to(client)

    def listen(self, client: int) -> None:
        """This client wants events from now on."""
        self.shell.listeners[client] = self.shell.ports[client]
        self.scheduler.state.listening = True

    def token(self, client: int, request: int) -> int:
        """What the scheduler will answer a client's request by."""
        self._last_token += 1
        self.shell.answers[self._last_token] = (client, request)
        return self._last_token

    def told(self) -> None:
        """The scheduler was told something: let it act before this turn ends."""
        self._wake()

    def act(self) -> None:
        """Perform what has been decided so far. Until then, a task that has ended is on its way to the store."""
        self._flush()

    def overdue_s(self) -> float:
        """For how long the scheduler has had something to do that it has not done; 0.0 where it is in time."""
        return max(0.0, now() - self.scheduler.next_wake())

    def trouble(self) -> tuple[str, ...]:
        """What the shell has to complain of, in words for people."""
        error = self.shell.store_error
        told = [f"the store refuses to write: {error}"] if error is not None else []
        return (*told, *self.shell.templates.unforkable)

    def describe(self) -> dict[str, Any]:
        """What only the shell knows of the pool."""
        committed = self.shell.outbox.committed
        return {
            "version": __version__,
            "compiled": is_compiled(),
            "pid": os.getpid(),
            "epoch": self.epoch,
            "mode": self.settings.mode,
            "cgroup": self._cgroup or None,
            "memory_limits": self.shell.worker_watch.describe(),
            "store": {
                "commits": committed,
                "pending": self.scheduler.state.commit - 1 - committed,
                "error": self.shell.store_error,
            },
        }


def _random() -> float:
    """At least 0.0, and below 1.0. The module ``random`` has the same, and takes 0.1 MB of every daemon."""
    return (int.from_bytes(os.urandom(7), "big") >> 3) * 2.0**-53

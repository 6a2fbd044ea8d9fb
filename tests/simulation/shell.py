"""Stands in the place of the manager: performs the scheduler's effects in virtual time, and tells it what happens.

One shell is one life of the daemon. It keeps the contract of core/effects.py: effects are performed in their order; one
that names a commit waits for it; RECALL is written before the page is read; what a dead worker wrote is taken in before
its exit is told. It is late where a loop would be: several inputs may come before one flush, timers fire some time
after they are due, and where it is ``blocked`` everything waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from poolmgr.config import Settings
from poolmgr.core import effects as do
from poolmgr.core.balancer import BALANCERS, Affine
from poolmgr.core.changes import Change, ScheduleRecord, TaskRecord
from poolmgr.core.invariants import check_invariants
from poolmgr.core.measurements import RunTimes
from poolmgr.core.scheduler import Scheduler
from poolmgr.manager.timetable import Timetable
from poolmgr.post_mortem import PostMortem
from poolmgr.store.base import left_in
from poolmgr.store.memory import MemoryStore
from tests.simulation.disk import Disk
from tests.simulation.faults import Faults
from tests.simulation.growing import GrowthCheck
from tests.simulation.journal import Journal
from tests.simulation.lookups import LookUps
from tests.simulation.old_news import OldNews
from tests.simulation.oracle import Oracle
from tests.simulation.order import LATE_S, OrderCheck
from tests.simulation.punctuality import check_punctual
from tests.simulation.readers import Readers
from tests.simulation.rolling import RollCheck
from tests.simulation.streaming import Chunk
from tests.simulation.ticks import TickCheck, options_of
from tests.simulation.tripping import BreakerCheck
from tests.simulation.workers import Done, Garbage, Message, Process, Raised, Ready, Recalled, Released, Report, Worn
from tests.simulation.world import World

HEARTBEAT_S: Final = 2.0


class Shell:
    """The scheduler and what it decides over, from the daemon's start to its end."""

    def __init__(
        self,
        world: World,
        journal: Journal,
        faults: Faults,
        disk: Disk,
        oracle: Oracle,
        readers: Readers,
        ticks: TickCheck,
        settings: Settings,
        window: tuple[int, int],
        over: Callable[[str], None],
    ) -> None:
        self.world = world
        self.disk = disk
        self.oracle = oracle
        self.readers = readers
        self.ticks = ticks
        self.settings = settings
        self.alive = True
        self.drained = False
        self.steps = 0
        self.processes: dict[str, Process] = {}
        self.undead: list[Process] = []  # given up as stuck, or forgotten, and not dead yet
        self.memory = MemoryStore()
        self.memory.open()
        balancer = Affine(BALANCERS[settings.load_balancing]())
        self.scheduler = Scheduler(
            settings,
            random=world.random.random,
            balancer=balancer,
            wall_offset=world.wall_offset,
            window=window[0],
            window_bytes=window[1],
        )
        streams = self.scheduler.streams
        self.scheduler.preemption.is_resumable = lambda task: (
            task.name in ("work", "long") or streams.is_resumable(task)
        )
        self.look_ups = LookUps(self)
        self.order = OrderCheck(self.scheduler)
        self.rolling = RollCheck(self.scheduler)
        self.tripping = BreakerCheck(self.scheduler)
        self.growing = GrowthCheck(self.scheduler)
        self._journal = journal
        self._faults = faults
        self._over = over
        self._committed = 0
        self._held: list[do.Effect] = []
        self._broken: set[int] = set()  # the pids of those that babbled: their pipes are read no further
        self._past = OldNews(self.scheduler)
        self._next_pid = 0
        self._memory_used = 30.0
        self._made: set[tuple[str, int]] = set()
        self._blocked_until = 0.0
        self._timer_at = float("inf")
        self._flush_at = float("inf")
        self._told_at = float("inf")  # when the first input since the last flush came
        self._soon: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._performers: dict[type, Callable[[Any], None]] = {
            do.Persist: self._persist, do.Refill: self._refill, do.Start: self._start,
            do.Look: self._look, do.Recall: self._recall,
            do.Interrupt: self._interrupt, do.Inspect: self._inspect, do.Continue: self._continue,
            do.Cap: self._cap, do.Weigh: self._weigh, do.Measure: self._measure_worker, do.GiveBack: self._nothing,
            do.Kill: self._kill, do.Spawn: self._spawn, do.Retire: self._retire, do.Forget: self._forget,
            do.Accepted: oracle.accepted, do.Finished: oracle.finished, do.Same: self._nothing,
            do.Credit: self._credit, do.Streamed: self._streamed, do.Progressed: self._nothing,
            do.Answer: oracle.answered, do.Refusal: oracle.refused, do.Emit: self._nothing,
            do.Reloaded: self._reloaded, do.Drained: self._drained, do.Trim: self._nothing,
        }  # fmt: skip

    # ------------------------------------------------------------------------------------------ turns

    def hear(self, action: Callable[..., None], *arguments: Any) -> None:
        """Something reaches the loop: ``action`` tells the scheduler of it, now or once the loop is free again."""
        if not self.alive:
            return
        now = self.world.now
        if now < self._blocked_until:
            self.world.at(self._blocked_until, self.hear, action, *arguments)
            return
        if self._faults.strikes("daemon-death"):
            self.die("anywhere")
            return
        action(*arguments)
        if self._faults.strikes("late-message"):
            self._past.repeat(self.tell, self.world)
        self._end_turn()
        if self._faults.strikes("blocked"):
            self._blocked_until = self.oracle.unblocked_at = now + self.world.between(0.05, 12.0)

    def tell(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a method of the scheduler, and log it."""
        self._journal.input(self.world.now, method, (*arguments, *named.items()))
        self._told_at = min(self._told_at, self.world.now)
        return method(*arguments, **named)

    def _end_turn(self) -> None:
        self.steps += 1
        if self.settings.max_queue_depth or self.world.chance(0.8):
            self._flush()
        elif self._flush_at > self.world.now:
            self._flush_at = self.world.now + 0.0001
            self.world.at(self._flush_at, self._late_flush)
        if self.alive:
            check_invariants(self.scheduler)
            check_punctual(self.scheduler.state, self.processes.values(), self.world.now, self.oracle.unblocked_at)
            self.ticks.check_punctual(self.scheduler, self.oracle.unblocked_at)

    def act(self) -> None:
        """Perform what has been decided so far."""
        self._flush()

    def _late_flush(self) -> None:
        if self.world.now < self._blocked_until:
            self.world.at(self._blocked_until, self._late_flush)
        elif self.alive and self.world.now >= self._flush_at:
            self._flush()

    def _flush(self) -> None:
        now = self.world.now
        self._flush_at = float("inf")
        told_at, self._told_at = min(self._told_at, now), float("inf")
        while self.alive and (decided := self.scheduler.flush(now)):
            for effect in decided:
                self._journal.effect(now, effect)
            effects = do.one_by_one(decided)
            self.ticks.decided(effects, told_at)
            self.oracle.decided(effects, told_at, now)
            self.tripping.decided(effects, told_at, now)
            self.growing.decided(effects)
            starts = [effect for effect in effects if isinstance(effect, do.Start)]
            self.order.check(starts, now, now < self.oracle.unblocked_at + LATE_S)
            for effect in effects:
                self._perform(effect)
            soon, self._soon = self._soon, []
            for method, arguments in soon:
                self.tell(method, *arguments)
        if self.alive:
            self.rolling.check(now)
            self._arm()

    def _arm(self) -> None:
        wake_at = self.scheduler.next_wake()
        if wake_at < self._timer_at:
            self._timer_at = max(wake_at, self.world.now) + self.world.between(0.00001, 0.002)
            self.world.at(self._timer_at, self._timer, self._timer_at)

    def _timer(self, armed_for: float) -> None:
        if armed_for == self._timer_at:
            self.hear(self._tick)

    def _tick(self) -> None:
        self._timer_at = float("inf")
        if self.settings.autoscale and self.world.chance(0.5):
            cpu_percent = self.world.random.choice((10.0, 50.0, 95.0))
            self.tell(self.scheduler.autoscaler.machine, cpu_percent, self.world.now)
        self.tell(self.scheduler.tick, self.world.now)

    @property
    def busy(self) -> bool:
        """A task has not ended, wherever it is."""
        return bool(self.scheduler.state.tasks or self.scheduler.state.waiting)

    @property
    def quiet(self) -> bool:
        """Nothing that was decided waits to be performed."""
        return not self._held and self._flush_at == float("inf")

    # ------------------------------------------------------------------------------------------ life and death

    def begin(self, known: Callable[[str], bool]) -> None:
        """Open the store, take over what is in it, fill the pool."""
        now = self.world.now
        epoch = self.disk.begin(
            lambda number: self.hear(self._commit_done, number),
            lambda number, why: self.hear(self._commit_refused, number, why),
            self._applied,
            self._dies,
        )
        self._journal.note(now, f"epoch {epoch} begins")
        self.oracle.begin(self.scheduler)
        self.scheduler.state.listening = self.world.chance(0.5)
        for name in ("quick", "blink"):
            if self.world.chance(0.8):  # as if many had run, so that their like are prefetched
                times = self.scheduler.state.statistics.by_name[name] = RunTimes()
                for _ in range(16):
                    times.add([0.0001])
        left = left_in(self.disk.store, now + self.world.wall_offset, b"")
        self._known = known
        self.tell(self.scheduler.recovery.recover, left.in_hand, known, now, left.shelves, left.keys, left.streams)
        self.tell(self._begin_schedules, self.ticks.begin(self.disk.store), now)
        self.order.limits_may_have_changed()
        self.tell(self.scheduler.begin, now)
        self._flush()
        self.oracle.recovered(left)
        self._measure()

    def _measure(self) -> None:
        """The machine's memory: as it was, or by chance another use of it."""
        if not self.alive:
            return
        pause_s = 20.0 if self._faults.strikes("memory-unmeasured") else self.world.between(0.2, 1.0)
        self.world.after(pause_s, self._measure)
        if self._faults.strikes("memory-rises"):
            self._memory_used = self.world.random.choice((60.0, 76.0, 88.0, 97.0))
        elif self.world.chance(0.3) or self._faults.calm:
            self._memory_used = 30.0
        self.hear(self._measured, 30.0 if self._faults.strikes("memory-stalls") else 0.0)

    def _measured(self, stalled: float) -> None:
        self.tell(self.scheduler.pressure.measured, self._memory_used, stalled, self.world.now)

    def _begin_schedules(self, records: list[ScheduleRecord], now: float) -> None:
        self.ticks.moved_at = now
        self.scheduler.periodic.begin(
            records, Timetable(), lambda name, packed: options_of(name, packed, self._known("dropped")), now
        )

    def _applied(self, changes: Sequence[Change]) -> None:
        self.ticks.applied(changes)
        self.oracle.applied(changes)

    def _reloaded(self, effect: do.Reloaded) -> None:
        if not effect.failure:
            self._known = self._known_next
        self.rolling.ended(effect)

    def roll_began(self, known: Callable[[str], bool]) -> None:
        """To an app that has these tasks."""
        self._known_next = known
        self.rolling.began(known)

    def _dies(self) -> None:
        self.die("at a commit")

    def die(self, how: str) -> None:
        """kill -9: what was in memory is gone, and so are all workers."""
        if self.alive:
            self.alive = False
            self._journal.note(self.world.now, f"the daemon is gone: {how}")
            for process in [*self.processes.values(), *self.undead]:
                process.vanish()
            self.disk.crash()
            self._over(how)

    def drain(self) -> None:
        """As SIGTERM does."""
        self.tell(self.scheduler.drain, self.world.now)
        self.world.after(self.settings.graceful_shutdown_timeout_s, self.hear, self.stop_now)

    def stop_now(self) -> None:
        """As a second SIGTERM does, or the end of the grace."""
        self.tell(self.scheduler.stop_now, self.world.now)

    def _drained(self, effect: do.Drained) -> None:
        assert not any(slot.in_flight for slot in self.scheduler.state.slots.values())
        self.drained = True
        self._leave()

    def _leave(self) -> None:
        """Once the last commit is made, go."""
        if self.disk.idle and not self._held:
            assert not self.oracle.asked, f"it went, and never answered {self.oracle.asked}"
            assert not self.oracle.waiters, "it went, and left some waiting for room"
            assert all(task.options.durable for task in self.scheduler.state.tasks.values())
            self.disk.close()
            self.die("drained")
        elif self.alive:
            self.world.after(0.01, self._leave)

    # ------------------------------------------------------------------------------------------ workers say

    def readable(self, process: Process) -> None:
        """Its result pipe has something to read."""
        self.world.after(self.world.between(0.000005, 0.002), self.hear, self._read, process)

    def beats(self, process: Process) -> None:
        """Its heart has beaten."""
        self.world.after(0.00002, self.hear, self._heartbeat, process)

    def ended(self, process: Process) -> None:
        """It is dead."""
        self.world.after(self.world.between(0.00005, 0.01), self.hear, self._reap, process)

    def begins(self, process: Process, start: do.Start) -> None:
        """It begins a task."""
        self._journal.note(self.world.now, f"{process.worker}.{process.incarnation} begins {start.fence}")
        self.ticks.begins(start.task_id)
        self.oracle.begins(process, start)

    def leaves(self, process: Process, start: do.Start) -> None:
        """It has ended a task."""
        self.oracle.leaves(start)

    def cut_short(self, start: do.Start) -> None:
        """It was told to end a task early."""
        self.readers.cut.add(start.task_id)

    def _heartbeat(self, process: Process) -> None:
        self._told(self.scheduler.heartbeat, process.worker, process.incarnation)

    def _told(self, method: Callable[..., Any], *arguments: Any) -> None:
        self._past.remember(method, arguments)
        self.tell(method, *arguments, self.world.now)

    def _read(self, process: Process) -> None:
        """Everything that it has sent; results that follow one another are told together."""
        while process.outbox and process.pid not in self._broken:
            if type(process.outbox[0]) is Done:
                self._told(self.scheduler.attempts_done, process.worker, _results(process.outbox))
            else:
                self._take(process, process.outbox.popleft())

    def _take(self, process: Process, message: Message) -> None:
        scheduler = self.scheduler
        worker, incarnation = process.worker, process.incarnation
        match message:
            case Raised():
                slot = scheduler.state.slots.get(worker)
                if slot is not None and slot.in_flight and slot.in_flight[0].fence == message.fence:
                    self.oracle.raised(slot.in_flight[0].id, message)
                self._told(scheduler.attempt_failed, worker, *message)
            case Released():
                self._told(scheduler.released, worker, *message)
            case Recalled():
                self._told(scheduler.recalled, worker, incarnation, message.fences)
            case Report():
                self.tell(scheduler.progressed, worker, *message)
            case Chunk():
                self.tell(scheduler.streams.chunk, worker, *message, self.world.now)
            case Ready():
                self._told(scheduler.worker_ready, worker, incarnation, message.capabilities)
            case Worn():
                self._told(scheduler.worker_worn, worker, incarnation, "worn")
            case Garbage():
                self._broken.add(process.pid)
                self._told(scheduler.worker_broken, worker, incarnation, message.error)

    def _reap(self, process: Process) -> None:
        self._read(process)
        if process in self.undead:
            self.undead.remove(process)
        elif self.processes.get(process.worker) is process:
            del self.processes[process.worker]
        state = self.scheduler.state
        slot = state.slots.get(process.worker)
        held: dict[int, bytes] = {}  # what stands in its line: fence -> task
        chargeable: set[int] = set()  # where nothing else explains a death
        if slot is not None and slot.incarnation == process.incarnation:
            held = {task.fence: task.id for task in slot.in_flight}
        if slot is not None and held and (slot.doomed or ("broken",))[0] == "broken":
            chargeable = {task.fence for task in slot.in_flight if not task.past.cancel_wanted}
        before = len(state.effects)
        end = (process.worker, process.incarnation, process.how, *process.page)
        self._past.remember(self.scheduler.worker_exited, end)
        self.tell(self.scheduler.worker_exited, *end, self.world.now, PostMortem(output="{}.{}".format(*end)))
        self.oracle.charged(process, process.pid in self._broken, held, chargeable, state.effects[before:])

    # ------------------------------------------------------------------------------------------ performing

    def _perform(self, effect: do.Effect) -> None:
        if getattr(effect, "commit", 0) > self._committed:
            self._held.append(effect)
        elif self.alive:
            self._performers[type(effect)](effect)

    def _commit_done(self, number: int) -> None:
        assert number > self._committed
        self._committed = number
        held, self._held = self._held, []
        for effect in held:
            self._perform(effect)
        if self.scheduler.state.store_trouble:
            self.tell(self.scheduler.store_trouble.ends)

    def _commit_refused(self, number: int, why: str) -> None:
        self._held = [effect for effect in self._held if not isinstance(effect, do.Start)]
        self.tell(self.scheduler.store_trouble.begins, why, number, self.world.now)

    def _nothing(self, effect: do.Effect) -> None:
        pass

    def _persist(self, effect: do.Persist) -> None:
        if effect.durable:
            self.disk.persist(effect)
        else:
            assert effect.number == 0
            self.memory.apply(effect.changes)

    def _refill(self, effect: do.Refill) -> None:
        number, line, after, limit, size = effect
        if self._faults.strikes("read-refused"):
            self.world.after(1.0, self.hear, self._not_loaded, number)
            return
        self.disk.read(lambda: self._refilled(effect, self.disk.store.shelf(line, after, limit, size)))

    def _refilled(self, effect: do.Refill, records: list[TaskRecord]) -> None:
        self.world.after(self.world.between(0.0, 0.005), self.hear, self._loaded, effect.number, records)

    def _loaded(self, number: int, records: list[TaskRecord]) -> None:
        self.tell(self.scheduler.recovery.loaded, number, records, self.world.now)
        self.order.limits_may_have_changed()

    def _not_loaded(self, number: int) -> None:
        self.tell(self.scheduler.recovery.not_loaded, number)

    def _current(self, worker: str, incarnation: int) -> Process | None:
        process = self.processes.get(worker)
        return process if process is not None and process.incarnation == incarnation else None

    def _start(self, effect: do.Start) -> None:
        process = self._current(effect.worker, effect.incarnation)
        if process is not None:
            process.send(effect)

    def _credit(self, effect: do.Credit) -> None:
        process = self._current(effect.worker, effect.incarnation)
        if process is not None:
            process.credit(*effect[2:])

    def _streamed(self, effect: do.Streamed) -> None:
        self.tell(self.scheduler.streams.committed, *effect, self.world.now)
        self.readers.woken(effect.task_id)

    def _look(self, effect: do.Look) -> None:
        process = self._current(*effect)
        if process is not None:
            self._read(process)
            self._soon.append((self.scheduler.page_seen, (*effect, *process.page, self.world.now)))

    def _recall(self, effect: do.Recall) -> None:
        process = self._current(effect.worker, effect.incarnation)
        if process is not None:
            process.recall(effect.fence)
            arguments = (effect.worker, effect.incarnation, process.page[0], self.world.now)
            self._soon.append((self.scheduler.recall_sent, arguments))

    def _interrupt(self, effect: do.Interrupt) -> None:
        process = self._current(effect.worker, effect.incarnation)
        if process is not None:
            process.interrupt(effect.fence, effect.reason)

    def _inspect(self, effect: do.Inspect) -> None:
        self.world.after(0.1, self.hear, self._inspect_again, effect)

    def _inspect_again(self, effect: do.Inspect) -> None:
        process = self._current(*effect)
        if process is not None:
            self._told(self.scheduler.inspected, effect.worker, effect.incarnation, process.verdict)

    def _continue(self, effect: do.Continue) -> None:
        process = self._current(*effect)
        if process is not None:
            process.resume()

    def _kill(self, effect: do.Kill) -> None:
        process = self._current(effect.worker, effect.incarnation)
        if process is not None:
            healthy = not process.frozen and self.world.now > process.thawed_at + 1.0
            assert effect.reason != "hung" or not healthy, f"{effect.worker} is well, and is killed as hung"
            fence = (self.scheduler.state.slots[effect.worker].doomed or ("", 0))[1]
            unread = any(isinstance(each, Done) and each.fence == fence for each in process.outbox)
            # What has taken too much may end while that is found out: its result counts, and it is replaced anyway.
            late = unread and effect.reason not in ("hung", "out_of_memory")
            assert not late, f"{effect.worker} is killed for what it has done already"
            process.kill(effect.reason, effect.grace_s)

    def _cap(self, effect: do.Cap) -> None:
        process = self._current(effect.worker, effect.incarnation)
        if process is not None:
            process.cap_mb = effect.limit_mb

    def sample(self, process: Process, used_mb: float) -> None:
        """Its memory was looked at."""
        self.world.after(0.00002, self.hear, self._sampled, process, used_mb)

    def _sampled(self, process: Process, used_mb: float) -> None:
        self._told(self.scheduler.memory_limits.sampled, process.worker, process.incarnation, used_mb)

    def _weigh(self, effect: do.Weigh) -> None:
        self.world.after(self.world.between(0.0001, 0.02), self.hear, self._weighed, effect)

    def _weighed(self, effect: do.Weigh) -> None:
        process = self._current(effect.worker, effect.incarnation)
        if process is not None:
            self._read(process)
            self._told(self.scheduler.memory_limits.weighed, *effect, process.weight_mb)

    def _measure_worker(self, effect: do.Measure) -> None:
        process = self._current(*effect)
        if process is not None:
            over = self._faults.strikes("over-at-rest")
            arguments = (*effect, 1000.0 if over else 10.0, self.world.now)
            self._soon.append((self.scheduler.memory_limits.measured, arguments))

    def _spawn(self, effect: do.Spawn) -> None:
        self._give_up(effect.worker)
        assert (effect.worker, effect.incarnation) not in self._made, f"{effect} was made before"
        self._made.add((effect.worker, effect.incarnation))
        self._next_pid += 1
        process = Process(self.world, self._faults, self, effect.worker, effect.incarnation, self._next_pid)
        self.processes[effect.worker] = process
        if self._faults.strikes("spawn-failure"):
            process.alive = False
            process.how = "it could not be forked"
            self.ended(process)
        else:
            slot = self.scheduler.state.slots.get(effect.worker)
            on_trial = slot is not None and slot.leaving and effect.generation > self.scheduler.state.generation
            self.world.after(self.world.between(0.0005, 0.005), self.hear, self._spawned, process, on_trial)

    def _spawned(self, process: Process, on_trial: bool) -> None:
        self.tell(self.scheduler.worker_spawned, process.worker, process.incarnation, process.pid)
        if process.alive:
            process.begin(HEARTBEAT_S, on_trial)

    def _retire(self, effect: do.Retire) -> None:
        process = self._current(*effect)
        if process is not None:
            process.close_tasks()

    def _forget(self, effect: do.Forget) -> None:
        self._give_up(effect.worker)

    def _give_up(self, worker: str) -> None:
        process = self.processes.pop(worker, None)
        if process is not None and process.alive:
            self.undead.append(process)


def _results(outbox: deque[Message]) -> list[Done]:
    """The results that lead an outbox, taken out of it."""
    results: list[Done] = []
    while outbox and isinstance(first := outbox[0], Done):
        results.append(first)
        outbox.popleft()
    return results

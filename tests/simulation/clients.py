"""Modelled clients and operators: what they ask of the daemon, in no sensible order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from poolmgr.config.groups import REST
from poolmgr.core.changes import TaskRecord, TasksPurged
from poolmgr.core.room import Asked
from poolmgr.errors import PoolError
from poolmgr.model import TaskState, WorkerState
from poolmgr.payload import inline
from poolmgr.schedule import MISSED
from tests.simulation.drafts import Draft, Drafter
from tests.simulation.faults import Faults
from tests.simulation.oracle import Oracle
from tests.simulation.readers import Readers
from tests.simulation.shell import Shell
from tests.simulation.ticks import NAMES, OPTIONS, TIMINGS
from tests.simulation.world import World

_WAITS_S: Final = (0.0, 0.05, 2.0, None)  # for room
_KEPT: Final = 40  # the tasks that clients still think of
_CATCHES_UP_WITHIN_S: Final = 150.0  # a schedule of ten ticks a second is over a thousand behind by then


class Clients:
    """Everybody outside of the daemon. ``shell`` is the life that they talk to, None while there is none."""

    def __init__(self, world: World, faults: Faults, oracle: Oracle, readers: Readers, acts: int) -> None:
        self.shell: Shell | None = None
        self.acts_left = acts
        self._world = world
        self._faults = faults
        self._oracle = oracle
        self._readers = readers
        self._drafter = Drafter(world)
        self._pace_s = world.random.choice((0.005, 0.05, 0.4))
        self._connected: list[int] = []
        self._last_client = 0
        self._last_token = 0
        self._drafts: list[Draft] = []
        self._actions: list[Callable[[Shell], None]] = []
        weights: dict[Callable[[Shell], None], int] = {
            self._submit: 50, self._burst: 4, self._resend: 4, self._conflict: 2, self._cancel: 7, self._kill: 4,
            self._preempt: 8, self._watch: 4, self._read: 6, self._connect: 2, self._disconnect: 1, self._pause: 2,
            self._resume: 3,
            self._scale: 2,
            self._start_worker: 1, self._stop_worker: 2, self._clear: 1, self._requeue: 4, self._purge: 1,
            self._reload: 2, self._schedule: 4, self._unschedule: 2, self._pause_schedule: 1, self._resume_schedule: 2,
            self._reset_breaker: 1, self._wait_for_room: 4,
        }  # fmt: skip
        for action, weight in weights.items():
            self._actions += [action] * weight
        self._tended: dict[str, tuple[float, float]] = {}  # schedules: when first, and up to where they had come
        self._ending = world.random.choice((None, None, None, None, "drain", "stop_now"))

    def begin(self, shell: Shell) -> None:
        """A daemon is there: connect."""
        self.shell = shell
        self._connected = []
        for _ in range(2):
            shell.hear(self._connect, shell)

    def gone(self) -> None:
        """The daemon is gone, and with it all connections."""
        self.shell = None
        self._connected = []

    def act(self) -> None:
        """Do one thing, and arrange for the next."""
        self.acts_left -= 1
        if self._faults.strikes("clock-jump"):
            self._world.wall_offset += self._world.random.choice((-60.0, -2.0, 1.0, 60.0))
            self._let(self._clock_changed)
        if self._faults.strikes("client-loss"):
            self._let(self._disconnect)
        action = self._world.random.choice(self._actions)
        if self._ending is not None and self._world.chance(0.02):
            action = self._drain if self._ending == "drain" else self._stop_now
            self._ending = None
        self._let(action)
        if self.acts_left > 0:
            self._world.after(self._world.random.expovariate(1.0 / self._pace_s), self.act)

    def _let(self, action: Callable[[Shell], None]) -> None:
        if self.shell is not None:
            self.shell.hear(action, self.shell)

    # ------------------------------------------------------------------------------------------ connections

    def _connect(self, shell: Shell) -> None:
        if len(self._connected) < 4:
            self._last_client += 1
            self._connected.append(self._last_client)
            self._oracle.connected(self._last_client)
            shell.tell(shell.scheduler.intake.connected, self._last_client)

    def _disconnect(self, shell: Shell) -> None:
        if self._connected:
            client = self._connected.pop(self._world.random.randrange(len(self._connected)))
            self._oracle.disconnected(client)
            shell.tell(shell.scheduler.intake.disconnected, client, self._world.now)
            self._oracle.unwanted()
        self._connect(shell)

    def _client(self) -> int:
        return self._world.random.choice(self._connected) if self._connected else 0

    # ------------------------------------------------------------------------------------------ submits

    def _submit(self, shell: Shell) -> None:
        self._send(shell, self._client(), self._keep(self._drafter.draft()))

    def _keep(self, draft: Draft) -> Draft:
        self._drafts.append(draft)
        if len(self._drafts) > _KEPT:
            self._drafts.pop(0)
        return draft

    def _wait_for_room(self, shell: Shell) -> None:
        """For some tasks of one name; and some think better of it."""
        client, random = self._client(), self._world.random
        if not client:
            return
        self._last_token += 1
        token, draft, room = self._last_token, self._drafter.draft(), shell.scheduler.intake.room
        asked, places, timeout_s = Asked(client, token, token), random.randrange(1, 12), random.choice(_WAITS_S)
        try:
            shell.tell(room.admit, client, token)
        except PoolError:
            return

        def given(count: int) -> None:
            if count:
                self._world.after(self._world.between(0.0, 6.0), self._let, submit_those)

        def submit_those(later: Shell) -> None:
            if later is shell and client in self._connected:
                for _ in range(random.randrange(1, places + 1)):  # perhaps more than there was room for
                    other = self._drafter.draft(draft.name)
                    has_place = later.tell(room.use, client, other.name)
                    self._send(later, client, self._keep(other), has_place=has_place)

        def withdraw(later: Shell) -> None:
            if later is shell and client in self._connected:
                later.tell(room.withdraw, client, token)

        self._oracle.waiters.ask(token, places, given)
        shell.tell(room.ask, asked, draft.name, draft.options, places, timeout_s, self._world.now)
        if self._world.chance(0.2):
            self._world.after(self._world.between(0.0, 2.0), self._let, withdraw)

    def _send(self, shell: Shell, client: int, draft: Draft, *, has_place: bool = False) -> None:
        watch = bool(client) and self._world.chance(0.7)
        self._oracle.submitting(client, *draft)
        refused = False
        try:
            if has_place:
                shell.tell(shell.scheduler.intake.submit, self._world.now, *draft, client, watch, has_place=True)
            elif not (client % 2 and self._send_as_one_of_many(shell, client, draft, watch)):
                shell.tell(shell.scheduler.intake.submit, self._world.now, *draft, client, watch)
        except PoolError:
            refused = True
        shell.order.limits_may_have_changed()
        self._oracle.submitted(client, draft.id, watch, refused, self._world.now)
        if draft.name == "stream" and client and not refused and self._world.chance(0.6):
            self._readers.attach(draft.id, client)

    def _read(self, shell: Shell) -> None:
        """A stream, from its beginning; it may have another reader, or have ended."""
        client = self._client()
        known = [draft.id for draft in self._drafts if draft.name == "stream" and draft.id in self._oracle.tasks]
        if client and known:
            self._readers.attach(self._world.random.choice(known), client)

    def _send_as_one_of_many(self, shell: Shell, client: int, draft: Draft, watch: bool) -> bool:
        """How every other client submits; false where it is to be done in the other way."""
        id, name, payload, options = draft
        taken: bool = shell.tell(
            shell.scheduler.intake.submit_many, self._world.now, [id], name, [payload], options, client, watch
        )
        return taken

    def _burst(self, shell: Shell) -> None:
        """Many short tasks at once: more than there are workers, so that they are prefetched."""
        client = self._client()
        name = self._world.random.choice(("quick", "blink"))
        durable = self._world.chance(0.5)
        drafts = [
            self._drafter.draft(name, durable=durable, requires=frozenset())
            for _ in range(self._world.random.randrange(8, 40))
        ]
        for draft in drafts:
            as_all = client % 4 == 3  # those of one ``map`` have the same options
            self._send(shell, client, self._keep(draft._replace(options=drafts[0].options) if as_all else draft))
        disturbance = self._world.random.choice((self._cancel, self._kill, self._stop_worker, self._scale, self._clear))
        for _ in range(self._world.random.choice((0, 1, 4))):  # while they are on their way
            self._world.after(self._world.between(0.0, 0.003), self._let, disturbance)

    def _resend(self, shell: Shell) -> None:
        """After a lost connection clients send what was not acknowledged once more; here, anything durable."""
        durable = [draft for draft in self._drafts if draft.options.durable]
        if durable:
            self._again(shell, self._world.random.choice(durable))

    def _conflict(self, shell: Shell) -> None:
        durable = [draft for draft in self._drafts if draft.options.durable]
        if durable:
            self._again(shell, self._world.random.choice(durable)._replace(payload=b"other content"))

    def _again(self, shell: Shell, draft: Draft) -> None:
        """An id that may be known: where no live task has it, the store is asked first."""
        shell.look_ups.find(draft.id, lambda record: self._send_again(shell, draft, record))

    def _send_again(self, shell: Shell, draft: Draft, final: TaskRecord | None) -> None:
        strangers = [client for client in self._connected if not self._oracle.has_sent(client, draft.id)]
        if not strangers:
            return
        client = self._world.random.choice(strangers)
        if final is not None:
            self._oracle.submitting(client, *draft)
            try:
                shell.tell(shell.scheduler.intake.known, final, draft.name, draft.payload, client, False)
            except PoolError:
                assert draft.payload != final.payload
                self._oracle.submitted(client, draft.id, False, True, self._world.now)
        elif draft.id in shell.scheduler.state.tasks or self._oracle.may_be_new(draft.id, draft.payload):
            self._send(shell, client, draft)

    # ------------------------------------------------------------------------------------------ requests

    def _cancel(self, shell: Shell) -> None:
        self._ask_to_cancel(shell, kill=False)

    def _kill(self, shell: Shell) -> None:
        self._ask_to_cancel(shell, kill=True)

    def _ask_to_cancel(self, shell: Shell, kill: bool) -> None:
        if self._drafts:
            id = self._world.random.choice(self._drafts).id
            self._with(shell, id, lambda: self._cancel_it(shell, id, kill))

    def _cancel_it(self, shell: Shell, id: bytes, kill: bool) -> None:
        self._last_token += 1
        self._oracle.asks(self._last_token, id, kill)
        try:
            shell.tell(shell.scheduler.intake.cancel, id, kill, self._last_token, self._world.now)
        except PoolError:
            del self._oracle.asked[self._last_token]
        self._oracle.unwanted()

    def _preempt(self, shell: Shell) -> None:
        """As a rule, what runs."""
        live = shell.scheduler.state.tasks.values()
        ids = [task.id for task in live if task.slot is not None] or [draft.id for draft in self._drafts]
        if ids:
            self._try(shell, shell.scheduler.preemption.ask, self._world.random.choice(ids), self._world.now)

    def _with(self, shell: Shell, id: bytes, act: Callable[[], None]) -> None:
        """With the task in memory, if it is live."""
        if id in shell.scheduler.state.tasks:
            act()
        else:
            shell.look_ups.find(id, lambda _: act())

    def _watch(self, shell: Shell) -> None:
        client = self._client()
        if self._drafts and client:
            id = self._world.random.choice(self._drafts).id
            self._with(shell, id, lambda: self._watch_it(shell, id, client))

    def _watch_it(self, shell: Shell, id: bytes, client: int) -> None:
        if client not in self._connected or self._oracle.first(client, id).id != id:
            return  # it has gone; or to this client the id means another task, and has had its answer
        if shell.tell(shell.scheduler.intake.watch, id, client):
            self._oracle.watching.setdefault((client, id), 0)

    def _pause(self, shell: Shell) -> None:
        shell.tell(shell.scheduler.intake.pause, self._world.random.choice(("quick", "work", "limited")))

    def _resume(self, shell: Shell) -> None:
        shell.tell(shell.scheduler.intake.resume, self._world.random.choice(("quick", "work", "limited")))

    def _reset_breaker(self, shell: Shell) -> None:
        names = list(shell.scheduler.state.breakers)
        if names:
            shell.tell(shell.scheduler.breakers.reset, self._world.random.choice(names))

    def _scale(self, shell: Shell) -> None:
        random = self._world.random
        size, group = random.randrange(0, 10), random.choice([None, *shell.scheduler.state.groups])
        self._try(shell, shell.scheduler.supervisor.scale, size, self._world.now, group)

    def _start_worker(self, shell: Shell) -> None:
        group = self._world.random.choice(list(shell.scheduler.state.groups))
        self._try(shell, shell.scheduler.start_worker, self._world.now, group)

    def _stop_worker(self, shell: Shell) -> None:
        if shell.scheduler.supervisor.size() > 1:
            self._try(shell, shell.scheduler.stop_worker, f"worker-{self._world.random.randrange(8)}", self._world.now)

    def _try(self, shell: Shell, method: Callable[..., object], *arguments: object) -> None:
        if not shell.scheduler.state.shutting_down:
            try:
                shell.tell(method, *arguments)
            except PoolError:
                pass

    def _clear(self, shell: Shell) -> None:
        shell.tell(shell.scheduler.intake.clear, self._world.now)

    def _requeue(self, shell: Shell) -> None:
        """Dead tasks are looked up in the store, or among those that were not durable."""
        shell.disk.read(lambda: shell.hear(self._requeue_one, shell))

    def _requeue_one(self, shell: Shell) -> None:
        for store in (shell.disk.store, shell.memory):
            for info in store.tasks(state=TaskState.DEAD, limit=5):
                record = store.record(bytes.fromhex(info.id))
                if info.requeued_as is None and record is not None:
                    new_id = self._drafter.new_id()
                    self._oracle.submitting(0, new_id, record.name, inline(record.payload), record.options)
                    try:
                        shell.tell(shell.scheduler.intake.requeue, [(record, new_id)], self._world.now)
                    except PoolError:
                        pass
                    shell.order.limits_may_have_changed()
                    return

    def _purge(self, shell: Shell) -> None:
        """Forget some of the dead."""
        shell.disk.read(lambda: shell.hear(self._purge_some, shell))

    def _purge_some(self, shell: Shell) -> None:
        ids = tuple(bytes.fromhex(info.id) for info in shell.disk.store.tasks(state=TaskState.DEAD, limit=3))
        if ids:
            shell.tell(shell.scheduler.state.fact, TasksPurged(ids), True)

    # ------------------------------------------------------------------------------------------ schedules

    def _schedule(self, shell: Shell) -> None:
        """A new one, or the same again, or another of its id."""
        one = self._world.random.choice
        name, timing = one(NAMES), one(TIMINGS)._replace(missed=one(MISSED))
        shell.ticks.moved_at = self._world.now
        payload, options = one((b"one", b"other")), one(list(OPTIONS))
        shell.tell(shell.scheduler.periodic.set, one("st"), name, payload, options, timing, self._world.now)

    def _unschedule(self, shell: Shell) -> None:
        self._try(shell, shell.scheduler.periodic.remove, self._world.random.choice("st"))

    def _pause_schedule(self, shell: Shell) -> None:
        self._try(shell, shell.scheduler.periodic.pause, self._world.random.choice("st"), self._world.now)

    def _resume_schedule(self, shell: Shell) -> None:
        shell.ticks.moved_at = self._world.now
        self._try(shell, shell.scheduler.periodic.resume, self._world.random.choice("st"), self._world.now)

    # ------------------------------------------------------------------------------------------ the daemon as a whole

    def _clock_changed(self, shell: Shell) -> None:
        shell.ticks.moved_at = self._world.now
        shell.tell(shell.scheduler.clock_changed, self._world.wall_offset, self._world.now)

    def _reload(self, shell: Shell) -> None:
        """Once the new template has imported the app."""
        changed = self._faults.strikes("app-changed")

        def known(name: str) -> bool:
            return not (changed and name == "dropped")

        try:
            shell.tell(shell.scheduler.rollout.begin, known, self._world.now)
        except PoolError:  # one is on, or the daemon is about to go
            return
        shell.roll_began(known)
        if self._faults.strikes("template-death"):
            self._world.after(self._world.between(0.0, 3.0), self._let, self._template_dies)

    def _template_dies(self, shell: Shell) -> None:
        """That of the new code, while it is needed."""
        if shell.scheduler.rollout.active:
            shell.tell(shell.scheduler.rollout.fail, "the template died")

    def _drain(self, shell: Shell) -> None:
        shell.drain()

    def _stop_now(self, shell: Shell) -> None:
        shell.stop_now()

    def tend(self, shell: Shell) -> None:
        """Put right what was asked for in jest, so that everything can end."""
        scheduler = shell.scheduler
        self._readers.tend()
        for name in list(scheduler.state.paused):
            shell.tell(scheduler.intake.resume, name)
        for id, schedule in list(scheduler.state.schedules.items()):
            # All other trouble must pass; but one that wants more than the pool can do has turns, and that is enough.
            name, last_tick = schedule.record.name, schedule.record.last_tick
            since, before = self._tended.setdefault(id, (self._world.now, last_tick))
            insatiable = last_tick > before and self._world.now > since + _CATCHES_UP_WITHIN_S
            if not schedule.trouble or insatiable or name == "dropped":
                shell.tell(scheduler.periodic.remove, id)
        if scheduler.state.shutting_down:
            return
        if not shell.settings.auto_restart:
            for slot in list(scheduler.state.slots.values()):
                if slot.state is WorkerState.STOPPED:
                    self._try(shell, scheduler.stop_worker, slot.id, self._world.now)
        if not scheduler.supervisor.size(REST):  # others may be reserved
            if "g" in scheduler.state.groups:
                self._try(shell, scheduler.supervisor.scale, 1, self._world.now, "g")
            self._try(shell, scheduler.start_worker, self._world.now)
        for worker in ("worker-0", "worker-1"):  # between them they can do everything
            if worker not in scheduler.state.slots:
                self._try(shell, scheduler.start_worker, self._world.now)

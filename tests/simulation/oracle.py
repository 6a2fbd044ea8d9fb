"""What must be true of a run, whoever is asked: kept apart from the scheduler's own view of things.

1. An acknowledged durable task is in the store at that moment, and whenever the daemon starts again; in the end it is
   final. A final state, once committed or told, is never reached again, and its task never begins again.
2. No task begins while another attempt of it runs in a process that its slot has not given up as stuck.
3. A task that may not be run again begins once at most, and only after that was committed.
4. Whoever asked to be told is told once, the truth, and of a durable task only what is committed.
5. Each request is answered once. A cancel that is answered True ended a task that had not begun in this epoch, or
   killed it. An expired task had not begun in this epoch. (Under a daemon that has died it may have: nobody knows.)
6. A death charges the task that ran in that process, once, and no other. What dies without showing what it ran charges
   nobody, ``poison_after`` times for each task that was first in its line; to that extent that has not begun.
7. Failed attempts are within bounds and retried as the options say; a task that was quarantined for killing workers
   has killed exactly ``poison_after`` of them.
8. A handler is told once at most of each thing, while its task runs; one that was told that it is cancelled does not
   run again in this epoch; nor, if it is durable and whoever cancelled it has been answered, in any other.
9. Nothing starts before its delay or its back-off is over, nor (but for a late timer) once it has expired. Delays and
   back-offs go on under the next daemon, by the wall clock; but for that clock's jumps they keep their length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from poolmgr.core.changes import AttemptEnded, Change, TaskAdded, TaskEnded, TaskMoved, WorkerEnded
from poolmgr.core.effects import Accepted, Answer, Effect, Emit, Finished, Interrupt, Persist, Refusal, Same, Start
from poolmgr.core.scheduler import Scheduler
from poolmgr.core.shelf import START, is_plain
from poolmgr.model import AttemptInfo, TaskOptions, TaskState, WorkerState
from poolmgr.payload import inline
from poolmgr.store.base import Left
from tests.simulation.disk import Disk
from tests.simulation.order import LATE_S
from tests.simulation.scripts import result_of
from tests.simulation.waiters import Waiters
from tests.simulation.workers import Process, Raised

GIVEN_UP = frozenset({WorkerState.STOPPED, WorkerState.FAILED, WorkerState.STUCK})


@dataclass(slots=True, eq=False)
class Known:
    """What is true of one task. ``now`` in a name: in this epoch."""

    id: bytes
    name: str
    payload: bytes
    options: TaskOptions
    acknowledged: bool = False
    begun: int = 0
    begun_now: int = 0
    runs_in: Process | None = None
    failed_now: int = 0
    charged: int = 0  # deaths that were committed as its fault, and those of this epoch
    given_now: bool = False
    ended_now: bool = False
    final: tuple[TaskState, bytes] | None = None
    types: tuple[str, ...] = ()  # of the exception that was raised last
    not_before: float = 0.0
    expires_at: float = float("inf")  # of a task that this epoch was given
    kill_asked: bool = False
    unwanted: bool = False  # in this epoch
    given_up: bool = False  # who cancelled it knows that it was too late
    spared: int = 0  # deaths with it first in line that cost it nothing, in this epoch
    wiped: int = 0  # ... in which it ran

    @property
    def has_ended(self) -> bool:
        """It was decided that it has, in this epoch, or committed in another."""
        return self.ended_now or self.final is not None


@dataclass(slots=True)
class Entry:
    """One submit of a session. ``first`` is the task that it stands for."""

    id: bytes
    first: bytes
    refused: bool = False


@dataclass(slots=True)
class Session:
    """What one connection has submitted, and how much of that is acknowledged."""

    entries: list[Entry] = field(default_factory=list)
    acknowledged: int = 0


class Oracle:
    """Knows what clients were told and what really happened, and raises where the two do not agree."""

    def __init__(self, disk: Disk) -> None:
        self.tasks: dict[bytes, Known] = {}
        self.finals: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.stuck: set[str] = set()  # the slots that had to go on without a process that did not end
        self._disk = disk
        self.scheduler: Scheduler
        self.unblocked_at = 0.0  # when the daemon was last free to act
        self.sessions: dict[int, Session] = {}
        self.watching: dict[tuple[int, bytes], int] = {}
        self.asked: dict[int, bytes] = {}  # token -> task
        self.waiters = Waiters()
        self.told: set[Interrupt] = set()

    # ------------------------------------------------------------------------------------------ epochs

    def begin(self, scheduler: Scheduler) -> None:
        """A daemon has started: what it acknowledged in earlier epochs must be there."""
        self.scheduler = scheduler
        self.sessions, self.watching, self.asked, self.told = {}, {}, {}, set()
        self.waiters = Waiters()
        self.lives: set[tuple[str, int]] = set()
        for known in self.tasks.values():
            known.begun_now = known.failed_now = 0
            known.runs_in = None
            known.ended_now = False
            known.given_now = False
            known.unwanted, known.spared, known.wiped = False, 0, 0
            known.not_before, known.expires_at = 0.0, float("inf")
            if known.options.durable:
                record = self._disk.store.record(known.id)
                safe = record is not None or not known.acknowledged or self._is_forgotten(known)
                assert safe, f"{known.id.hex()} was acknowledged, and is lost"
                known.charged = record.kills if record is not None else 0

    def recovered(self, left: Left) -> None:
        """It has read this from the store."""
        shelved = [self._disk.store.shelf(line, START, tasks) for line, tasks, _ in left.shelves]
        for record in [*left.in_hand, *chain.from_iterable(shelved)]:
            known = self.tasks[record.id]
            known.given_now = True
            follows_wall = record.options.at is not None and not record.attempt  # and may be moved by a later jump
            if record.due_at is not None and not follows_wall:
                known.not_before = record.due_at - self.scheduler.state.wall_offset
            task = self.scheduler.state.tasks.get(record.id)
            interruptions = record.interruptions + (record.state is TaskState.RUNNING)
            if task is not None:
                limited = record.options.rate_limit is not None or record.options.max_concurrency
                assert not limited or task.name in self.scheduler.state.limits, f"{task.name} is limited no more"
                assert task.past.interruptions == interruptions, (
                    f"{record.id.hex()} was interrupted {interruptions} times"
                )
                assert interruptions < self.scheduler.state.settings.poison_after
        for known in self.tasks.values():
            if known.acknowledged and known.options.durable and known.id not in self.scheduler.state.tasks:
                kept = self._disk.store.record(known.id) is not None
                assert kept or known.ended_now or self._is_forgotten(known), (
                    f"{known.id.hex()} was acknowledged, and is forgotten"
                )

    def _is_forgotten(self, known: Known) -> bool:
        """It has ended, and the store had kept it for long enough; its end was committed, and stays what it was."""
        return known.final is not None and known.id in self._disk.ledger.forgotten

    # ------------------------------------------------------------------------------------------ clients

    def submitting(self, client: int, id: bytes, name: str, payload: bytes, options: TaskOptions) -> None:
        """A client's submit is about to be told to the scheduler."""
        if id not in self.tasks:
            self.tasks[id] = Known(id, name, payload, options)
        if client:
            self.sessions[client].entries.append(Entry(id, id))

    def submitted(self, client: int, id: bytes, watch: bool, refused: bool, now: float) -> None:
        """It was."""
        known = self.tasks[id]
        shelved = is_plain(known.options) and not refused  # perhaps, and else it is in memory
        if (shelved or id in self.scheduler.state.tasks) and not known.given_now:
            known.given_now = True
            known.not_before = now + known.options.delay_s
            if known.options.expires_s is not None:
                known.expires_at = now + known.options.expires_s
        if client and refused:
            self.sessions[client].entries[-1].refused = True
        elif watch:
            self.watching.setdefault((client, id), 0)

    def connected(self, client: int) -> None:
        """A client has come."""
        self.sessions[client] = Session()

    def disconnected(self, client: int) -> None:
        """A client has gone: it is told nothing any more."""
        del self.sessions[client]

    def unwanted(self) -> None:
        """What was cancelled, or called by a client that has gone, and runs: it is not to start again."""
        for task in self.scheduler.state.tasks.values():
            if task.past.cancel_wanted:
                self.tasks[task.id].unwanted = True

    def has_sent(self, client: int, id: bytes) -> bool:
        """Whether this id is in use on this connection."""
        return (client, id) in self.watching or any(entry.id == id for entry in self.sessions[client].entries)

    def may_be_new(self, id: bytes, payload: bytes) -> bool:
        """Whether an id that no store has may stand for a new task: it was refused before, or died on its way."""
        known = self.tasks.get(id)
        return known is None or (known.payload == payload and not known.has_ended)

    def first(self, client: int, known_as: bytes) -> Known:
        """The task that a client knows by this id."""
        session = self.sessions.get(client)
        for entry in reversed(session.entries) if session is not None else ():
            if entry.id == known_as:
                return self.tasks[entry.first]
        return self.tasks[known_as]

    def accepted(self, effect: Accepted) -> None:
        """A client is told that its submits are safe."""
        session = self.sessions.get(effect.client)
        if session is None:
            return
        assert session.acknowledged <= effect.up_to <= len(session.entries), f"{effect} of {len(session.entries)}"
        for entry in session.entries[session.acknowledged : effect.up_to]:
            known = self.tasks[entry.first]
            if known.options.durable and not entry.refused:
                kept = self._disk.store.record(known.id) is not None or self._is_forgotten(known)
                assert kept, f"{known.id.hex()} acknowledged, not committed"
                known.acknowledged = True
        session.acknowledged = effect.up_to

    def asks(self, token: int, id: bytes, kill: bool) -> None:
        """Someone asks to cancel a task."""
        self.asked[token] = id
        self.tasks[id].kill_asked = self.tasks[id].kill_asked or kill

    def finished(self, effect: Finished) -> None:
        """A client is told how a task ended."""
        if effect.client not in self.sessions:
            return
        known = self.first(effect.client, effect.task_id)
        told = self.watching.get((effect.client, effect.task_id))
        assert told is not None, f"client {effect.client} did not ask for {effect.task_id.hex()}"
        assert told == 0, f"client {effect.client} was told twice of {effect.task_id.hex()}"
        self.watching[effect.client, effect.task_id] = 1
        found = (effect.state, inline(effect.outcome))
        if known.options.durable and not self._is_forgotten(known):
            outcome = self._disk.store.outcome(known.id)
            assert outcome is not None, f"{known.id.hex()}: its end was told, and is not committed"
            assert (outcome.state, outcome.outcome) == found, f"{known.id.hex()}: told {found}, kept {outcome}"
        assert known.final in (None, found), f"{known.id.hex()} was {known.final} and is {found}"
        known.final = found
        self._check_end(known, *found)

    def answered(self, effect: Answer) -> None:
        """The answer to a cancel, or to a request for room."""
        if self.waiters.answered(effect):
            return
        assert effect.token in self.asked, f"token {effect.token} was answered twice, or never given"
        id = self.asked.pop(effect.token)
        known = self.tasks[id]
        if effect.value and not known.kill_asked:
            assert not known.begun_now, f"{id.hex()}: cancelled as never begun, and it had begun"
        if effect.value and known.final is not None:
            assert known.final[0] is TaskState.CANCELLED, f"{id.hex()}: cancelled, and it is {known.final[0]}"
        known.given_up |= not effect.value and known.options.durable

    def refused(self, effect: Refusal) -> None:
        """The answer to a request for room."""
        self.waiters.refused(effect)

    # ------------------------------------------------------------------------------------------ truth

    def begins(self, process: Process, start: Start) -> None:
        """A worker begins a task."""
        known = self.tasks[start.task_id]
        name = f"{known.name} {known.id.hex()}"
        assert known.final is None, f"{name} begins, and was {known.final}"
        assert not known.ended_now, f"{name} begins, and has ended"
        assert start.payload == known.payload
        other = known.runs_in
        if other is not None and other.alive:
            slot = self.scheduler.state.slots.get(other.worker)
            stuck = slot is None or slot.incarnation != other.incarnation or slot.state in GIVEN_UP
            assert stuck, f"{name} begins in {process.worker} and runs in {other.worker}"
        if not known.options.restartable:
            assert not known.begun, f"{name} may not be run again, and is"
        if known.options.durable:
            record = self._disk.store.record(known.id)
            careful = not known.options.restartable or (record is not None and record.interruptions > 0)
            committed = record is not None and record.state is TaskState.RUNNING
            assert committed or not careful, f"{name} begins before that is committed"
        known.begun += 1
        known.begun_now += 1
        known.runs_in = process

    def leaves(self, start: Start) -> None:
        """A worker has ended a task."""
        self.tasks[start.task_id].runs_in = None

    def charged(
        self, process: Process, broken: bool, held: dict[int, bytes], chargeable: set[int], charges: Sequence[Effect]
    ) -> None:
        """A death was told. ``held`` are the tasks that the slot had, by their fences; ``chargeable`` are the fences of
        those that nobody wanted to end."""
        failed = [each.fields for each in charges if isinstance(each, Emit) and each.name == "task-failed"]
        assert len(failed) <= 1, f"{len(failed)} tasks were charged for one death"
        ran = process.current
        first = self.tasks[next(iter(held.values()))] if held else None
        if first is not None and not failed:
            first.spared += 1
        elif first is not None and first.spared >= self.scheduler.state.settings.poison_after:
            assert failed[0]["task_id"] == first.id.hex(), "another task was charged than the first in line"
        elif failed and not broken:
            assert ran is not None, f"{failed[0]['task_id']} was charged for the death of an idle worker"
            assert failed[0]["task_id"] == ran.task_id.hex(), "another task was charged than the one that ran"
        if ran is not None and process.wiped == ran.fence and ran.fence in held and not failed:
            self._denied(self.tasks[ran.task_id], ran.fence in chargeable)
        elif ran is not None and ran.fence in chargeable and process.killed_for in ("", "broken"):
            assert failed, f"{ran.task_id.hex()} killed its worker, and was not charged"
            assert failed[0]["code"] == "worker_died"

    def _denied(self, known: Known, chargeable: bool) -> None:
        """It ran in a worker that died, and the page says that it had not begun."""
        known.wiped += chargeable
        known.begun -= 1
        known.begun_now -= 1
        limit = self.scheduler.state.settings.poison_after
        assert known.wiped <= limit, f"{known.id.hex()} has killed {known.wiped} workers, and paid for none"

    # ------------------------------------------------------------------------------------------ decisions

    def decided(self, effects: Sequence[Effect], told_at: float, now: float) -> None:
        """What the scheduler wants done, before it is. ``told_at`` is when the first input since the last time came."""
        for effect in effects:
            if isinstance(effect, Same):
                self._same(effect)
            elif isinstance(effect, Start):
                self._starts(effect, now)
            elif isinstance(effect, Interrupt):
                self._interrupts(effect)
            elif isinstance(effect, Emit):
                assert effect.name != "shelf-corrected", f"a shelf was counted wrong: {effect}"
                self.events[effect.name] += 1
                if effect.name == "task-preempted":
                    self.events[f"preempted: {effect.fields['why']}"] += 1
                    assert self.tasks[bytes.fromhex(effect.fields["task_id"])].options.restartable
                if effect.name == "worker-error" and "does not end" in effect.fields["error"]:
                    self.stuck.add(effect.fields["worker_id"])
                if effect.name == "task-failed":
                    self._failed(effect.fields, told_at)
        for effect in effects:  # what is to be kept comes first, but tells of what the events tell of
            if isinstance(effect, Persist):
                for change in effect.changes:
                    self._changes(change)

    def _starts(self, start: Start, now: float) -> None:
        known = self.tasks[start.task_id]
        wanted = not known.unwanted and not known.given_up
        assert wanted, f"{known.id.hex()} starts again, and nobody wants it any more"
        early_s = known.not_before - now
        assert early_s < 1e-6, f"{known.id.hex()} starts {early_s} s too early"
        late_s = now - max(known.expires_at, self.unblocked_at)
        assert late_s < LATE_S or known.begun or start.attempt > 1, (
            f"{known.id.hex()} starts {late_s} s after it has expired"
        )

    def _interrupts(self, interrupt: Interrupt) -> None:
        assert interrupt not in self.told, f"{interrupt} is told twice"
        self.told.add(interrupt)
        [first, *_] = self.scheduler.state.slots[interrupt.worker].in_flight
        assert (first.fence, first.state) == (interrupt.fence, TaskState.RUNNING), f"{interrupt} is not for what runs"
        assert interrupt.reason != "preempt" or first.options.restartable, f"{interrupt}, and it may not run again"
        assert interrupt.reason != "cancelled" or self.tasks[first.id].unwanted, f"{interrupt}, and nobody asked"

    def _changes(self, change: Change) -> None:
        if isinstance(change, TaskAdded) and change.task.origin is None:
            due_at, options = change.task.due_at, change.task.options
            if due_at is not None and options.at is None:
                offset = self.scheduler.state.offset_of(change.task.order)
                off_s = due_at - offset - self.tasks[change.task.id].not_before
                assert abs(off_s) < 1e-5, f"{change.task.id.hex()} is kept with a delay that is {off_s} s off"
        if isinstance(change, TaskEnded):
            known = self.tasks[change.id]
            assert not known.ended_now, f"{change.id.hex()} ends twice"
            assert known.final is None, f"{change.id.hex()} ends again: it was {known.final}"
            known.ended_now = True
            assert change.failures <= known.options.max_retries + 1, f"{change.id.hex()} failed {change.failures} times"
            self._check_end(known, change.state, inline(change.outcome))
            self.codes[change.code or "completed"] += 1
            if change.message.startswith("quarantined: it killed"):
                limit = self.scheduler.state.settings.poison_after
                assert known.charged == limit, f"{change.id.hex()} was quarantined after {known.charged} of {limit}"
        elif isinstance(change, AttemptEnded):
            self._check_post_mortem(change.attempt)
        elif isinstance(change, WorkerEnded):
            life = change.life
            assert (life.worker, life.incarnation) not in self.lives, f"{life.worker} ends twice: {life}"
            assert life.spawned_at <= life.ended_at, f"{life.worker} ends before it began: {life}"
            self.lives.add((life.worker, life.incarnation))
        elif isinstance(change, TaskMoved):
            assert not self.tasks[change.id].ended_now, f"{change.id.hex()} has ended, and moves"

    def _check_post_mortem(self, attempt: AttemptInfo) -> None:
        """Each attempt that ended with its process has that one's; unless nobody has seen that one's end."""
        if attempt.post_mortem is not None:
            assert attempt.post_mortem.output.partition(".")[0] == attempt.worker, f"another's post-mortem: {attempt}"
        elif attempt.cause in ("worker_died", "out_of_memory"):
            assert attempt.worker in self.stuck, f"no post-mortem: {attempt}"

    def _same(self, effect: Same) -> None:
        if not effect.client or effect.client not in self.sessions:
            return
        for entry in self.sessions[effect.client].entries:
            if entry.id == effect.task_id:
                entry.first = effect.first
        if effect.final:
            self.watching.pop((effect.client, effect.task_id), None)

    def _failed(self, fields: dict[str, Any], now: float) -> None:
        id = bytes.fromhex(fields["task_id"])
        known = self.tasks[id]
        options = known.options
        known.failed_now += 1
        known.charged += fields["code"] in ("worker_died", "out_of_memory")
        assert known.failed_now <= options.max_retries + 1, f"{id.hex()} failed {known.failed_now} times"
        if not fields["retried"]:
            return
        assert options.restartable, f"{id.hex()} may not be run again, and is retried"
        if fields["code"] == "task_failed":
            assert not set(known.types) & options.no_retry_on, f"{id.hex()} retried after {known.types}"
            if options.retry_on is not None and known.types:
                assert set(known.types) & options.retry_on, f"{id.hex()} retried after {known.types}"
        task = self.scheduler.state.tasks.get(id)
        asked_otherwise = fields["code"] == "task_failed" and not known.types  # raise Retry(delay)
        if task is not None and not asked_otherwise and self.scheduler.state.settings.retry_jitter != "full":
            delay_s = min(options.retry_backoff_s * 2.0 ** (task.past.failures - 1), options.max_backoff_s)
            known.not_before = now + delay_s

    def raised(self, task_id: bytes, message: Raised) -> None:
        """A handler's failure is about to be told to the scheduler."""
        self.tasks[task_id].types = message.failure.types

    def _check_end(self, known: Known, state: TaskState, outcome: bytes) -> None:
        if state is TaskState.COMPLETED:
            assert outcome == result_of(known.payload), f"{known.id.hex()} completed with another's result"
            assert known.begun, f"{known.id.hex()} completed, and never began"
        elif state is TaskState.EXPIRED:
            assert not known.begun_now, f"{known.id.hex()} expired, and it had begun"

    def applied(self, changes: Sequence[Change]) -> None:
        """These are committed."""
        for change in changes:
            if isinstance(change, TaskEnded):
                known = self.tasks[change.id]
                found = (change.state, inline(change.outcome))
                assert known.final in (None, found), f"{change.id.hex()} was {known.final} and is {found}"
                known.final = found
                self.finals[change.state] += 1
            elif isinstance(change, TaskAdded):
                assert change.task.payload == self.tasks[change.task.id].payload
            elif isinstance(change, AttemptEnded):
                self.codes[change.attempt.cause] += 1

    # ------------------------------------------------------------------------------------------ the end

    def check_settled(self) -> None:
        """Nothing is left to do: every promise has been kept by now."""
        for (client, id), told in self.watching.items():
            assert told or client not in self.sessions, f"client {client} was never told of {id.hex()}"
        assert not self.asked, f"{len(self.asked)} requests were never answered: {self.asked}"
        assert not self.waiters, f"{len(self.waiters)} requests for room were never answered"
        for client, session in self.sessions.items():
            assert session.acknowledged == len(session.entries), f"client {client} waits for its acknowledgement"
        for known in self.tasks.values():
            if known.acknowledged and known.options.durable:
                final = self._disk.store.outcome(known.id) is not None or self._is_forgotten(known)
                assert final, f"{known.id.hex()} has no end"
        self._disk.check_settled()

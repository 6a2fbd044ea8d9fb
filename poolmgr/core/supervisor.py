"""The slots and the processes in them: made, ready, retired, dead, replaced; and how many there should be.

Who pays for a death: one during a task is the task's failure; whether it had begun, the page shows (``_has_begun``).
One before the worker was ready, or while it was idle and had never completed anything, is charged to the slot: it backs
off, and fails after ``max_restart_attempts``. A stop, a drain, a recycle costs nobody. A worker that was of use is
replaced at once.
"""

from __future__ import annotations

from poolmgr.config import Group
from poolmgr.config.groups import REST
from poolmgr.core.blame import blame
from poolmgr.core.changes import WorkerEnded
from poolmgr.core.dispatch import Dispatcher
from poolmgr.core.effects import Continue, Forget, Inspect, Kill, Retire, Spawn
from poolmgr.core.failure import Failure
from poolmgr.core.lifecycle import Lifecycle
from poolmgr.core.slot import Slot
from poolmgr.core.state import State
from poolmgr.core.transitions import move_worker
from poolmgr.errors import BadOption, NotFound
from poolmgr.model import WorkerState
from poolmgr.post_mortem import PostMortem
from poolmgr.worker_life import WorkerLife

KILL_GRACE_S = 1.0  # between SIGTERM and SIGKILL
STUCK_AFTER_S = 10.0  # after SIGKILL, the slot goes on without waiting for the process to go
EXITS_WITHIN_S = 10.0  # a worker that has nothing to do any more, and was told to go
FAILED_RETRY_S = 60.0
_LASTED_S = 1.0  # ready for less is nothing, however short the pause is
INSPECTION_S = 2.0  # an inspection takes a twentieth of that: one that took longer says that this process was blocked

_W = WorkerState
_HAS_PROCESS = frozenset({_W.STARTING, _W.READY, _W.BUSY, _W.DRAINING, _W.UNHEALTHY})


class Supervisor:
    """Keeps the slots filled."""

    def __init__(self, state: State, dispatcher: Dispatcher, lifecycle: Lifecycle) -> None:
        self._state = state
        self._dispatcher = dispatcher
        self._lifecycle = lifecycle
        self._incarnations: dict[str, int] = {}  # of slots that have gone: one that comes again counts on

    # ------------------------------------------------------------------------------------------ how many

    def size(self, group: str | None = None) -> int:
        """The slots that are to stay, in the whole pool or in one group. Raises ``NotFound``."""
        if group is not None and group not in self._state.groups:
            raise NotFound(f"no group {group!r}; there are: {', '.join(self._state.groups)}")
        return len(self._staying(group))

    def _staying(self, group: str | None) -> list[Slot]:
        slots = [slot for slot in self._state.slots.values() if not slot.leaving]
        return slots if group is None else [slot for slot in slots if slot.group.name == group]

    def scale(self, size: int, now: float, group: str | None = None, reason: str = "asked for") -> None:
        """Add slots, or drain some: the idle first, beginning with what is of no use (``_worth``).

        ``size`` is that of one group; without one of the whole pool, whose rest grows or shrinks for it.

        Raises:
            BadOption: the pool would not be within ``min_workers`` and ``max_workers``, or its groups are larger.
            NotFound: there is no such group.
        """
        more = size - self.size(group)
        total = self.size() + more
        name = REST if group is None else group
        self._check_size(total, self.size(name) + more)
        for _ in range(more):
            self.add(now, self._state.groups[name])
        if more < 0:
            staying = self._staying(name)
            staying.sort(key=_worth)
            for slot in staying[:-more]:
                self.remove(slot, now)
        if more:
            event = "pool-scaled-up" if more > 0 else "pool-scaled-down"
            self._state.emit(event, {"count": abs(more), "new_size": total, "group": name, "reason": reason})

    def _check_size(self, total: int, of_group: int) -> None:
        settings = self._state.settings
        low, high = settings.min_workers, settings.max_workers
        if not low <= total <= high:
            raise BadOption(
                f"a pool of {total} workers is outside min_workers {low} and max_workers {high}: "
                "choose a size between them, or change those settings"
            )
        if of_group < 0:
            raise BadOption("the pool's other groups are larger than that: scale one of them (--group)")

    def add(self, now: float, group: Group, trial_of: int | None = None) -> Slot:
        """A new slot with the lowest free number, and a process for it. One that is to try a generation of the code
        goes with its process."""
        number = 0
        while f"worker-{number}" in self._state.slots:
            number += 1
        slot = self._state.slots[f"worker-{number}"] = Slot(f"worker-{number}", group)
        slot.incarnation = self._incarnations.get(slot.id, 0)
        slot.leaving = trial_of is not None
        self._spawn(slot, now, trial_of)
        return slot

    def remove(self, slot: Slot, now: float) -> None:
        """Drain the slot's worker; the slot goes with it."""
        slot.leaving = True
        if slot.state in _HAS_PROCESS:
            self.retire(slot, "stopped", now)
        else:
            self._gone(slot)

    def find(self, worker: str) -> Slot:
        """The slot of that id. Raises ``NotFound``."""
        slot = self._state.slots.get(worker)
        if slot is None:
            raise NotFound(f"no worker {worker!r}; `poolmgr workers` lists them")
        return slot

    # ------------------------------------------------------------------------------------------ a worker's life

    def _spawn(self, slot: Slot, now: float, generation: int | None = None) -> None:
        slot.restarts += 1
        slot.incarnation += 1
        slot.executed_before += slot.executed
        slot.begin(now)
        slot.generation = generation or self._state.generation
        move_worker(slot, _W.STARTING)
        self._state.statistics.spawned += 1
        self._state.effects.append(Spawn(slot.id, slot.incarnation, slot.generation, slot.group.name))

    def renew(self, slot: Slot, now: float) -> None:
        """Start a process in a slot that rests: there is new code, and with it a new chance."""
        slot.charges = 0
        self._spawn(slot, now)

    def spawned(self, slot: Slot, pid: int) -> None:
        """The process exists."""
        slot.pid = pid

    def ready(self, slot: Slot, capabilities: frozenset[str], now: float) -> None:
        """The process can take work."""
        slot.heard_at = slot.last_activity = slot.ready_at = now
        slot.capabilities = slot.group.offers | capabilities
        self._state.emit(
            "worker-started",
            {
                "worker_id": slot.id, "pid": slot.pid, "incarnation": slot.incarnation, "generation": slot.generation,
            },
        )  # fmt: skip
        if slot.state is _W.STARTING:
            move_worker(slot, _W.READY)
            slot.open = True
            self._dispatcher.touch(slot)

    def rest(self, slot: Slot, now: float) -> None:
        """The worker has nothing in flight any more: ready again, or time to go."""
        if slot.retiring:
            self._state.effects.append(Retire(slot.id, slot.incarnation))
        elif slot.tasks_limit and slot.executed >= slot.tasks_limit:
            self.retire(slot, "max_tasks_per_worker", now)
        elif slot.state is _W.BUSY:
            move_worker(slot, _W.READY)

    def retire(self, slot: Slot, why: str, now: float) -> None:
        """Let the worker finish what it has begun, then exit. What it holds beyond that is recalled."""
        if slot.retiring or slot.doomed or slot.state not in _HAS_PROCESS:
            slot.retiring = slot.retiring or why
            return
        slot.retiring, slot.retired_at = why, now
        slot.open = False
        move_worker(slot, _W.DRAINING)
        self._dispatcher.touch(slot)
        if slot.in_flight:
            self._dispatcher.recall(slot)
        else:
            self._state.effects.append(Retire(slot.id, slot.incarnation))

    def doom(self, slot: Slot, why: str, fence: int, now: float, *, grace_s: float = KILL_GRACE_S) -> None:
        """Kill the worker because of what it does with ``fence``, and expect its end."""
        if slot.doomed is not None or slot.state not in _HAS_PROCESS:
            return
        slot.doomed = (why, fence)
        slot.open = False
        if slot.state is not _W.UNHEALTHY:
            move_worker(slot, _W.UNHEALTHY)
        self._dispatcher.touch(slot)
        self._state.effects.append(Kill(slot.id, slot.incarnation, why, grace_s))
        self._state.deadlines.add(now + grace_s + STUCK_AFTER_S, "stuck", (slot, slot.incarnation))

    def stuck(self, slot: Slot, incarnation: int, now: float) -> None:
        """Killed, and still there: the slot goes on without it."""
        if slot.incarnation != incarnation or slot.doomed is None or slot.state is not _W.UNHEALTHY:
            return
        if slot.pid is not None:
            self._state.stuck_pids[slot.pid] = slot.id
        error = f"pid {slot.pid} does not end although it was killed (D state?); the slot goes on without it"
        self._state.emit("worker-error", {"worker_id": slot.id, "error": error})
        self.exited(slot, "it could not be killed", slot.in_flight[0].fence if slot.in_flight else 0, 0.0, now)

    def exited(
        self,
        slot: Slot,
        how: str,
        page_fence: int,
        begun_at: float,
        now: float,
        post_mortem: PostMortem | None = None,
    ) -> None:
        """The process has ended, and every result that it wrote has been taken in.

        ``page_fence`` is what its page shows: the task that it had begun last, at ``begun_at``. As the results of those
        before it are in, only the first in line can be charged. That one keeps the ``post_mortem``.
        """
        if slot.state not in _HAS_PROCESS:  # it was given up as stuck before
            return
        in_flight = list(slot.in_flight)
        failure = blame(slot, in_flight[0].fence, how, post_mortem) if in_flight else None
        begun = bool(in_flight) and self._has_begun(slot, page_fence, failure)
        slot.open = False
        slot.in_flight.clear()
        self._dispatcher.forget(slot)
        executed, retiring = slot.executed, slot.retiring
        self._state.emit(
            "worker-exited",
            {"worker_id": slot.id, "pid": slot.pid, "how": how, "retiring": retiring, "executed": executed},
        )
        self._remember(slot, how, now, post_mortem)
        for task in reversed(in_flight):
            if task is not in_flight[0]:
                unread = slot.doomed is not None and slot.doomed[0] == "broken"  # what it wrote last was not taken in
                self._lifecycle.requeue_free(task, now, begun=unread and task.fence <= page_fence)
            elif begun and failure is not None:
                at = begun_at if task.fence == page_fence and begun_at else task.started_at
                self._lifecycle.failed(task, slot, at, failure._replace(post_mortem=post_mortem), now)
            elif begun and slot.doomed == ("preempted", task.fence):
                self._lifecycle.preempted(task, slot, "killed", now)
            else:
                self._lifecycle.requeue_free(task, now, begun=begun)
        slot.pid = None
        slot.next_look = float("inf")
        slot.trouble = slot.trouble or how
        # One that was ready for as long as the pause would be was of use, though nothing came.
        pause_s = max(_LASTED_S, self._state.settings.restart_cooldown_s)
        lasted = bool(slot.ready_at) and now - slot.ready_at >= pause_s
        stale = slot.generation != self._state.generation  # what its code was good for says nothing of the next
        if slot.leaving:
            self._gone(slot)
        elif self._state.shutting_down:
            move_worker(slot, _W.STOPPED)
        elif executed or lasted or in_flight or retiring or stale:
            slot.charges = 0 if executed or lasted or stale else slot.charges
            self._replace(slot, now)
        else:
            self._charge(slot, how, now)

    def _has_begun(self, slot: Slot, page_fence: int, failure: Failure | None) -> bool:
        """Whether a process that has ended had begun the first in its line, for which that would be this ``failure``.

        A page that does not show the task is the word of a worker that died on the way to it; or the task itself has
        written there, and would kill workers for ever. To die like that by chance is rare, and to do so again and again
        is no chance: after ``poison_after`` such deaths it is taken to have begun.
        """
        task = slot.in_flight[0]
        if page_fence >= task.fence or slot.seen == task.fence:  # of the later ones, no honest worker has begun any
            return True
        stream = self._state.streams.get(task.id)
        if stream is not None and stream.fence == task.fence and stream.was_heard:
            return True
        if failure is not None:
            task.past = task.past._replace(unshown=task.past.unshown + 1)
        return failure is not None and task.past.unshown > self._state.settings.poison_after

    def _remember(self, slot: Slot, how: str, now: float, post_mortem: PostMortem | None) -> None:
        """Nobody waits for the commit of it."""
        if slot.pid is None:
            return
        offset = self._state.wall_offset
        peak_memory_mb = 0.0 if post_mortem is None else post_mortem.peak_memory_mb
        life = WorkerLife(
            slot.id, slot.incarnation, slot.pid, slot.spawned_at + offset, now + offset, how, slot.retiring,
            slot.executed, peak_memory_mb,
        )  # fmt: skip
        self._state.fact(WorkerEnded(life), True)

    def _replace(self, slot: Slot, now: float) -> None:
        if self._state.settings.auto_restart or slot.retiring:
            if slot.state is _W.STARTING:  # with code that is not wanted any more
                move_worker(slot, _W.STOPPED)
            self._spawn(slot, now)
        else:
            move_worker(slot, _W.STOPPED)

    def _charge(self, slot: Slot, how: str, now: float) -> None:
        settings = self._state.settings
        slot.charges += 1
        self._state.emit("worker-error", {"worker_id": slot.id, "error": f"it was of no use: {how}"})
        if not settings.auto_restart:
            move_worker(slot, _W.STOPPED)
            return
        failed = slot.charges >= settings.max_restart_attempts
        move_worker(slot, _W.FAILED if failed else _W.STOPPED)
        wait_s = FAILED_RETRY_S if failed else settings.restart_cooldown_s
        self._state.deadlines.add(now + wait_s, "restart", (slot, slot.incarnation))

    def restart(self, slot: Slot, incarnation: int, now: float) -> None:
        """A slot's cool-down is over."""
        if self._state.shutting_down or slot.leaving:
            return
        if slot.incarnation == incarnation and slot.state in (_W.STOPPED, _W.FAILED):
            self._spawn(slot, now)

    def _gone(self, slot: Slot) -> None:
        if slot.state in _HAS_PROCESS:
            move_worker(slot, _W.STOPPED)
        self._dispatcher.forget(slot)
        self._state.slots.pop(slot.id, None)
        self._incarnations[slot.id] = slot.incarnation
        self._state.effects.append(Forget(slot.id))

    # ------------------------------------------------------------------------------------------ watching over it

    def check(self, now: float, late: bool) -> None:
        """Once a second: silence, age, idleness, who does not go. A scheduler that was late itself judges nobody."""
        zombie_after_s = self._state.settings.zombie_after_s
        for slot in list(self._state.slots.values()):
            group = slot.group
            if slot.state not in _HAS_PROCESS or slot.doomed is not None:
                continue
            if late:
                slot.heard_at = now
                slot.suspected = False
            elif _lingers(slot, now):
                self.doom(slot, "lingers", 0, now)
                continue
            elif now - slot.heard_at > zombie_after_s:
                slot.heard_at = now  # one look for each such silence
                slot.suspected = True
                self._state.effects.append(Inspect(slot.id, slot.incarnation))
            if slot.retiring or not slot.ready_at:
                continue
            if group.max_worker_age_s and now - slot.spawned_at > group.max_worker_age_s:
                self.retire(slot, "max_worker_age_s", now)
            elif (
                group.idle_timeout_s
                and not slot.in_flight
                and slot.executed
                and now - slot.last_activity > group.idle_timeout_s
            ):
                self.retire(slot, "idle_timeout_s", now)

    def inspected(self, slot: Slot, verdict: str, now: float) -> None:
        """What /proc shows of a silent worker: ``running``, ``stopped``, ``asleep`` or ``gone``."""
        if not slot.suspected or verdict in ("running", "gone") or slot.doomed is not None:
            return  # its heart has beaten; native code that holds the GIL has its own deadline; a death will be told
        if now - slot.heard_at > INSPECTION_S:  # what it has said meanwhile may wait to be read
            return
        if verdict == "stopped" and slot.continued_after != slot.executed:
            slot.continued_after = slot.executed  # once, until it has finished a task
            self._state.effects.append(Continue(slot.id, slot.incarnation))
            return
        silent_s = self._state.settings.zombie_after_s
        self._state.emit(
            "zombie-detected", {"worker_id": slot.id, "pid": slot.pid, "verdict": verdict, "silent_s": silent_s}
        )
        self.doom(slot, "hung", slot.in_flight[0].fence if slot.in_flight else 0, now)


def _lingers(slot: Slot, now: float) -> bool:
    """Whether it was told to go, has nothing to do any more, and is still there."""
    since = max(slot.retired_at, slot.last_activity)
    return bool(slot.retiring) and not slot.in_flight and now - since > EXITS_WITHIN_S


def _worth(slot: Slot) -> tuple[bool, bool, bool, float, int]:
    """What a slot is worth to the pool. The least go first: those without a worker that is ready, then those
    that are idle and have not worked yet, or not for longest."""
    return (
        slot.open or bool(slot.in_flight), bool(slot.in_flight), slot.executed > 0, slot.last_activity, -_number(slot)
    )  # fmt: skip


def _number(slot: Slot) -> int:
    return int(slot.id.rpartition("-")[2])

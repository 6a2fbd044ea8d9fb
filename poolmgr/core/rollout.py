"""Rolling the workers over to new code: who is taken out of service, when, and what if the new code is of no use.

Each process is of one *generation* of the code; ``state.generation`` is the one that processes are made of now.

1. **Trial.** An additional worker of the new generation is started, beside the pool. If it does not get ready, the new
   code is refused, and nothing else has happened.
2. **Roll.** New processes are of the new generation. Those of the old are retired: the resting first, then the idle,
   then the busy, at most a batch (a fifth of the pool) at a time. A worker that is retired takes no new task, gives
   back what it has prefetched, finishes what it has begun, and is replaced.
3. **Stragglers.** Who has not gone ``PATIENCE_S`` after it was retired is not waited for: it finishes in the
   background, and the next one is taken.
4. **The end** is when every worker but the stragglers has been ready with the new code. Tasks that wait, and whose
   name the new code lacks, are dead (``unknown_task``).

If a worker of the new code fails for good during the roll, or is not ready ``READY_WITHIN_S`` after its start, or the
shell says that no more can be made, the roll goes back the same way: the generation before is the one again, and those
of the new one are retired. Who was never ready may never be, and is killed. A slot says nothing of the new code if it
had failed before the roll, or if its group has a command of its own; such a one is tried, and not waited for.

``step`` looks at all slots before each dispatch while a roll is on, and does what is to be done next: whatever may
have happened in between (deaths, recycling, scaling) is seen in where the slots stand.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from poolmgr.config import Group
from poolmgr.core.breakers import Breakers
from poolmgr.core.effects import Reloaded
from poolmgr.core.lifecycle import Lifecycle
from poolmgr.core.slot import READY_WITHIN_S, Slot
from poolmgr.core.state import State
from poolmgr.core.supervisor import Supervisor
from poolmgr.errors import ShuttingDown, WrongState
from poolmgr.model import WorkerState

PATIENCE_S = 1.0
BATCHES = 5  # how many make up the pool

_AT_REST = frozenset({WorkerState.STOPPED, WorkerState.FAILED})


class _Stands(Enum):
    """Where a slot stands in the roll."""

    READY = auto()  # it has the code that it is to have, or is to have no process
    COMING = auto()  # out of service, and waited for
    LATE = auto()  # its process is a straggler
    WAITING = auto()  # still to be taken


class Rollout:
    """One roll after the other. ``active`` while one is on."""

    def __init__(self, state: State, supervisor: Supervisor, lifecycle: Lifecycle, breakers: Breakers) -> None:
        self._state = state
        self._supervisor = supervisor
        self._lifecycle = lifecycle
        self._breakers = breakers
        self.active = False
        self._last = state.generation  # no number is used again: a straggler may still be of it
        self._reset(None, state.generation, lambda name: True)

    def _reset(self, trial: Slot | None, goal: int, known: Callable[[str], bool]) -> None:
        self._trial = trial  # until it is ready
        self._goal = goal
        self._before = self._state.generation
        self._known = known
        self._failure = ""  # why it goes back
        self._seen: set[str] = set()  # slots that were ready with the code that they are to have
        self._taken_at: dict[str, float] = {}
        self._tried: Group | None = None if trial is None else trial.group
        self._hopeless: set[str] = set()  # slots that had failed when the roll began
        self._awaited: set[tuple[str, int]] = set()  # (slot, incarnation) of processes that are to get ready

    @property
    def batch(self) -> int:
        """How many workers may be out of service for the roll's sake."""
        return max(1, self._supervisor.size() // BATCHES)

    def begin(self, known: Callable[[str], bool], now: float) -> int:
        """Roll all workers over to a new generation, which is returned; ``Reloaded`` tells the end of it.

        Args:
            known: whether the new code has a handler of that name.

        Raises:
            ShuttingDown, WrongState (one is under way): nothing has changed.
        """
        if self._state.shutting_down:
            raise ShuttingDown("the daemon is shutting down; the next one that is started has the new code")
        if self.active:
            raise WrongState("a reload is under way: wait for its end")
        self._last += 1
        self.active = True
        self._reset(self._supervisor.add(now, self._trial_group(), trial_of=self._last), self._last, known)
        return self._last

    def _trial_group(self) -> Group:
        """One whose workers import the app, as far as there is one: that is what is tried."""
        groups = [group for group in self._state.groups.values() if group.size] or [*self._state.groups.values()]
        return next((group for group in groups if not group.worker_command), groups[0])

    def fail(self, why: str) -> None:
        """No (more) workers of the new generation can be made."""
        if self.active and not self._failure:
            self._failure = why
            if self._trial is None:
                self._state.generation = self._before
                self._seen.clear()

    def step(self, now: float) -> None:
        """Do what is next. To be called before each dispatch while a roll is ``active``."""
        if self._state.shutting_down:
            self.fail("the daemon is shutting down")
            self._end(now)
        elif self._trial is not None:
            self._try(self._trial, now)
        else:
            self._roll(now)

    def _try(self, trial: Slot, now: float) -> None:
        if self._state.slots.get(trial.id) is not trial and not trial.ready_at:
            self.fail(f"a worker of the new code did not get ready: {trial.trouble or 'it was stopped'}")
        elif self._overdue(trial, now):
            self.fail(f"a worker of the new code did not get ready within {READY_WITHIN_S:g} s")
        if self._failure or trial.ready_at:
            self._part_with_trial(now)
        if self._failure:
            self._end(now)
        elif trial.ready_at:
            self._trial = None
            self._state.generation = self._goal
            attempts = self._state.settings.max_restart_attempts
            self._hopeless = {slot.id for slot in self._state.slots.values() if slot.charges >= attempts}
            self._roll(now)

    def _part_with_trial(self, now: float) -> None:
        trial = self._trial
        if trial is not None and self._state.slots.get(trial.id) is trial:
            self._supervisor.remove(trial, now)
            self._kill_unready(trial, now)

    def _kill_unready(self, slot: Slot, now: float) -> None:
        """A process that is not wanted any more, and was told so: one that hangs in its startup would not hear it."""
        if not slot.ready_at:
            self._supervisor.doom(slot, "reload", 0, now, grace_s=0.0)

    def _overdue(self, slot: Slot, now: float) -> bool:
        """Whether a process has had its time to get ready, and is not."""
        if slot.ready_at or slot.state in _AT_REST:
            return False
        until = slot.spawned_at + READY_WITHIN_S
        if (slot.id, slot.incarnation) not in self._awaited:
            self._awaited.add((slot.id, slot.incarnation))
            self._state.deadlines.add(until, "roll", slot.id)  # a tick, as in ``_note``
        return now >= until

    def _give_up_hanging(self, now: float) -> None:
        """Kill who is waited for, and hangs. New code fails by that; a process of the old is left to heal."""
        for slot in self._state.slots.values():
            awaited = slot.generation == self._state.generation and slot.id not in self._seen and not slot.leaving
            if awaited and slot.doomed is None and self._overdue(slot, now):
                self._supervisor.doom(slot, "reload", 0, now, grace_s=0.0)
                if self._failure or self._is_excused(slot):
                    self._seen.add(slot.id)
                else:
                    self.fail(f"{slot.id} did not get ready within {READY_WITHIN_S:g} s")
                    return

    def _roll(self, now: float) -> None:
        self._give_up_hanging(now)
        places = self._places(now)
        if not self._failure and (broken := self._broken()):
            self.fail(f"{broken.id} failed with the new code: {broken.trouble}")
            places = self._places(now)
        waiting = [slot for slot, stands in places if stands is _Stands.WAITING]
        waiting.sort(key=lambda slot: (slot.state not in _AT_REST, bool(slot.in_flight)))
        out = sum(stands is _Stands.COMING for _, stands in places)
        for slot in waiting[: max(0, self.batch - out)]:
            self._take(slot, now)
        if not waiting and not out:
            self._end(now)

    def _places(self, now: float) -> list[tuple[Slot, _Stands]]:
        return [(slot, self._place(slot, now)) for slot in self._state.slots.values() if not slot.leaving]

    def _place(self, slot: Slot, now: float) -> _Stands:
        at_rest = slot.state in _AT_REST
        if slot.generation == self._state.generation:
            if slot.ready_at:
                self._seen.add(slot.id)
            stays = at_rest and (self._is_excused(slot) or not self._comes_again(slot))
            if slot.retiring == "reload" and self._leaves(slot, now):
                return _Stands.COMING  # it was taken before the roll went back
            return _Stands.READY if slot.id in self._seen or stays else _Stands.COMING
        if at_rest:
            wanted = self._state.settings.auto_restart or slot.id in self._taken_at
            return _Stands.WAITING if wanted else _Stands.READY
        if not slot.retiring and slot.doomed is None:
            return _Stands.WAITING
        return _Stands.COMING if self._leaves(slot, now) else _Stands.LATE

    def _leaves(self, slot: Slot, now: float) -> bool:
        """Whether a process that is on its way out is still expected to be gone soon."""
        return now < self._note(slot, now) + PATIENCE_S

    def _comes_again(self, slot: Slot) -> bool:
        """Whether a slot without a process will have one by itself, and soon."""
        return slot.state is WorkerState.STOPPED and self._state.settings.auto_restart

    def _is_excused(self, slot: Slot) -> bool:
        """Whether it is not the new code's fault if the slot gets no worker."""
        return slot.id in self._hopeless or (bool(slot.group.worker_command) and slot.group is not self._tried)

    def _broken(self) -> Slot | None:
        """A slot in which the new code has failed for good."""
        for slot in self._state.slots.values():
            new = slot.generation == self._state.generation and slot.id not in self._seen and not slot.leaving
            if new and slot.state in _AT_REST and not self._comes_again(slot) and not self._is_excused(slot):
                return slot
        return None

    def _take(self, slot: Slot, now: float) -> None:
        self._taken_at.pop(slot.id, None)
        self._note(slot, now)
        if slot.state in _AT_REST:
            self._supervisor.renew(slot, now)
        else:
            self._supervisor.retire(slot, "reload", now)
            self._kill_unready(slot, now)

    def _note(self, slot: Slot, now: float) -> float:
        """When the slot's process was first seen on its way out."""
        since = self._taken_at.get(slot.id)
        if since is None:
            since = self._taken_at[slot.id] = now
            self._state.deadlines.add(now + PATIENCE_S, "roll", slot.id)  # a tick; ``step`` looks again after it
        return since

    def _end(self, now: float) -> None:
        self._part_with_trial(now)
        self.active = False
        state = self._state
        late = tuple(
            slot.id for slot in state.slots.values()
            if slot.generation != state.generation and slot.state not in _AT_REST and not slot.leaving
        )  # fmt: skip
        dropped = 0
        if self._failure:
            state.emit("reload-refused", {"error": self._failure})
        else:
            self._breakers.reset_all("reload")  # what failed was the old code
            state.known = self._known  # what waits in the store is looked at when it is loaded
            dropped = self._drop_unknown(now)
            state.emit("code-reloaded", {"generation": state.generation, "draining": list(late), "dropped": dropped})
        state.effects.append(Reloaded(state.generation, self._failure, late, dropped))
        self._reset(None, state.generation, lambda name: True)

    def _drop_unknown(self, now: float) -> int:
        waiting = [task for task in self._state.tasks.values() if task.slot is None and not self._known(task.name)]
        for task in waiting:
            self._lifecycle.give_up(task, now, "unknown_task", f"the app has no task {task.name!r} any more")
        return len(waiting)

"""Is the code rolled as it should be? Checked after every flush.

1. The roll takes a worker out of service only while fewer than a batch are out for its sake. Who was taken a while
   ago and is still busy is not out: it works.
2. While the new code is on trial, none of the pool's own workers is taken.
3. When a roll has ended well, who may be given work has the new code, and no task waits whose name that lacks. When
   it was refused, the generation is the one from before.
4. Each roll that has begun ends once.
"""

from __future__ import annotations

from collections.abc import Callable

from poolmgr.core.effects import Reloaded
from poolmgr.core.rollout import PATIENCE_S
from poolmgr.core.scheduler import Scheduler
from poolmgr.core.slot import Slot
from poolmgr.model import WorkerState


class RollCheck:
    """Watches the rolls of one epoch."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._generation = scheduler.state.generation
        self._known: Callable[[str], bool] | None = None
        self._retired: dict[tuple[str, int], float] = {}  # (worker, incarnation) -> when it was taken

    def began(self, known: Callable[[str], bool]) -> None:
        """A roll has begun."""
        self._known = known
        self._generation = self._scheduler.state.generation

    def check(self, now: float) -> None:
        """After a flush. Raise ``AssertionError`` with what is wrong."""
        state = self._scheduler.state
        taken = [
            slot for slot in state.slots.values()
            if slot.retiring == "reload" and (slot.id, slot.incarnation) not in self._retired
        ]  # fmt: skip
        for slot in taken:
            assert self._known is not None, f"{slot.id} was taken, and there is no roll"
            assert state.generation != self._generation or self._was_new(slot), f"{slot.id} was taken during the trial"
            self._retired[slot.id, slot.incarnation] = now
        if taken:
            batch = max(1, self._scheduler.supervisor.size() // 5)
            out = [slot.id for slot in state.slots.values() if not slot.leaving and self._is_out(slot, now)]
            assert len(out) <= batch, f"the roll has {out} out of service, and a batch is {batch}"

    def _was_new(self, slot: Slot) -> bool:
        return slot.generation != self._generation

    def _is_out(self, slot: Slot, now: float) -> bool:
        taken_at = self._retired.get((slot.id, slot.incarnation))
        return slot.state is WorkerState.DRAINING and taken_at is not None and now < taken_at + PATIENCE_S

    def ended(self, effect: Reloaded) -> None:
        """A roll has ended."""
        state = self._scheduler.state
        assert self._known is not None, "a roll has ended that had not begun"
        known, self._known = self._known, None
        assert effect.generation == state.generation
        if effect.failure:
            assert state.generation == self._generation or state.shutting_down, "it was refused, and goes on"
            return
        assert state.generation > self._generation
        old = [slot.id for slot in state.slots.values() if slot.open and slot.generation != state.generation]
        assert not old, f"{old} still take work with old code"
        unknown = [task.name for task in state.tasks.values() if task.slot is None and not known(task.name)]
        assert not unknown, f"{unknown} wait, and the app lacks them"

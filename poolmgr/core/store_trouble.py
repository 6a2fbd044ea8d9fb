"""The time in which the store refuses to write: durable work is neither taken nor started, all other work goes on.

What runs may finish, and its results wait for their commits. What was submitted before the refusal was known waits,
unacknowledged. So what is held in memory is bounded by what was there when the trouble began.
"""

from __future__ import annotations

from poolmgr.core.deadlines import NEVER
from poolmgr.core.dispatch import Dispatcher
from poolmgr.core.lifecycle import Lifecycle
from poolmgr.core.slot import Slot
from poolmgr.core.state import State
from poolmgr.core.supervisor import Supervisor


class StoreTrouble:
    """Begins and ends it. What is submitted in between is refused by ``Intake``."""

    def __init__(self, state: State, dispatcher: Dispatcher, lifecycle: Lifecycle, supervisor: Supervisor) -> None:
        self._state = state
        self._dispatcher = dispatcher
        self._lifecycle = lifecycle
        self._supervisor = supervisor

    def begins(self, why: str, commit: int, now: float) -> None:
        """The store has refused this commit, and so far all after it. May be said again.

        The starts that wait for one of these commits will not be made: the shell has dropped them. Their workers are
        free for other work.
        """
        self._state.store_trouble = why
        self._state.queue.hold_durable(True)
        for slot in self._state.slots.values():
            if slot.start_commit >= commit and slot.in_flight:
                self._take_back(slot, now)

    def _take_back(self, slot: Slot, now: float) -> None:
        task = slot.in_flight.popleft()  # the only one: nothing stands behind a start that waits
        slot.start_commit = 0
        slot.next_look = NEVER
        self._dispatcher.touch(slot)
        self._lifecycle.requeue_free(task, now, begun=False)
        self._supervisor.rest(slot, now)

    def ends(self) -> None:
        """All commits have been made."""
        self._state.store_trouble = ""
        self._state.queue.hold_durable(False)

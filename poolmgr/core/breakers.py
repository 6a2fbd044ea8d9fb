"""The circuit breakers of all names: what counts, what is held back by them, and who is told.

Names that have no trouble have no breaker here: so they cost nothing, and a success forgets all failures before it.
Nothing of this is kept: a new daemon begins with all of them closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from poolmgr.breaker import BreakerInfo, BreakerState
from poolmgr.core.breaker import Breaker
from poolmgr.core.deadlines import NEVER
from poolmgr.core.failure import Failure
from poolmgr.core.state import State
from poolmgr.model import RESERVED

BLOCK: Final = "breaker"  # why the queue holds a lane
_ERROR_CHARS: Final = 200


class Breakers:
    """``State.breakers`` holds those that there are."""

    def __init__(self, state: State) -> None:
        self._state = state

    def failed(self, name: str, fence: int, failure: Failure, now: float) -> bool:
        """An attempt has failed. True: from now on the name is held back."""
        state, settings = self._state, self._state.settings
        if not settings.breaker_failures or name.startswith(RESERVED):  # those are calls of anything: no one service
            return False
        if not failure.is_a_fault:
            self.spared(name, fence)
            return False
        breaker = state.breakers.get(name)
        if breaker is None:
            breaker = state.breakers[name] = Breaker(
                name, settings.breaker_failures, settings.breaker_window_s, settings.breaker_open_s
            )
        error = f"{failure.type}: {failure.message}" if failure.type else failure.message
        error = error[:_ERROR_CHARS]
        if not breaker.failed(fence, error, state.last_fence, now):
            return False
        state.queue.block(name, BLOCK)
        self._wake(breaker)
        retry_at = breaker.due_at + state.wall_offset
        state.emit(
            "breaker-opened",
            {"name": name, "failures": breaker.failures, "retry_at": retry_at, "error": error},
        )
        return True

    def completed(self, name: str, fence: int) -> None:
        """An attempt of a name that has a breaker has completed."""
        breaker = self._state.breakers[name]
        if breaker.completed(fence):
            self._close(breaker, "probe")

    def spared(self, name: str, fence: int) -> None:
        """An attempt has ended, and that says nothing of the name."""
        breaker = self._state.breakers.get(name)
        if breaker is not None and breaker.spared(fence):
            self._state.queue.unblock(name, BLOCK)

    def started(self, name: str, fence: int, now: float) -> None:
        """A task of a name that has a breaker is given to a worker."""
        breaker = self._state.breakers[name]
        if breaker.state is not BreakerState.CLOSED:
            breaker.started(fence, now)
            self._state.queue.block(name, BLOCK)
            self._wake(breaker)

    def tries(self, name: str) -> bool:
        """Whether what is started of this name is a probe."""
        breaker = self._state.breakers.get(name)
        return breaker is not None and breaker.state is not BreakerState.CLOSED

    def due(self, name: str, now: float) -> None:
        """A name's time has come, or is later by now."""
        breaker = self._state.breakers.get(name)
        if breaker is None:
            return
        breaker.wakes_at = NEVER
        if breaker.due(now):
            self._state.queue.unblock(name, BLOCK)
        else:
            self._wake(breaker)

    def _wake(self, breaker: Breaker) -> None:
        """See to it that ``due`` is called. One entry is enough: probes that come to nothing may be thousands."""
        if breaker.due_at < breaker.wakes_at:
            breaker.wakes_at = breaker.due_at
            self._state.deadlines.add(breaker.due_at, BLOCK, breaker.name)

    def reset(self, name: str, reason: str = "reset") -> None:
        """Forget the failures of a name, and begin its tasks again."""
        breaker = self._state.breakers.get(name)
        if breaker is not None:
            self._close(breaker, reason)

    def reset_all(self, reason: str) -> None:
        """The same of all names."""
        for name in list(self._state.breakers):
            self.reset(name, reason)

    def _close(self, breaker: Breaker, reason: str) -> None:
        del self._state.breakers[breaker.name]
        self._state.queue.unblock(breaker.name, BLOCK)
        if breaker.state is not BreakerState.CLOSED:
            fields = {"name": breaker.name, "failures": breaker.failures, "reason": reason}
            self._state.emit("breaker-closed", fields)


def breaker_infos(state: State, now: float) -> list[BreakerInfo]:
    """Every breaker that is not closed, or that has counted failures; by name."""
    infos = (_info(breaker, state.wall_offset, now) for _, breaker in sorted(state.breakers.items()))
    return [info for info in infos if info.failures]


def _info(breaker: Breaker, wall_offset: float, now: float) -> BreakerInfo:
    if breaker.state is BreakerState.CLOSED:
        return BreakerInfo(breaker.name, breaker.state, breaker.recent(now), error=breaker.error)
    probe_at = None if breaker.due_at == NEVER else breaker.due_at + wall_offset
    return BreakerInfo(
        breaker.name, breaker.state, breaker.failures, breaker.opened_at + wall_offset, probe_at, breaker.probe != 0,
        breaker.error,
    )  # fmt: skip


def breaker_alerts(state: State, now: float) -> Iterator[str]:
    """What is held back, in words for people."""
    for name, breaker in sorted(state.breakers.items()):
        if breaker.state is BreakerState.OPEN:
            next_s = max(0.0, breaker.due_at - now)
            yield (
                f"{name} failed {breaker.failures} times in a row and is held back; tried again in {next_s:.0f} s "
                f"(poolmgr breakers): {breaker.error}"
            )
        elif breaker.state is BreakerState.HALF_OPEN:
            doing = "runs" if breaker.probe else "is waited for"
            yield f"{name} failed {breaker.failures} times in a row: a task that tries it {doing} (poolmgr breakers)"

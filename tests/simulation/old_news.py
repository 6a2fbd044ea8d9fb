"""Messages that come twice, or from processes that are gone: nothing may happen."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from poolmgr.core.scheduler import Scheduler
from tests.simulation.world import World

_KEPT: Final = 64

Method = Callable[..., Any]


class OldNews:
    """What workers have said in one epoch."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._said: deque[tuple[Method, tuple[Any, ...]]] = deque(maxlen=_KEPT)

    def remember(self, method: Method, arguments: tuple[Any, ...]) -> None:
        """``method`` is being told this, and the time. The first argument is the worker."""
        self._said.append((method, arguments))

    def repeat(self, tell: Callable[..., Any], world: World) -> None:
        """Say something again that has long been dealt with, or that a process said which is gone.

        An attempt's end is old once it was told, for its fence has passed. Everything else is old once its process is
        (the second argument is the incarnation).
        """
        if not self._said:
            return
        method, arguments = world.random.choice(self._said)
        scheduler = self._scheduler
        state = scheduler.state
        slot = state.slots.get(arguments[0])
        fenced = (scheduler.attempts_done, scheduler.attempt_failed, scheduler.released)
        if method not in fenced and slot is not None and slot.incarnation == arguments[1]:
            return
        before = len(state.effects), len(state.tasks), len(state.queue), state.last_fence
        tell(method, *arguments, world.now)
        after = len(state.effects), len(state.tasks), len(state.queue), state.last_fence
        assert before == after, f"{method.__name__}{arguments} was old news, and was believed"

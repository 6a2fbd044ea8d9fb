"""The circuit breaker of one name: whether its tasks are worth beginning, by how the last ones ended.

    closed --(so many failures in a row, within the window)--> open --(its time is over)--> half-open
      ^                                                          ^                             |
      |                                                          '------(the probe fails)------|
      '---------------------------------------------------------------(the probe completes)----'

Half-open, one task may be started: the probe. One that comes to no verdict (it was cancelled, recalled, preempted, its
daemon wanted its worker) gives its place to the next, and so does one that takes too long; but its verdict counts
whenever it comes. What was started before the breaker opened says nothing any more: those attempts may have met the
same trouble, or have begun before it.
"""

from __future__ import annotations

from collections import deque

from poolmgr.breaker import BreakerState
from poolmgr.core.deadlines import NEVER


class Breaker:
    """One name's. ``due_at`` is when ``due`` is to be called.

    Args:
        name: of the tasks.
        most: so many failures open it,
        window_s: within this time,
        open_s: for so long.
    """

    __slots__ = (
        "_most", "_open_s", "_times", "_window_s", "due_at", "error", "failures", "late", "name", "opened_at", "probe",
        "since", "state", "wakes_at",
    )  # fmt: skip

    def __init__(self, name: str, most: int, window_s: float, open_s: float) -> None:
        self.name = name
        self.state = BreakerState.CLOSED
        self.failures = 0  # since the last success
        self.error = ""  # how the last failed
        self.opened_at = 0.0
        self.due_at = NEVER
        self.wakes_at = NEVER  # when ``due`` will be called next, as far as is arranged
        self.probe = 0  # the fence of the one that runs; 0: none does, or it takes too long
        self.since = 0  # attempts of later fences were started since it opened
        self.late = 0  # probes that took too long, and may still run
        self._most = most
        self._window_s = window_s
        self._open_s = open_s
        self._times: deque[float] = deque(maxlen=most)

    def recent(self, now: float) -> int:
        """How many failures would count if there was one more now."""
        return sum(at > now - self._window_s for at in self._times)

    @property
    def holds(self) -> bool:
        """Whether nothing may be started."""
        return self.state is BreakerState.OPEN or (self.state is BreakerState.HALF_OPEN and self.probe != 0)

    def failed(self, fence: int, error: str, last_fence: int, now: float) -> bool:
        """An attempt has failed, and it is the task's fault. True: by that the breaker has opened, perhaps again.

        ``last_fence`` is the last that there was, of any task.
        """
        if self.state is BreakerState.CLOSED:
            self.failures = self.recent(now) + 1
            self._times.append(now)
            self.error = error
            if self.failures < self._most:
                return False
            self.opened_at = now
        elif fence <= self.since:
            return False
        else:
            self.failures += 1
            self.error = error
        self.state = BreakerState.OPEN
        self.probe = self.late = 0
        self.since = last_fence
        self.due_at = now + self._open_s
        return True

    def completed(self, fence: int) -> bool:
        """An attempt has completed. True: the name has no trouble any more."""
        return self.state is BreakerState.CLOSED or fence > self.since

    def started(self, fence: int, now: float) -> None:
        """The probe has been given to a worker."""
        self.probe = fence
        self.due_at = now + self._open_s

    def spared(self, fence: int) -> bool:
        """An attempt has ended without a verdict. True: it was the probe, and another may be started."""
        if self.probe != fence:
            return False
        self.probe = 0
        self.due_at = NEVER
        return True

    def due(self, now: float) -> bool:
        """Time has passed. True: a probe may be started; the one before, if there is one, takes too long."""
        if self.due_at > now:
            return False
        self.late += self.probe != 0
        self.state = BreakerState.HALF_OPEN
        self.probe = 0
        self.due_at = NEVER
        return True

"""How much of what one worker prints and logs reaches the daemon's log: so many lines and bytes in five seconds.

A log record costs the daemon some 30 us, and everybody waits meanwhile; a task prints a line in three. What is beyond
the budget is counted, and the count is logged when the five seconds are over. They are many enough to let a burst pass,
and to keep 20 workers that print without end below a fifth of the daemon's time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

LINES: Final = 1000
BYTES: Final = 256 * 1024
WINDOW_S: Final = 5.0


class Budget:
    """``clock`` tells seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.suppressed = 0  # lines, since the last ``renewed``
        self._clock = clock
        self._ends_at = 0.0
        self._lines = 0
        self._bytes = 0

    @property
    def spent(self) -> bool:
        """Lines are being suppressed: it is worth while not to look at them at all."""
        return self.suppressed > 0

    def spend(self, size: int) -> bool:
        """Whether one more line, of ``size`` bytes, may be logged. If not, it counts as suppressed."""
        if self.suppressed:
            self.suppressed += 1
            return False
        if self._clock() >= self._ends_at:
            self._ends_at = self._clock() + WINDOW_S
            self._lines, self._bytes = LINES, BYTES
        if self._lines <= 0 or self._bytes <= 0:
            self.suppressed += 1
            return False
        self._lines -= 1
        self._bytes -= size
        return True

    def renewed(self, *, anyway: bool = False) -> int:
        """Where its time is over (or ``anyway``), how many lines it has suppressed; the next may be logged again."""
        if not anyway and self._clock() < self._ends_at:
            return 0
        suppressed, self.suppressed = self.suppressed, 0
        return suppressed

"""How short of memory the machine is."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

STALLED: Final = 10.0  # percent of the last ten seconds: so much is worth a word, and a level (core/pressure.py)


class Level(IntEnum):
    """Each does what the ones below it do, and more. See core/pressure.py."""

    NORMAL = 0
    HIGH = 1  # LOW work is held, sheddable work that waits ends
    CRITICAL = 2  # one task after the other gives way
    EMERGENCY = 3  # nothing starts but CRITICAL tasks

    @property
    def word(self) -> str:
        """As people and programs are told."""
        return self.name.lower()


class Memory:
    """The level, and what was measured last.

    Attributes:
        percent: of the memory that is in use, page cache left out.
        stalled: percent of the last ten seconds in which all work stood still for want of it.
        of: whose memory that is: the machine's, or a control group's; '' while nothing is measured.
    """

    __slots__ = ("level", "of", "percent", "stalled")

    def __init__(self) -> None:
        self.level = Level.NORMAL
        self.percent = 0.0
        self.stalled = 0.0
        self.of = ""

    @property
    def why(self) -> str:
        """What was measured, in words for people."""
        if not self.of:
            return "it is not measured"
        stalls = f"; all work stood still for {self.stalled:.0f} % of the last 10 s" if self.stalled >= STALLED else ""
        return f"{self.percent:.0f} % of {self.of} is in use, page cache left out{stalls}"

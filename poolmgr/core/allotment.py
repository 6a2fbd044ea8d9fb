"""So many bytes of memory, for holders of whom nobody knows how many there are.

Each may have half of what the others leave. One alone has half of all, of two each has a third, and however many there
are, together they stay below the whole; what one gives up is there for the others at once, and nobody is counted. This
is how switches share the memory of their buffers: Choudhury and Hahne, "Dynamic Queue Length Thresholds for
Shared-Memory Packet Switches", 1998.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from poolmgr.payload import Payload


class Weighed(Protocol):
    """What has a payload."""

    @property
    def payload(self) -> Payload:
        """Its bytes are what it weighs."""
        ...


W = TypeVar("W", bound=Weighed)


class Allotment:
    """``held`` of ``whole`` bytes are taken; whoever takes or gives changes that. It may be more than the whole: some
    things must be held whatever they weigh."""

    __slots__ = ("held", "whole")

    def __init__(self, whole: int) -> None:
        self.whole = whole
        self.held = 0

    def share(self, own: int) -> int:
        """How many bytes a holder of ``own`` bytes may have; 0 where the others have everything."""
        return max(0, self.whole - self.held + own) // 2


def weight(things: Iterable[Weighed]) -> int:
    """What they weigh together, in bytes."""
    return sum([len(each.payload) for each in things])


def that_fit(things: Iterable[W], most: int, most_bytes: int) -> list[W]:
    """The first ``most`` of them that weigh no more than ``most_bytes`` together; but one, if there is one."""
    found = first_of(things, most, most_bytes)
    if len(found) > 1 and weight(found) > most_bytes:
        found.pop()
    return found


def first_of(things: Iterable[W], most: int, most_bytes: int) -> list[W]:
    """The first ``most`` of them, and none beyond the one with which they weigh ``most_bytes``: so one, at least.

    No more than these are taken from ``things``.
    """
    found: list[W] = []
    weighs = 0
    for each in things:
        found.append(each)
        weighs += len(each.payload)
        if len(found) >= most or weighs >= most_bytes:
            break
    return found

"""Clients that wait for room in the queue: each is answered once, and nothing is promised that is not kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from poolmgr.core.effects import Answer, Refusal

_ENDS: Final = frozenset({"queue_full", "shutting_down"})


class Waiters:
    """Those of one life of the daemon."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[int, Callable[[int], None]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, token: int, places: int, given: Callable[[int], None]) -> None:
        """Somebody asks for so many places, and ``given`` is called with how many there are."""
        self._waiting[token] = places, given

    def answered(self, effect: Answer) -> bool:
        """Whether it is the answer to one of them. That is 0 where it does not wait any more."""
        found = self._waiting.pop(effect.token, None)
        if found is None:
            return False
        places, given = found
        assert 0 <= effect.value <= places, f"{effect}: {places} places were asked for"
        given(effect.value)
        return True

    def refused(self, effect: Refusal) -> None:
        """There was no room in time, or there will be none."""
        assert effect.token in self._waiting, f"{effect}: answered twice, or nobody asked"
        assert effect.code in _ENDS, effect
        del self._waiting[effect.token]

"""Who of a sync client's threads reads: the leader. The others follow, each asleep on a lock of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress


class _Follower:
    """A thread that sleeps until ``settled()``, or until it may lead."""

    __slots__ = ("settled", "wake")

    def __init__(self, settled: Callable[[], bool]) -> None:
        self.settled = settled
        self.wake = threading.Lock()
        self.wake.acquire()


class Lead:
    """The lead, and those who sleep until it is free or what they wait for has come.

    A follower is registered before it looks at the lead for the last time, and a leader looks at the followers after it
    has given up the lead (``tell``): so the lead is never free while somebody sleeps.

    Attributes:
        held: the leader holds it.
        followers: those who sleep.
    """

    def __init__(self) -> None:
        self.held = threading.Lock()
        self.followers: list[_Follower] = []

    def follow(self, settled: Callable[[], bool], timeout_s: float) -> None:
        """Sleep until ``settled()``, or the lead may be free, or for so long."""
        follower = _Follower(settled)
        self.followers.append(follower)
        try:
            if settled():
                return
            if self.held.acquire(blocking=False):
                self.held.release()
                return
            follower.wake.acquire(timeout=timeout_s)
        except BaseException:
            self.tell(is_free=True)
            raise
        finally:
            with suppress(ValueError):
                self.followers.remove(follower)
        if settled() and self.followers and not self.held.locked():
            self.tell(is_free=True)  # it was woken to lead, and has no need to any more

    def tell(self, *, is_free: bool) -> None:
        """Wake those who have what they wait for; and where the lead is free, one more to take it."""
        for follower in tuple(self.followers):
            settled = follower.settled()
            if settled or is_free:
                is_free = is_free and settled
                with suppress(ValueError):  # it has woken by itself
                    self.followers.remove(follower)
                    follower.wake.release()

"""What the sync client's ``map`` and ``events`` return: iterators that read the connection as they are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from types import TracebackType
from typing import Self, TypeVar

from poolmgr.client import commands
from poolmgr.client.batches import Batches
from poolmgr.client.link import Link
from poolmgr.errors import ConnectionLost
from poolmgr.model import Event

R = TypeVar("R")


class MapResults(Iterator[R]):
    """The results of ``map``, in the order of its inputs. Has a length where these have one (so ``tqdm`` shows it).

    Ends with the first failure. ``close``, or letting go of it, cancels the calls that were not taken.
    """

    def __init__(self, live: Callable[[], Link], batches: Batches[R], timeout: float | None) -> None:
        self._live = live
        self._link = live()
        self._batches = batches
        self._deadline = None if timeout is None else monotonic() + timeout
        batches.send(self._link)

    def __next__(self) -> R:
        batches = self._batches
        if not batches.waiting and batches.left != 0:
            self._link = self._live()  # the connection may have been lost with nothing on it
        try:
            if batches.next_is_there:
                return batches.take()
            sent = batches.send(self._link)
            while not (batches.waiting and batches.waiting[0].outcome is not None):
                if not batches.waiting and batches.is_read:
                    raise StopIteration
                if sent:
                    self._link.look()
                else:
                    self._wait()
                sent = batches.send(self._link)
            return batches.take()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        """Until the next result has come, or room for more."""
        head = self._batches.waiting[0] if self._batches.waiting else None
        asked, protocol = self._batches.asked, self._link.protocol

        def has_come() -> bool:
            if asked is None and self._batches.wants_room:  # it is to be asked for when there is a connection again
                return protocol.down is None or protocol.lost is not None
            return (head is not None and head.outcome is not None) or (asked is not None and asked.outcome is not None)

        timeout = None if self._deadline is None else self._deadline - monotonic()
        if not self._link.wait(has_come, timeout):
            raise TimeoutError("the next result of map did not come in time")

    def close(self) -> None:
        """Cancel what was not taken. Nothing more comes. Safe to call twice."""
        left = self._batches.end()
        if (asked := self._batches.leave()) is not None:
            self._link.leave(commands.leave_room(asked.number))
        self._link.abandon(left)

    def __len__(self) -> int:
        left = self._batches.left
        if left is None:
            raise TypeError("an input of this map has no length")
        return left

    def __length_hint__(self) -> int:
        return self._batches.left or 0

    def __bool__(self) -> bool:
        return True

    def __del__(self) -> None:
        if hasattr(self, "_batches"):
            self.close()


class EventStream(Iterator[Event]):
    """Events as they happen, on a connection of their own: a slow reader delays nobody.

    Iteration blocks until the next event. It ends after ``close`` (also from another thread), and raises
    ``ConnectionLost`` when the daemon goes.
    """

    def __init__(self, link: Link, names: tuple[str, ...], timeout_s: float) -> None:
        self._link = link
        self._names = frozenset(names)
        self._closed = False
        try:
            link.ask(commands.EVENTS, timeout_s)
        except BaseException:
            self.close()
            raise

    def __next__(self) -> Event:
        protocol = self._link.protocol
        while True:
            while protocol.events:
                event = protocol.events.popleft()
                if not self._names or event.name in self._names:
                    return event
            if self._closed:
                raise StopIteration
            if protocol.lost is not None:
                raise protocol.lost
            self._link.wait(lambda: bool(protocol.events) or protocol.lost is not None)

    def close(self) -> None:
        """End it. Safe to call twice."""
        self._closed = True
        self._link.close(ConnectionLost("the events were closed"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

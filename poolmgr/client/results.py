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
        self._link.submit_all(batches.next_batch(self._link.protocol.files))

    def __next__(self) -> R:
        batches = self._batches
        if not batches.waiting and batches.left != 0:
            self._link = self._live()  # the connection may have been lost with nothing on it
        if self._link.protocol.lost is None and (batch := batches.next_batch(self._link.protocol.files)):
            self._link.submit_all(batch)
        if not batches.waiting:
            raise StopIteration
        head = batches.waiting[0]
        try:
            while head.outcome is None and (batch := batches.next_batch(self._link.protocol.files)):
                self._link.submit_all(batch)
                self._link.look()
            if head.outcome is None:
                timeout = None if self._deadline is None else self._deadline - monotonic()
                if not self._link.wait(lambda: head.outcome is not None, timeout):
                    raise TimeoutError("the next result of map did not come in time")
            return batches.take()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cancel what was not taken. Nothing more comes. Safe to call twice."""
        self._link.abandon(self._batches.end())

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

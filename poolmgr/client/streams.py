"""What the sync client's ``stream`` and ``chunks`` return."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self, TypeVar

from poolmgr.client import commands
from poolmgr.client.link import Link
from poolmgr.client.pending import Pending
from poolmgr.client.reading import FIRST_PAUSE_S, LONGEST_PAUSE_S, Reading, given_up
from poolmgr.errors import ConnectionLost, NotFound, PoolError, Unavailable

R = TypeVar("R")


class ChunkStream(Iterator[R]):
    """The chunks of a task's stream, as they come: an iterator, for one thread at a time.

    At the end it raises what ``result`` raises, where the task has not completed. As long as a chunk is not taken, the
    task may yield ten more, or 50 MB; then it waits.

    ``close``, leaving its ``with`` block, or letting go of it, ends the reading: a call is cancelled by that, a durable
    task goes on. Where its connection breaks, the stream of a durable task goes on at its place on another.
    """

    def __init__(
        self,
        live: Callable[[], Link] | None,
        link: Link,
        end: Pending[Any],
        key: bytes,
        offset: int,
        *,
        is_call: bool,
        timeout_s: float | None = None,
    ) -> None:
        self._live = live
        self._link = link
        self._is_call = is_call
        self._timeout_s = timeout_s
        self._closed = False
        self._reading: Reading[R] = Reading(end, key, offset)
        link.protocol.readings.add(self._reading)

    @property
    def id(self) -> str:
        """The task's id, 32 hex digits."""
        return self._reading.key.hex()

    @property
    def offset(self) -> int:
        """The number of the next chunk: with it ``Client.chunks`` goes on from here, in another process, too."""
        return self._reading.offset

    def result(self, timeout: float | None = None) -> Any:
        """What the task has returned, once it has ended; errors are those of ``TaskFuture.result``.

        A task that has to wait for its reader does not end.
        """
        end = self._reading.end
        if self._closed and self._is_call and end.outcome is None:
            raise given_up(self.id)
        if not self._link.wait(lambda: end.outcome is not None, timeout):
            raise TimeoutError(f"task {self.id} has not ended within {timeout} s")
        return end.value()

    def __next__(self) -> R:
        reading = self._reading
        while self._closed or not reading.has_chunk:
            if self._closed or reading.was_told:
                raise StopIteration
            if reading.is_over:
                self._tell_outcome()
                raise StopIteration
            self._pull()
        return reading.take()

    def _pull(self) -> None:
        reading = self._reading
        try:
            if reading.asked is None:
                if self._link.protocol.down is not None:
                    self._link.reconnect()
                reading.asked = self._link.put(reading.question())
            asked = reading.asked
            self._link.wait(lambda: asked.outcome is not None)
            reading.came()
        except NotFound as error:
            self._look_elsewhere(error)
        except Unavailable as error:
            if not reading.goes_on(error):
                raise self._outcome() or error from None
            self._connect(error)

    def _look_elsewhere(self, error: NotFound) -> None:
        """The daemon does not know the task by this id. What has become of its submit is on its way."""
        reading, window = self._reading, self._link.protocol.window
        end = reading.end
        self._link.wait(lambda: window.acknowledged >= end.number or end.outcome is not None)
        if not reading.is_elsewhere():
            if not reading.is_empty(error):
                raise self._outcome() or error from None
            reading.is_over = True

    def _outcome(self) -> BaseException | None:
        """The error that the task has ended with, if any."""
        return self._reading.end.error() if self._reading.end.outcome is not None else None

    def _tell_outcome(self) -> None:
        reading = self._reading
        self._link.wait(lambda: reading.end.outcome is not None)
        reading.was_told = True
        self._link.protocol.readings.discard(reading)
        if (error := reading.end.error()) is not None:
            raise error

    def _connect(self, why: PoolError) -> None:
        """Have a connection again, for as long as that is tried."""
        began, pause = monotonic(), FIRST_PAUSE_S
        while True:
            protocol = self._link.protocol
            if protocol.down is None:
                return
            if protocol.lost is not None and (self._live is None or monotonic() - began > self._link.patience_s):
                raise self._outcome() or why
            try:
                if protocol.lost is None:
                    self._link.reconnect()
                elif self._live is not None:
                    self._on_another(self._live())
                return
            except Unavailable as error:
                why = error
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _on_another(self, link: Link) -> None:
        reading = self._reading
        self._link.protocol.readings.discard(reading)
        self._link = link
        link.protocol.readings.add(reading)
        if reading.end.outcome is None or isinstance(reading.end.outcome, ConnectionLost):
            reading.end = link.watch(reading.key, self._timeout_s)

    def close(self) -> None:
        """Read no more. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._link.protocol.readings.discard(self._reading)
        if not self._reading.is_over:
            if self._is_call:
                self._link.abandon((self._reading.end,))
            self._link.leave(self._reading.detachment())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_reading"):
            self.close()


def chunks_of(live: Callable[[], Link], task_id: str, offset: int, timeout_s: float) -> ChunkStream[Any]:
    """The stream of a task that somebody has submitted, from the chunk ``offset`` on."""
    key = commands.key_of(task_id)
    link = live()
    end = link.watch(key, timeout_s)
    return ChunkStream(live, link, end, key, offset, is_call=False, timeout_s=timeout_s)

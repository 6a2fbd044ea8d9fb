"""The calls of one ``map``: made from its inputs, lazily and in batches, and taken back in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from operator import length_hint
from time import monotonic
from typing import Any, Final, Generic, TypeVar

from poolmgr.client.files import Files
from poolmgr.client.outgoing import packed
from poolmgr.client.pending import Pending
from poolmgr.client.together import Submit
from poolmgr.errors import PoolError
from poolmgr.parcels.parcel import Parcel
from poolmgr.payload import Payload

R = TypeVar("R")

CHUNK: Final = 128  # calls in one send, by default
IN_FLIGHT: Final = 4096  # calls that are not taken back yet
_IN_FLIGHT_BYTES: Final = 16 * 1024 * 1024  # ... and what their arguments, and results of the usual size, may take
_LEAST_IN_FLIGHT: Final = 64  # however large they are: every worker has one, and one to come
_BATCH_BYTES: Final = 1024 * 1024  # a batch ends early when it is so large ...
_BATCH_S: Final = 0.005  # ... or when the inputs come slowly: the first of it shall not wait for the last


class Batches(Generic[R]):
    """What ``map`` has still to send, and what it waits for.

    Attributes:
        waiting: the calls that were sent and not taken back, oldest first.
    """

    def __init__(
        self,
        inputs: tuple[Iterable[Any], ...],
        name: str,
        options: bytes,
        chunksize: int,
        make: Callable[[], Pending[R]],
    ) -> None:
        self.waiting: deque[Pending[R]] = deque()
        self._name = name
        self._options = options
        self._chunk = chunksize
        self._in_flight = max(IN_FLIGHT, 2 * chunksize)
        self._make = make
        self._unread: int | None = _shortest(inputs)
        self._inputs: Iterator[tuple[Any, ...]] | None = zip(*inputs, strict=False) if inputs else None
        self._sizes: deque[int] = deque()  # of the arguments of those waiting
        self._waiting_bytes = 0
        self._taken = 0
        self._taken_bytes = 0  # of results

    @property
    def left(self) -> int | None:
        """How many calls are to be taken back; None where an input has no length."""
        return None if self._unread is None else self._unread + len(self.waiting)

    def next_batch(self, files: Files) -> list[Submit]:
        """Calls to send now. Empty: enough are in flight, or the inputs are used up. ``files``: of the connection.

        What fails before it is sent, an input or its encoding, becomes the outcome of its place, as a result would.
        """
        if self._inputs is None or not self._has_room():
            return []
        batch: list[Submit] = []
        before = len(self.waiting)
        size, ends_at = 0, monotonic() + _BATCH_S
        while len(batch) < self._chunk and size < _BATCH_BYTES:
            pending = self._make()
            payload: Payload = b""
            try:
                payload = packed(next(self._inputs), {}, files)
                batch.append((pending, self._name, payload, self._options))
            except StopIteration:
                self._end()
                break
            except PoolError as error:
                pending.outcome = error
            except Exception as error:  # of the user's own iterable
                pending.outcome = error
                self._end()
                ends_at = 0.0
            self.waiting.append(pending)
            self._sizes.append(len(payload))
            self._waiting_bytes += len(payload)
            size += len(payload)
            if monotonic() > ends_at:
                break
        if self._unread is not None:
            self._unread = max(self._unread - (len(self.waiting) - before), 0)
        return batch

    def take(self) -> R:
        """The result of the oldest call, which must have its outcome. Errors: those of ``Pending.value``."""
        pending = self.waiting.popleft()
        self._waiting_bytes -= self._sizes.popleft()
        outcome = pending.outcome
        if isinstance(outcome, (list, tuple)) and len(outcome) > 2 and isinstance(outcome[2], (bytes, Parcel)):
            self._taken += 1
            self._taken_bytes += len(outcome[2])
        return pending.value()

    def end(self) -> list[Pending[R]]:
        """Nothing more is to be sent or taken. Returns the calls that nobody waits for any longer."""
        self._end()
        left, self.waiting = self.waiting, deque()
        return list(left)

    def _end(self) -> None:
        self._inputs = None
        self._unread = 0

    def _has_room(self) -> bool:
        waiting = len(self.waiting)
        if waiting + self._chunk > self._in_flight:
            return False
        results = waiting * (self._taken_bytes // self._taken) if self._taken else 0
        return self._waiting_bytes + results < _IN_FLIGHT_BYTES or waiting < _LEAST_IN_FLIGHT


def _shortest(inputs: tuple[Iterable[Any], ...]) -> int | None:
    lengths = [length_hint(each, -1) for each in inputs]
    return None if -1 in lengths else min(lengths, default=0)

"""The calls of one ``map``: made from its inputs, lazily and in batches, and taken back in their order.

As a rule calls are sent without asking. Where the daemon refuses some, since its queue is full, those are sent again,
and from then on this asks for room before it sends anything (or from the beginning, with ``block=True``): so no more is
under way than the daemon has room for. One request is under way at a time, and its answer says how many may be sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from operator import length_hint
from time import monotonic
from typing import Any, Final, Generic, Protocol, TypeVar

from poolmgr.client import commands
from poolmgr.client.calling import Options
from poolmgr.client.files import Files
from poolmgr.client.outgoing import packed
from poolmgr.client.pending import Pending
from poolmgr.client.protocol import Protocol as Connection
from poolmgr.client.together import Submit
from poolmgr.errors import PoolError, QueueFull
from poolmgr.parcels.parcel import Parcel
from poolmgr.payload import Payload
from poolmgr.wire.messages import COMPLETED, REFUSED

R = TypeVar("R")

CHUNK: Final = 128  # calls in one send, by default
IN_FLIGHT: Final = 4096  # calls that are not taken back yet
_IN_FLIGHT_BYTES: Final = 16 * 1024 * 1024  # ... and what their arguments, and results of the usual size, may take
_LEAST_IN_FLIGHT: Final = 64  # however large they are: every worker has one, and one to come
_BATCH_BYTES: Final = 1024 * 1024  # a batch ends early when it is so large ...
_BATCH_S: Final = 0.005  # ... or when the inputs come slowly: the first of it shall not wait for the last


class Sender(Protocol):
    """What ``Batches`` needs of a connection, sync or async."""

    @property
    def protocol(self) -> Connection: ...
    def put(self, question: commands.Question[int]) -> Pending[Any]: ...
    def submit_all(self, batch: list[Submit], waited: bool) -> None: ...
    def leave(self, word: commands.Question[None]) -> None: ...


class Batches(Generic[R]):
    """What ``map`` has still to send, and what it waits for.

    Attributes:
        waiting: the calls that were made and not taken back, oldest first.
        asked: for room, when there is no answer yet.
    """

    def __init__(
        self,
        inputs: tuple[Iterable[Any], ...],
        name: str,
        options: Options,
        chunksize: int,
        make: Callable[[], Pending[R]],
    ) -> None:
        self.waiting: deque[Pending[R]] = deque()
        self.asked: Pending[Any] | None = None
        self._asks = options.block
        self._timeout_s = options.block_timeout_s
        self._again: deque[Submit] = deque()  # those of the waiting that were refused, and are to be sent again
        self._name = name
        self._options = options.for_call
        self._chunk = chunksize
        self._in_flight = max(IN_FLIGHT, 2 * chunksize)
        self._make = make
        self._unread: int | None = _shortest(inputs)
        self._inputs: Iterator[tuple[Any, ...]] | None = zip(*inputs, strict=False) if inputs else None
        self._payloads: deque[Payload] = deque()  # the arguments of those waiting
        self._waiting_bytes = 0
        self._taken = 0
        self._taken_bytes = 0  # of results

    @property
    def left(self) -> int | None:
        """How many calls are to be taken back; None where an input has no length."""
        return None if self._unread is None else self._unread + len(self.waiting)

    @property
    def is_read(self) -> bool:
        """Whether the inputs are used up."""
        return self._inputs is None

    def send(self, link: Sender) -> bool:
        """Send what may be sent now; whether that was anything.

        Raises:
            PoolError: there is no room, and will be none: in time, or on this connection, which is lost.
        """
        protocol = link.protocol
        if protocol.down is None:
            self._look_for_refused()
        if not self._asks:
            batch = [] if protocol.down is not None else self._next_batch(protocol.files, self._chunk)
            if batch:
                link.submit_all(batch, False)
            return bool(batch)
        if (places := self._places(link)) == 0:
            return False
        asked, self.asked = self.asked, None
        assert asked is not None
        batch = [self._again.popleft() for _ in range(min(places, len(self._again)))]
        batch += self._next_batch(protocol.files, min(places - len(batch), self._chunk))
        if batch:
            link.submit_all(batch, True)
        if len(batch) < places:  # said behind the submits, which would have no places any more
            link.leave(commands.leave_room(asked.number))
        return bool(batch)

    def _places(self, link: Sender) -> int:
        """For how many calls there is room, by the answer that has come; 0: none has. Asks, if need be."""
        protocol = link.protocol
        if self.asked is None:
            if not self.wants_room or self._has_result:
                return 0
            if protocol.lost is not None:
                raise protocol.lost
            if protocol.down is None:
                self.asked = link.put(commands.room(self._name, self._wanted(), self._options, self._timeout_s))
            return 0
        if self.asked.outcome is None:
            return 0
        try:
            return int(self.asked.value())
        except PoolError as error:
            self.asked = None
            is_down = protocol.down is not None and protocol.lost is None  # it is asked again on the next connection
            under_way = len(self.waiting) - len(self._again)
            if self._has_result or is_down or (isinstance(error, QueueFull) and under_way):
                return 0
            raise

    @property
    def _has_result(self) -> bool:
        """Whether the oldest call has its outcome."""
        return bool(self.waiting) and self.waiting[0].outcome is not None

    @property
    def wants_room(self) -> bool:
        """Whether it is to ask for room, or has."""
        return self._asks and self._wanted() > 0

    def _wanted(self) -> int:
        """For how many calls room is wanted now."""
        if self._again:
            return min(len(self._again), self._chunk)
        return self._chunk if self._inputs is not None and self._has_room() else 0

    def _look_for_refused(self) -> None:
        """What the daemon had no room for goes once more, whenever the oldest or the latest call is of that kind."""
        waiting = self.waiting
        if not waiting or not (_is_refused(waiting[0]) or _is_refused(waiting[-1])):
            return
        self._asks = True
        for pending, payload in zip(waiting, self._payloads, strict=True):
            if _is_refused(pending):
                pending.outcome = None
                self._again.append((pending, self._name, payload, self._options))

    def _next_batch(self, files: Files, most: int) -> list[Submit]:
        """At most so many calls to send now. Empty: enough are in flight, or the inputs are used up. ``files``: of the
        connection.

        What fails before it is sent, an input or its encoding, becomes the outcome of its place, as a result would.
        """
        if self._inputs is None or not self._has_room() or most < 1:
            return []
        batch: list[Submit] = []
        before = len(self.waiting)
        size, ends_at = 0, monotonic() + _BATCH_S
        while len(batch) < most and size < _BATCH_BYTES:
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
            self._payloads.append(payload)
            self._waiting_bytes += len(payload)
            size += len(payload)
            if monotonic() > ends_at:
                break
        if self._unread is not None:
            self._unread = max(self._unread - (len(self.waiting) - before), 0)
        return batch

    @property
    def next_is_there(self) -> bool:
        """Whether the oldest call has completed, and no more can be sent before it is taken."""
        waiting = self.waiting
        if not waiting or self._asks or (self._inputs is not None and len(waiting) <= self._in_flight - self._chunk):
            return False
        outcome = waiting[0].outcome
        if outcome is None or isinstance(outcome, BaseException) or outcome[0] != COMPLETED:
            return False
        return waiting[-1].outcome is None or not _is_refused(waiting[-1])

    def take(self) -> R:
        """The result of the oldest call, which must have its outcome. Errors: those of ``Pending.value``."""
        pending = self.waiting.popleft()
        self._waiting_bytes -= len(self._payloads.popleft())
        outcome = pending.outcome
        if isinstance(outcome, (list, tuple)) and len(outcome) > 2 and isinstance(outcome[2], (bytes, Parcel)):
            self._taken += 1
            self._taken_bytes += len(outcome[2])
        return pending.value()

    def end(self) -> list[Pending[R]]:
        """Nothing more is to be sent or taken. Returns the calls that nobody waits for any longer."""
        self._end()
        self._again.clear()
        self._payloads.clear()
        left, self.waiting = self.waiting, deque()
        return list(left)

    def leave(self) -> Pending[Any] | None:
        """What was asked for room, and is of no use any more."""
        asked, self.asked = self.asked, None
        return asked

    def _end(self) -> None:
        self._inputs = None
        self._unread = 0

    def _has_room(self) -> bool:
        waiting = len(self.waiting)
        if waiting + self._chunk > self._in_flight:
            return False
        results = waiting * (self._taken_bytes // self._taken) if self._taken else 0
        return self._waiting_bytes + results < _IN_FLIGHT_BYTES or waiting < _LEAST_IN_FLIGHT


def _is_refused(pending: Pending[Any]) -> bool:
    """Whether the daemon had no room for it."""
    outcome = pending.outcome
    if outcome is None or isinstance(outcome, BaseException):
        return False
    return outcome[0] == REFUSED and outcome[2:3] == [QueueFull.code]


def _shortest(inputs: tuple[Iterable[Any], ...]) -> int | None:
    lengths = [length_hint(each, -1) for each in inputs]
    return None if -1 in lengths else min(lengths, default=0)

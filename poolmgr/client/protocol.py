"""One connection to the daemon, without I/O: what both clients share.

A shell moves bytes. It sends what ``hello``, ``submit``, ``request`` and ``watch`` return, in that order, feeds what
it reads to ``receive``, and calls ``lose`` once when the connection ends. Calls must not overlap.

1. A submit is numbered by its place among the submits; ACCEPTED(n) answers the first n. A refusal comes before the
   ACCEPTED that counts it.
2. Each ``Pending`` gets exactly one outcome: by a message, or by ``lose``.
3. An outcome is stored here, except where somebody observes the ``Pending``: those are returned, to be settled by the
   shell when it holds no lock.
4. Messages about tasks that nobody here waits for (any longer) are ignored.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import time_ns
from typing import Any, Final

from poolmgr.client.pending import Outcome, Pending, loss
from poolmgr.errors import (
    BadValue,
    ConnectionLost,
    PayloadTooLarge,
    PoolError,
    ProtocolError,
    VersionMismatch,
    from_code,
)
from poolmgr.model import Event
from poolmgr.wire.framing import ANSWER, Decoder, encoder
from poolmgr.wire.messages import (
    ACCEPTED,
    COMPLETED,
    ERROR,
    EVENT,
    FAILED,
    HELLO,
    PAYLOAD_LIMIT,
    PROGRESS,
    PROTOCOL_VERSION,
    REFUSAL,
    REFUSED,
    REQUEST,
    RESPONSE,
    SAME,
    SUBMIT,
    WELCOME,
)

WINDOW: Final = 10_000  # submits that may be unacknowledged
WINDOW_BYTES: Final = 32 * 1024 * 1024  # ... and what they may add up to

_ENDS: Final = frozenset({COMPLETED, FAILED, REFUSED})
_ANSWERS: Final = frozenset({RESPONSE, REFUSAL})

Submit = tuple[Pending[Any], str, bytes, bytes | None]  # who gets its end, the handler, packed arguments and options
Settled = list[tuple[Pending[Any], Outcome]]


class Protocol:
    """The state of one connection.

    Attributes:
        welcome: what the daemon said of itself (pid, epoch, ...); None until it has answered the hello.
        submitted: how many tasks were submitted.
        acknowledged: how many of them the daemon has accepted or refused.
        events: events that have arrived; a shell takes them out.
        lost: why the connection ended; None while it lives.
    """

    def __init__(self) -> None:
        self.welcome: Mapping[str, Any] | None = None
        self.submitted = 0
        self.acknowledged = 0
        self.events: deque[Event] = deque()
        self.lost: PoolError | None = None
        self._pack = encoder()
        self._decoder = Decoder(ANSWER)
        self._tasks: dict[bytes, Pending[Any]] = {}
        self._requests: dict[int, Pending[Any]] = {}
        self._requested = 0
        self._sizes: deque[int] = deque()  # of the unacknowledged submits, oldest first
        self._unacknowledged_bytes = 0
        self._window = WINDOW
        self._payload_limit = PAYLOAD_LIMIT
        # The middle of every id. Ids of one connection differ by their counter, those of two connections by this.
        self._salt = os.urandom(6)
        self._settled: Settled = []  # observed ones whose outcome has arrived, not yet handed to the shell

    # ------------------------------------------------------------------------------------------------ to the daemon

    def hello(self, name: str) -> bytes:
        """The first bytes to send. ``name`` is shown to whoever looks at the daemon's connections."""
        info = {"name": name, "pid": os.getpid()}
        return self._encode((HELLO, PROTOCOL_VERSION, "client", info))

    def submit(self, pending: Pending[Any], name: str, payload: bytes, options: bytes | None) -> bytes:
        """The bytes that submit a task with packed arguments and options, whose end ``pending`` will get.

        Raises:
            PayloadTooLarge: nothing is to be sent; the connection is as before.
            PoolError: the connection has ended.
        """
        if self.lost is not None:
            raise self.lost
        if len(payload) > self._payload_limit:
            raise PayloadTooLarge(
                f"the arguments of {name} take {len(payload):,} bytes, {self._payload_limit:,} are allowed: "
                "write large data to a file and pass its path"
            )
        number = self.submitted + 1
        key = _new_id(self._salt, number)
        message = self._encode((SUBMIT, key, name, payload, options, True))
        pending.key = key
        pending.number = self.submitted = number
        self._sizes.append(len(message))
        self._unacknowledged_bytes += len(message)
        self._tasks[key] = pending
        return message

    def submit_all(self, batch: Iterable[Submit]) -> bytes:
        """The bytes that submit many tasks. One that cannot be sent gets the reason as its outcome."""
        messages = []
        for pending, name, payload, options in batch:
            try:
                messages.append(self.submit(pending, name, payload, options))
            except PoolError as error:
                pending.outcome = error
        return b"".join(messages)

    def request(self, pending: Pending[Any], command: str, arguments: Mapping[str, Any]) -> bytes:
        """The bytes that ask for ``command``; ``pending`` will get the answer."""
        if self.lost is not None:
            raise self.lost
        number = self._requested + 1
        message = self._encode((REQUEST, number, command, arguments))
        pending.number = self._requested = number
        self._requests[number] = pending
        return message

    def watch(self, key: bytes, watcher: Pending[Any]) -> Pending[Any]:
        """Whoever gets the end of the task ``key``: ``watcher``, unless somebody here waits for it already.

        Where it is ``watcher``, the daemon must be told by a request (commands.watch), and if that fails, ``refuse`` be
        called, because others may wait for the same by then.

        Raises:
            PoolError: the connection has ended.
        """
        if self.lost is not None:
            raise self.lost
        watcher.key = key
        return self._tasks.setdefault(key, watcher)

    def refuse(self, watcher: Pending[Any], error: PoolError) -> Settled:
        """The daemon will not tell the end of this task."""
        if watcher.outcome is None and self._tasks.pop(watcher.key, None) is not None:
            self._store(watcher, error)
        return self._hand_over()

    def forget(self, keys: Iterable[bytes]) -> None:
        """Nobody waits for these tasks any longer."""
        for key in keys:
            self._tasks.pop(key, None)

    @property
    def unended(self) -> list[Pending[Any]]:
        """The tasks whose ends are still to come, oldest first."""
        return list(self._tasks.values())

    @property
    def idle(self) -> bool:
        """Whether no task's end is to come."""
        return not self._tasks

    @property
    def room(self) -> bool:
        """Whether another submit fits into the window of unacknowledged ones."""
        return (
            self.submitted - self.acknowledged < self._window and self._unacknowledged_bytes < WINDOW_BYTES
        ) or self.lost is not None

    # ---------------------------------------------------------------------------------------------- from the daemon

    def receive(self, data: bytes | bytearray | memoryview) -> Settled:
        """Take in what was read. Returns the observed that are to be settled, each with its outcome.

        Where the daemon ends the connection, or sends what the protocol does not know, the connection is ``lost``.
        """
        try:
            for message in self._feed(data):
                self._dispatch(message)
        except PoolError as error:
            return self.lose(error)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return self.lose(ProtocolError(f"the daemon sent a message that cannot be read: {error!r}"))
        return self._hand_over()

    def _encode(self, message: Sequence[Any]) -> bytes:
        try:
            return self._pack(message)
        except (TypeError, ValueError, OverflowError) as error:
            raise BadValue(f"cannot be sent to the daemon: {error}") from None

    def _feed(self, data: bytes | bytearray | memoryview) -> Iterable[list[Any]]:
        try:
            return self._decoder.feed(data)
        except ProtocolError:
            for message in self._decoder.complete:
                self._dispatch(message)
            raise

    def _dispatch(self, message: Sequence[Any]) -> None:
        kind = message[0]
        if kind in _ENDS:
            pending = self._tasks.pop(message[1], None)
        elif kind == ACCEPTED:
            return self._on_accepted(message[1])
        elif kind in _ANSWERS:
            pending = self._requests.pop(message[1], None)
        elif kind in _RARE:
            return _RARE[kind](self, message)
        else:
            raise ProtocolError(f"the daemon sent a message of the unknown type {kind!r}")
        if pending is not None:
            self._store(pending, message)
        return None

    def _store(self, pending: Pending[Any], outcome: Outcome) -> None:
        if pending.observed:
            self._settled.append((pending, outcome))
        else:
            pending.outcome = outcome

    def _hand_over(self) -> Settled:
        if not self._settled:
            return self._settled
        settled, self._settled = self._settled, []
        return settled

    def lose(self, cause: PoolError, *, closed: bool = False) -> Settled:
        """The connection has ended, and what is owed fails, as ``pending.loss`` says. A second call does nothing.

        Args:
            closed: this side closed it on purpose.
        """
        if self.lost is not None:
            return []
        self.lost = cause
        for pending in (*self._tasks.values(), *self._requests.values()):
            accepted = pending.number <= self.acknowledged
            self._store(pending, loss(pending, cause, accepted=accepted, closed=closed))
        self._tasks.clear()
        self._requests.clear()
        return self._hand_over()

    def ended(self) -> ConnectionLost:
        """The cause for ``lose`` when the daemon's end of the connection is closed without a word."""
        return ConnectionLost("the connection to the daemon ended")

    def _on_accepted(self, count: int) -> None:
        answered = count - self.acknowledged
        if answered < 0 or count > self.submitted:
            raise ProtocolError(f"the daemon accepted {count} tasks, {self.submitted} were submitted")
        sizes = self._sizes
        for _ in range(answered):
            self._unacknowledged_bytes -= sizes.popleft()
        self.acknowledged = count

    def _on_welcome(self, message: Sequence[Any]) -> None:
        version, info = message[1], message[2]
        if version != PROTOCOL_VERSION:
            raise VersionMismatch(
                f"the daemon speaks version {version} of the protocol, this client {PROTOCOL_VERSION}: "
                "upgrade the older one, then restart it"
            )
        self._window = min(WINDOW, int(info.get("window", WINDOW)))
        self._payload_limit = min(PAYLOAD_LIMIT, int(info.get("payload_limit", PAYLOAD_LIMIT)))
        self.welcome = info

    def _on_error(self, message: Sequence[Any]) -> None:
        raise from_code(str(message[1]), str(message[2]))

    def _on_progress(self, message: Sequence[Any]) -> None:
        pending = self._tasks.get(message[1])
        if pending is not None:
            pending.progressed(float(message[2]), str(message[3]))

    def _on_same(self, message: Sequence[Any]) -> None:
        pending = self._tasks.get(message[1])
        if pending is not None:
            pending.first = bytes(message[2])

    def _on_event(self, message: Sequence[Any]) -> None:
        self.events.append(Event(str(message[1]), float(message[2]), dict(message[3])))


_RARE: Final[dict[int, Callable[[Protocol, Sequence[Any]], None]]] = {
    WELCOME: Protocol._on_welcome,
    ERROR: Protocol._on_error,
    PROGRESS: Protocol._on_progress,
    SAME: Protocol._on_same,
    EVENT: Protocol._on_event,
}


def _new_id(salt: bytes, number: int) -> bytes:
    """A task id as ``model.new_task_id`` shapes it, without its system call: wall ms, salt, count on the connection."""
    wall_ms = time_ns() // 1_000_000
    return wall_ms.to_bytes(6, "big") + salt + (number & 0xFFFFFFFF).to_bytes(4, "big")

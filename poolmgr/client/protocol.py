"""One connection to the daemon, without I/O: what both clients share.

A shell moves bytes. It sends what ``hello``, ``submit``, ``request`` and ``watch`` return, in that order, feeds what
it reads to ``receive``, and calls ``interrupt`` when the connection ends. If it is then ``down``, the shell dials
again, tells each failure by ``unreachable``, and sends what ``resume`` returns first on the new connection; see
``resume.py`` for what is resumed. Calls must not overlap.

1. A submit has a number and is answered by the ``Window``. A refusal comes before the ACCEPTED that counts it.
2. Each ``Pending`` gets exactly one outcome: by a message, by ``interrupt`` or by ``lose``.
3. An outcome is stored here; of a ``Pending`` that is observed it is returned: the shell settles it, holding no lock.
4. Messages about tasks that nobody here waits for (any longer) are ignored.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import count
from time import monotonic
from typing import Any, Final

from poolmgr.client.files import Files
from poolmgr.client.outgoing import Outgoing, submission, together
from poolmgr.client.pending import Outcome, Pending, loss
from poolmgr.client.reading import Reading
from poolmgr.client.resume import Outage, Rewatch, forgotten, under_daemons_ids
from poolmgr.client.together import Submit, alike, new_id, new_ids
from poolmgr.client.window import WINDOW, Window
from poolmgr.errors import (
    BadValue,
    ConnectionLost,
    PayloadTooLarge,
    PoolError,
    ProtocolError,
    Unavailable,
    VersionMismatch,
    from_code,
)
from poolmgr.model import Event
from poolmgr.payload import Payload
from poolmgr.wire.framing import ANSWER, Decoder, encoder
from poolmgr.wire.messages import (
    ACCEPTED,
    COMPLETED,
    COMPLETED_MANY,
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
    SUBMIT_MANY,
    WELCOME,
)
from poolmgr.wire.parts import LARGE_BYTES

_NEVER: Final = 1 << 62  # the number of a submit that is never answered

_ENDS: Final = frozenset({COMPLETED, FAILED, REFUSED})
_ANSWERS: Final = frozenset({RESPONSE, REFUSAL})

Settled = list[tuple[Pending[Any], Outcome]]


class Protocol:
    """The state of one connection, and of those that take its place when it breaks.

    Args:
        reconnect_s: for how long what was under way on a broken connection can be resumed; 0: not at all.

    Attributes:
        welcome: what the daemon said of itself (pid, epoch, ...); None until it has answered the hello.
        window: the submits that are not answered.
        events: events that have arrived; a shell takes them out.
        files: to be told of descriptors before the bytes that they came with are received.
        down: why there is no connection now; None while there is.
        lost: why there will be none any more; None while there is one, or it may be made again.
        outage: the last one; None: there was none.
        rewatch: what was acknowledged on an earlier connection, and is not watched yet on this one.
        readings: the streams that are being read. One of a durable task goes on, on another connection if need be.
    """

    def __init__(self, reconnect_s: float = 0.0) -> None:
        self.welcome: Mapping[str, Any] | None = None
        self.window = Window()
        self.events: deque[Event] = deque()
        self.files = Files()
        self.down: PoolError | None = None
        self.lost: PoolError | None = None
        self.outage: Outage | None = None
        self._reconnect_s = reconnect_s
        self.rewatch = Rewatch()
        self.readings: set[Reading[Any]] = set()
        self._pack = encoder()
        self._decoder = Decoder(ANSWER)
        self._tasks: dict[bytes, Pending[Any]] = {}
        self._requests: dict[int, Pending[Any]] = {}
        self._requested = 0
        self._payload_limit = PAYLOAD_LIMIT
        # The middle of every id. Ids of one connection differ by their counter, those of two connections by this.
        self._salt = os.urandom(6)
        self._settled: Settled = []  # observed ones whose outcome has arrived, not yet handed to the shell

    # ------------------------------------------------------------------------------------------------ to the daemon

    def hello(self, name: str) -> bytes:
        """The first bytes to send. ``name`` is shown to whoever looks at the daemon's connections."""
        info = {"name": name, "pid": os.getpid(), "many": True}
        return self._encode((HELLO, PROTOCOL_VERSION, "client", info))

    def submit(
        self, pending: Pending[Any], name: str, payload: Payload, options: bytes | None, waited: bool = False
    ) -> Outgoing:
        """What submits a task with packed arguments and options; ``pending`` gets its end. ``waited``: it has a place.

        Raises:
            PayloadTooLarge: nothing is to be sent; the connection is as before.
            PoolError: there is no connection.
        """
        if self.down is not None:
            raise self.down
        if len(payload) > self._payload_limit:
            raise PayloadTooLarge(
                f"the arguments of {name} take {len(payload):,} bytes, {self._payload_limit:,} are allowed: "
                "write large data to a file and pass its path"
            )
        number = self.window.submitted + 1
        key = new_id(self._salt, number)
        sent = (key, name, payload, options)
        small, pack = len(payload) < LARGE_BYTES and not waited, self._encode
        message = pack((SUBMIT, *sent, True)) if small else submission(sent, pack, self.files, waited=waited)
        self.window.add(sent)
        pending.key = key
        pending.number = number
        self._tasks[key] = pending
        return message

    def submit_all(self, batch: Iterable[Submit], waited: bool = False) -> Outgoing:
        """What submits many tasks. Those that cannot be sent get the reason as their outcome. ``waited``: as above."""
        messages: list[Outgoing] = []
        for some in alike(batch, self._payload_limit):
            pending, name, payload, options = some[0]
            try:
                if len(some) == 1:
                    messages.append(self.submit(pending, name, payload, options, waited))
                else:
                    messages.append(self._submit_many(some, name, options, waited))
            except PoolError as error:
                for each in some:
                    each[0].outcome = error
        return together(messages)

    def _submit_many(self, together: Sequence[Submit], name: str, options: bytes | None, waited: bool) -> bytes:
        if self.down is not None:
            raise self.down
        first = self.window.submitted + 1
        keys = new_ids(self._salt, first, len(together))
        payloads = [each[2] for each in together]
        message = self._encode((SUBMIT_MANY, keys, name, payloads, options, True, waited))
        self.window.add_all([(key, name, payload, options) for key, payload in zip(keys, payloads, strict=True)])
        for number, key, (pending, *_) in zip(count(first), keys, together, strict=False):
            pending.key, pending.number = key, number
            self._tasks[key] = pending
        return message

    def request(self, pending: Pending[Any], command: str, arguments: Mapping[str, Any]) -> bytes:
        """The bytes that ask for ``command``; ``pending`` will get the answer."""
        if self.down is not None:
            raise self.down
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
            PoolError: there is no connection.
        """
        if self.down is not None:
            raise self.down
        watcher.key = key
        found = self._tasks.setdefault(key, watcher)
        return found.members[0] if found.members else found

    def refuse(self, watcher: Pending[Any], error: PoolError) -> Settled:
        """The daemon will not tell its end."""
        if watcher.outcome is None and self._tasks.pop(watcher.key, None) is not None:
            self._store(watcher, error)
        return self._hand_over()

    def forget(self, keys: Iterable[bytes]) -> None:
        """Nobody waits for these tasks any longer."""
        for key in keys:
            self._tasks.pop(key, None)

    @property
    def unended(self) -> Collection[Pending[Any]]:
        """The tasks whose ends are still to come, oldest first. What comes changes it."""
        return self._tasks.values()

    # ---------------------------------------------------------------------------------------------- from the daemon

    def receive(self, data: bytes | bytearray | memoryview) -> Settled:
        """Take in what was read. Returns the observed that are to be settled, each with its outcome.

        Where the daemon ends the connection it is ``down`` or ``lost``; ``lost`` where it sends what cannot be read.
        """
        try:
            for message in self._feed(data):
                self._dispatch(message)
        except PoolError as error:
            return self.interrupt(error)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return self.interrupt(ProtocolError(f"the daemon sent a message that cannot be read: {error!r}"))
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

    def _dispatch(self, message: list[Any]) -> None:
        kind = message[0]
        if kind in _ENDS:
            if kind == COMPLETED:
                self.files.completed(message)  # this may fail, so nothing is popped yet: what is popped gets an outcome
            pending = self._tasks.pop(message[1], None)
        elif kind == ACCEPTED:
            return self.window.accepted(message[1])
        elif kind in _ANSWERS:
            pending = self._requests.pop(message[1], None)
        elif kind in _RARE:
            return _RARE[kind](self, message)
        else:
            raise ProtocolError(f"the daemon sent a message of the unknown type {kind!r}")
        if pending is not None:
            self._store(pending, message)
        elif kind in _ANSWERS:
            self._on_watched(message)
        return None

    def _on_completed(self, message: Sequence[Any]) -> None:
        forget = self._tasks.pop
        for key, payload in zip(message[1], message[2], strict=True):
            if (pending := forget(key, None)) is not None:
                self._store(pending, (COMPLETED, key, payload))

    def _store(self, pending: Pending[Any], outcome: Outcome) -> None:
        if pending.observed:
            self._settled.append((pending, outcome))
            for each in pending.members:
                self._store(each, outcome)
        else:
            pending.outcome = outcome

    def _hand_over(self) -> Settled:
        if not self._settled:
            return self._settled
        settled, self._settled = self._settled, []
        return settled

    # -------------------------------------------------------------------------------------------- broken connections

    def interrupt(self, cause: PoolError) -> Settled:
        """The connection has ended: it is ``down`` if anything can be resumed, else ``lost``. Again: nothing."""
        if self.down is not None:
            return self._hand_over()
        kept = {key: pending for key, pending in self._tasks.items() if pending.durable}
        needed = kept or any(reading.end.durable for reading in tuple(self.readings))
        if not needed or not self._reconnect_s or not isinstance(cause, Unavailable):
            return self.lose(cause)
        if self.outage is not None and not (self.window.has_resumed and self.rewatch.over):
            if not self.outage.failed(cause, monotonic()):
                return self.lose(cause)
        else:
            self.outage = Outage(monotonic(), self._reconnect_s)
        self.down = cause
        self.files.end()
        self.window.limit = 0
        for pending in (*self._tasks.values(), *self._requests.values()):
            if not pending.durable:
                self._fail(pending, cause, closed=False)
        self._tasks = kept
        self._requests.clear()
        return self._hand_over()

    def unreachable(self, error: PoolError) -> Settled:
        """Dialling again has failed; after the last time the connection is ``lost``."""
        if self.lost is not None or self.outage is None or self.outage.failed(error, monotonic()):
            return []
        return self.lose(ConnectionLost(f"{self.down}, and could not be made again: {error}"))

    def resume(self, name: str) -> Outgoing:
        """What to send first on a new connection. It is no longer ``down``."""
        self.down = self.welcome = None
        self._decoder = Decoder(ANSWER)
        unanswered = {each.number for each in self._tasks.values() if each.number > self.window.acknowledged}
        again = [submission(sent, self._encode, self.files) for sent in self.window.again(unanswered)]
        self._tasks = under_daemons_ids(self._tasks, self.window.acknowledged)
        self.rewatch = Rewatch(key for key, each in self._tasks.items() if each.number not in unanswered)
        return together([self.hello(name), *again, self.watch_more()])

    def watch_more(self) -> bytes:
        """Bytes to send while ``rewatch`` has more: requests to watch what was acknowledged on another connection."""
        asked = self.rewatch.ask(self._tasks, self._requested)
        self._requested += len(asked)
        return b"".join([self._encode((REQUEST, *each)) for each in asked])

    def lose(self, cause: PoolError, *, closed: bool = False) -> Settled:
        """There will be no connection any more, and what is owed fails, as ``pending.loss`` says. Again: nothing.

        Args:
            closed: this side closed it on purpose.
        """
        if self.lost is not None:
            return []
        self.lost = self.down = cause
        self.files.close()
        self.window.end()
        for pending in (*self._tasks.values(), *self._requests.values()):
            self._fail(pending, cause, closed=closed)
        self._tasks.clear()
        self._requests.clear()
        return self._hand_over()

    def _fail(self, pending: Pending[Any], cause: PoolError, *, closed: bool) -> None:
        accepted = pending.number <= self.window.acknowledged
        self._store(pending, loss(pending, cause, accepted=accepted, closed=closed))
        if pending.key and not accepted:
            pending.number = _NEVER  # the window will pass over it, if the connection is made again

    def _on_watched(self, answer: Sequence[Any]) -> None:
        key = self.rewatch.asked.pop(answer[1], b"")
        if answer[0] == REFUSAL and key in self._tasks:
            error = forgotten(answer, key)  # it may raise, and then the task is still to be told
            self._store(self._tasks.pop(key), error)

    # ------------------------------------------------------------------------------------------------ rarer messages

    def _on_welcome(self, message: Sequence[Any]) -> None:
        version, info = message[1], message[2]
        if version != PROTOCOL_VERSION:
            raise VersionMismatch(
                f"the daemon speaks version {version} of the protocol, this client {PROTOCOL_VERSION}: "
                "upgrade the older one, then restart it"
            )
        self.window.limit = min(WINDOW, int(info.get("window", WINDOW)))
        self._payload_limit = min(PAYLOAD_LIMIT, int(info.get("payload_limit", PAYLOAD_LIMIT)))
        self.files.offered(info.get("files") is True)
        self.welcome = info

    def _on_progress(self, message: Sequence[Any]) -> None:
        pending = self._tasks.get(message[1])
        if pending is not None:
            pending.progressed(float(message[2]), str(message[3]))

    def _on_same(self, message: Sequence[Any]) -> None:
        pending = self._tasks.get(message[1])
        if pending is not None:
            pending.first = bytes(message[2])

    def _on_error(self, message: Sequence[Any]) -> None:
        raise from_code(str(message[1]), str(message[2]))

    def _on_event(self, message: Sequence[Any]) -> None:
        self.events.append(Event(str(message[1]), float(message[2]), dict(message[3])))


_RARE: Final[dict[int, Callable[[Protocol, Sequence[Any]], None]]] = {
    WELCOME: Protocol._on_welcome,
    COMPLETED_MANY: Protocol._on_completed,
    ERROR: Protocol._on_error,
    PROGRESS: Protocol._on_progress,
    SAME: Protocol._on_same,
    EVENT: Protocol._on_event,
}

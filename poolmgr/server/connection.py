"""One client's connection: its messages to the scheduler, and the answers back.

A client that sends garbage, too much, or never reads hurts itself alone. While it does not read what it is owed, it is
not read from either; when it owes ``UNREAD_LIMIT`` bytes of reading, it is cut off.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Iterable
from inspect import isawaitable
from itertools import islice
from typing import Any

from poolmgr.errors import (
    NotAllowed,
    PoolError,
    ProtocolError,
    UsageError,
    VersionMismatch,
)
from poolmgr.manager.clock import now
from poolmgr.manager.manager import Manager
from poolmgr.model import TaskState
from poolmgr.parcels.parcel import Parcel
from poolmgr.parcels.stream import Stream
from poolmgr.server.arrivals import TURN_BYTES, Arrivals
from poolmgr.server.call import LATER, Call
from poolmgr.server.commands import COMMANDS
from poolmgr.server.options import OptionCache
from poolmgr.server.peer import Peer
from poolmgr.server.replies import Replies
from poolmgr.server.resent import look_up
from poolmgr.server.submits import SUBMITS, Submits, one_by_one
from poolmgr.server.task_commands import outcome_of
from poolmgr.wire.framing import Decoder
from poolmgr.wire.messages import (
    ERROR,
    FAILED,
    HELLO,
    PAYLOAD_LIMIT,
    PROTOCOL_VERSION,
    REFUSAL,
    REFUSED,
    REQUEST,
    SUBMIT,
    WELCOME,
)

_log = logging.getLogger(__name__)

WINDOW = 10_000  # unacknowledged submits that a client may have
HIGH_WATER = 1 << 20  # bytes not read by the client, from which on it is not read from
_LOOKED_UP = 1000  # messages at a time, when the store is asked


class Connection(Replies):
    """Implements ``outbox.Port`` for the manager and ``StreamProtocol`` for its stream."""

    def __init__(self, manager: Manager, options: OptionCache, peer_of: Any, connections: set[Connection]) -> None:
        super().__init__()
        self._manager = manager
        self._options = options
        self._peer_of = peer_of
        self._peer: Peer
        self._decoder = Decoder()
        self._arrivals = Arrivals(manager.descriptors())
        self._client = 0
        self._greeted = False
        self._running: set[asyncio.Task[None]] = set()
        self._connections = connections  # all that there are
        self._waiting: deque[list[Any]] | None = None  # messages that wait for the store's word on those before them
        self._later: list[list[Any]] = []  # messages whose files are for another turn of the loop
        self._held: set[str] = set()  # why it is not read from
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # ------------------------------------------------------------------------------------------ the transport

    def connection_made(self, transport: Stream) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(high=HIGH_WATER, low=HIGH_WATER // 4)
        self._client = self._manager.attach(self)
        self._connections.add(self)
        self._submits = Submits(self._manager, self._options, self._client)
        try:
            self._peer = self._peer_of(self._transport)
        except NotAllowed as error:
            self._refuse(error)
            return
        if self._peer.uid != os.getuid():
            self._options = self._options.for_strangers()
            self._submits = Submits(self._manager, self._options, self._client)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._connections.discard(self)
        self._lost.set_result(None)
        self._arrivals.close()
        self._manager.detach(self._client)
        for task in self._running:
            task.cancel()

    def pause_writing(self) -> None:
        self.hold("it does not read")

    def resume_writing(self) -> None:
        self.go_on("it does not read")

    def files_received(self, fds: list[int], lost: bool) -> None:
        if lost:
            _log.error(
                "client %d (pid %s) is cut off: this process may open no more files", self._client, self._peer.pid
            )
        self._arrivals.came(fds, lost)

    def data_received(self, data: bytes | memoryview) -> None:
        if self._closing:
            return
        try:
            messages = self._decoder.feed(data)
        except ProtocolError as error:
            self._take(self._decoder.complete)
            self._refuse(error)
            return
        self._take(messages)

    def _take(self, messages: list[list[Any]]) -> None:
        try:
            if self._arrivals and (count := self._arrivals.claim(messages)) < len(messages):
                self._later = messages[count:]
                del messages[count:]
                self.hold("others are to have their turn")
                asyncio.get_running_loop().call_soon(self._take_later)
            if self._waiting is None:
                self._take_each(messages, now())
            else:
                self._waiting.extend(one_by_one(messages))
        except Exception as error:
            self._refuse(_reported(error, "a client's messages"))
        self._manager.told()

    def _take_later(self) -> None:
        messages, self._later = self._later, []
        self._arrivals.next_turn()
        if not self._closing:
            self._take(messages)
        if not self._later:
            self.go_on("others are to have their turn")

    def _take_each(self, messages: list[list[Any]], at: float) -> None:
        number = 0
        while number < len(messages):
            message = messages[number]
            if message[0] not in SUBMITS or not self._greeted:
                self._other(message)
                number += 1
                continue
            before, number = number, self._submits.take(messages, number, at, self._refused)
            if number == before:
                self._waiting = deque(one_by_one(messages[number:]))
                self.hold("the store is asked")
                self._background(self._take_waiting())
                return

    async def _take_waiting(self) -> None:
        """Submits that may have been made before, on another connection; and what came behind them, in its order."""
        waiting = self._waiting
        assert waiting is not None
        try:
            while waiting and not self._closing:
                count, ids = _first_without_doubles(waiting)
                async with self._manager.look_ups as look_ups:
                    found = await look_up(look_ups, ids)
                    at = now()
                    for _ in range(count):
                        message = waiting[0]
                        if message[0] != SUBMIT:
                            self._other(message)
                        elif not self._submits.one(message, at, self._refused, found):
                            break
                        waiting.popleft()
                self._manager.told()
        except Exception as error:
            self._refuse(_reported(error, "submits that may have been made before"))
        finally:
            self._waiting = None
            self.go_on("the store is asked")

    # ------------------------------------------------------------------------------------------ Port

    def hold(self, why: str) -> None:
        if not self._held and not self._transport.is_closing():
            self._transport.pause_reading()
        self._held.add(why)

    def go_on(self, why: str) -> None:
        self._held.discard(why)
        if not self._held and not self._transport.is_closing():
            self._transport.resume_reading()

    def tell_outcome(self, task_id: bytes, known_as: bytes) -> None:
        self._background(self._tell_outcome(task_id, known_as))

    async def _tell_outcome(self, task_id: bytes, known_as: bytes) -> None:
        try:
            outcome = await outcome_of(self._manager, task_id)
        except Exception as failure:
            error = _reported(failure, "an outcome")
            self.send((REFUSED, known_as, error.code, str(error)))
        else:
            if outcome.state is TaskState.COMPLETED:
                self.completed(known_as, outcome.outcome)
            else:
                self.send((FAILED, known_as, outcome.state, outcome.code, outcome.outcome))
        self.flush()

    # ------------------------------------------------------------------------------------------ messages

    def _refused(self, task_id: bytes, error: PoolError) -> None:
        self.send((REFUSED, task_id, error.code, str(error)))
        self._manager.refused_to(self._client)

    def _other(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == HELLO and not self._greeted:
            self._hello(message)
        elif not self._greeted:
            raise ProtocolError("the first message is HELLO")
        elif kind == REQUEST:
            self._request(message)
        else:
            raise ProtocolError(f"unknown message type {kind}")

    def _hello(self, message: list[Any]) -> None:
        if len(message) < 3:
            raise ProtocolError("a HELLO of the wrong length")
        if message[1] != PROTOCOL_VERSION:
            raise VersionMismatch(
                f"the daemon speaks protocol {PROTOCOL_VERSION}, you speak {message[1]}: upgrade the older of the two"
            )
        if message[2] != "client":
            raise ProtocolError(f"role {message[2]!r} is not served here")
        self._greeted = True
        told = message[3] if len(message) > 3 and type(message[3]) is dict else {}
        self._takes_many = told.get("many") is True
        info = {
            "pid": os.getpid(),
            "epoch": self._manager.epoch,
            "payload_limit": PAYLOAD_LIMIT,
            "window": WINDOW,
            "files": self.may_take_files,
        }
        self.send((WELCOME, PROTOCOL_VERSION, info))
        self.flush()

    def _request(self, message: list[Any]) -> None:
        if len(message) < 4 or type(message[1]) is not int or type(message[3]) is not dict:
            raise ProtocolError("a REQUEST of the wrong shape")
        _, number, name, arguments = message[:4]
        try:
            command = COMMANDS.get(name) if isinstance(name, str) else None
            if command is None:
                raise UsageError(f"unknown command {name!r}: is the daemon older than you?")
            if not command.open_to_group and not self._peer.is_owner:
                raise NotAllowed(f"{name} is for the daemon's own user and root")
            value = command.handler(Call(self._manager, self._client, number, arguments, self._options))
        except Exception as error:
            self._refusal(number, _reported(error, name))
            return
        if isawaitable(value):
            self._background(self._await(number, value))
        else:
            self._respond(number, value)

    async def _await(self, number: int, value: Awaitable[Any]) -> None:
        self._manager.act()  # a command looks into the scheduler and then the stores: one of them is to have the task
        try:
            answer = await value
        except Exception as error:
            self._refusal(number, _reported(error, "a request"))
        else:
            self._respond(number, answer)

    def _respond(self, number: int, value: Any) -> None:
        if value is not LATER:
            self.answer(number, value)
        self.flush()
        self._manager.told()

    def _refusal(self, number: int, error: PoolError) -> None:
        self.send((REFUSAL, number, error.code, str(error)))
        self.flush()

    def _refuse(self, error: PoolError) -> None:
        """Fatal for this connection alone: say why, and close."""
        self.send((ERROR, error.code, str(error)))
        self.flush()
        self._closing = True
        self._transport.close()

    @property
    def unsent(self) -> int:
        """Bytes that the client is owed, and has not taken."""
        return self._transport.get_write_buffer_size()

    def cut_off(self) -> None:
        """Close it now."""
        self._closing = True
        self._transport.abort()

    def hang_up(self) -> asyncio.Future[None]:
        """Close it once the client has taken what it is owed; when that is."""
        self.flush()
        self._closing = True
        self._transport.close()
        return self._lost

    def _background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)


def _first_without_doubles(waiting: Iterable[list[Any]]) -> tuple[int, list[bytes]]:
    """For how many of ``waiting`` the store can be asked at once, and the ids of the submits among them. No id is there
    twice: what becomes of the first is to be seen when the store is asked for the second."""
    ids: dict[bytes, None] = {}
    count = size = 0
    for message in islice(waiting, _LOOKED_UP):
        if message[0] == SUBMIT:
            if size >= TURN_BYTES:  # files that may have to be compared
                break
            if len(message) > 3 and isinstance(message[3], Parcel):
                size += len(message[3])
            id = _id_of(message)
            if id in ids:
                break
            ids[id] = None
        count += 1
    return count, list(ids)


def _id_of(message: list[Any]) -> bytes:
    task_id = message[1] if len(message) > 1 else None
    return task_id if type(task_id) is bytes else b""


def _reported(error: Exception, what: str) -> PoolError:
    """What a client is told. A defect of ours goes to the log, and is no reason to leave the client waiting."""
    if isinstance(error, PoolError):
        return error
    _log.error("a defect in the answer to %s", what, exc_info=error)
    return PoolError(f"a defect in poolmgr, see the daemon's log: {type(error).__name__}: {error}")

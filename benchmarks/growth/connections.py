"""Many clients of one daemon, in one process: connections that are there, and that may all have a few calls under way.

They speak the protocol themselves (docs/protocol.md). A thousand of poolmgr's own clients would measure the clients.
"""

from __future__ import annotations

import resource
import selectors
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgpack

from poolmgr.wire.messages import (
    COMPLETED,
    COMPLETED_MANY,
    FAILED,
    HELLO,
    PROTOCOL_VERSION,
    REFUSED,
    SUBMIT_MANY,
    WELCOME,
)

UNDER_WAY: Final = 10  # calls of each connection
_CALL: Final = msgpack.packb({"durable": False})
_PAYLOAD: Final = msgpack.packb([[1], {}])
_HELLO: Final = msgpack.packb([HELLO, PROTOCOL_VERSION, "client", {"many": True}])
_PATIENCE_S: Final = 30.0
_SPARE_FILES: Final = 256
_READ_BYTES: Final = 1 << 16


class Connections:
    """So many greeted connections, as a context manager."""

    def __init__(self, path: Path, number: int) -> None:
        self._path = str(path)
        self._number = number
        self._selector = selectors.DefaultSelector()
        self._open: list[_Connection] = []

    def __enter__(self) -> Self:
        allow_files(self._number + _SPARE_FILES)
        for number in range(self._number):
            connection = _Connection(self._path, number)
            self._open.append(connection)
            self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._selector.close()
        for connection in self._open:
            connection.sock.close()

    def work(self, tasks: int) -> int:
        """Have at least so many no-op calls run, ``UNDER_WAY`` of each connection at a time; how many there were.

        Raises:
            TimeoutError: the daemon stopped answering.
        """
        asked = done = 0
        for connection in self._open:
            asked += connection.ask()
        while done < asked:
            ready = self._selector.select(_PATIENCE_S)
            if not ready:
                raise TimeoutError(f"{asked - done} calls were not answered within {_PATIENCE_S:g} s")
            for key, _ in ready:
                connection = key.data
                done += connection.hear()
                if not connection.under_way and asked < tasks:
                    asked += connection.ask()
        return done


class _Connection:
    """One of them."""

    def __init__(self, path: str, number: int) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE_S)
        self.sock.connect(path)
        self.sock.sendall(_HELLO)
        self.under_way = 0
        self._unpacker = msgpack.Unpacker()
        self._ids = number << 64
        while not self._unpacker_has_welcome():
            pass

    def _unpacker_has_welcome(self) -> bool:
        self._unpacker.feed(self._read())
        return any(message[0] == WELCOME for message in self._unpacker)

    def _read(self) -> bytes:
        data = self.sock.recv(_READ_BYTES)
        if not data:
            raise ConnectionError("the daemon has hung up")
        return data

    def ask(self) -> int:
        """Make as many calls as may be under way; how many."""
        ids = []
        for _ in range(UNDER_WAY):
            self._ids += 1
            ids.append(self._ids.to_bytes(16, "big"))
        self.sock.sendall(msgpack.packb([SUBMIT_MANY, ids, "echo", [_PAYLOAD] * UNDER_WAY, _CALL, True]))
        self.under_way = UNDER_WAY
        return UNDER_WAY

    def hear(self) -> int:
        """Read what there is; how many calls it ended."""
        self._unpacker.feed(self._read())
        ended = sum(_ended(message) for message in self._unpacker)
        self.under_way -= ended
        return ended


def _ended(message: list[Any]) -> int:
    kind = message[0]
    if kind in (FAILED, REFUSED):
        raise RuntimeError(f"a call failed: {message}")
    return len(message[1]) if kind == COMPLETED_MANY else int(kind == COMPLETED)


def allow_files(number: int) -> None:
    """Let this process have so many descriptors, and what it starts, too.

    Raises:
        ValueError: it may not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, max(number, hard)))

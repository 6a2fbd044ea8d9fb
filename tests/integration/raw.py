"""A connection to a daemon, below any client: it says whatever it is told to say."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgpack

from poolmgr.wire.messages import HELLO, PROTOCOL_VERSION, SUBMIT

HELLO_THERE = msgpack.packb([HELLO, PROTOCOL_VERSION, "client", {}])
CALL = msgpack.packb({"durable": False})


class Raw:
    """A connection that says whatever it is told to say."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        self.sock.settimeout(10)
        self._unpacker = msgpack.Unpacker()

    def say(self, data: bytes) -> None:
        self.sock.sendall(data)

    def hear(self) -> list[Any] | None:
        """The next message; None once the daemon has hung up."""
        while True:
            for message in self._unpacker:
                assert isinstance(message, list)
                return message
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._unpacker.feed(data)

    def close(self) -> None:
        self.sock.close()


def submit(number: int, name: str = "add", args: tuple[Any, ...] = (1, 2)) -> bytes:
    """A well-formed SUBMIT of a call."""
    payload = msgpack.packb([list(args), {}])
    packed: bytes = msgpack.packb([SUBMIT, number.to_bytes(16, "big"), name, payload, CALL, True])
    return packed

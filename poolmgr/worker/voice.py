"""What a worker says: messages on its result pipe, whole and one after the other, whichever threads they come from."""

from __future__ import annotations

import _thread
import os
from typing import Any

from poolmgr.wire.framing import encode
from poolmgr.wire.parts import Part, rest_of

_os_write, _os_writev = os.write, os.writev  # a task may replace them in their modules


class Voice:
    """The result pipe. Not for signal handlers: they might strike while a message is being written.

    Attributes:
        lock: held while a message is written. Who holds it writes by ``put_locked``.
    """

    def __init__(self) -> None:
        self._results: int
        self.lock = _thread.allocate_lock()  # handlers may have threads, and those may tell of progress

    def open(self, results: int) -> None:
        """The pipe is known."""
        self._results = results

    def write(self, message: tuple[Any, ...]) -> None:
        """One message."""
        data = encode(message)
        with self.lock:
            while (written := _os_write(self._results, data)) < len(data):
                data = data[written:]

    def put(self, parts: list[Part]) -> None:
        """One message in parts."""
        with self.lock:
            self.put_locked(parts)

    def put_locked(self, parts: list[Part]) -> None:
        """The same, of who holds the lock."""
        while parts:
            parts = rest_of(parts, _os_writev(self._results, parts))


class Shield:
    """Our own code on the main thread, which no interrupt must strike: it would leave half a message, or lose a chunk.

    Attributes:
        up: it is that which runs. An interrupt that comes then waits.
        waits: one does.
    """

    __slots__ = ("up", "waits")

    def __init__(self) -> None:
        self.up = False
        self.waits = False

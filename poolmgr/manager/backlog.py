"""What clients have submitted and the store has not yet committed: so many bytes of payloads, and then they must wait.

A client may have thousands of submits under way, each of up to 64 MB, and a disk is slower than a socket. Once those of
one client weigh more than its share (core/allotment.py), it is not read from until commits have brought it back: what
else it has to send waits in its own memory. A client of small tasks never comes near that.

While the store refuses, nobody is held: whatever is durable is refused then, so that nothing more can gather, and all
else is to go on.
"""

from __future__ import annotations

from typing import Final

from poolmgr.core.allotment import Allotment
from poolmgr.manager.outbox import Port

LIMIT_BYTES: Final = 32 << 20
_WHY: Final = "the store is behind"


class Backlog:
    """Of all clients together. ``ports``: those that are connected, by their numbers."""

    def __init__(self, ports: dict[int, Port], limit_bytes: int = LIMIT_BYTES) -> None:
        self._ports = ports
        self._allotment = Allotment(limit_bytes)
        self._of: dict[int, int] = {}  # bytes, by client
        self._held: dict[int, None] = {}

    def add(self, client: int, size: int) -> None:
        """So many bytes of a client wait for a commit."""
        self._change(client, size)
        port = self._ports.get(client)
        if port is not None and client not in self._held and self._is_over(client):
            self._held[client] = None
            port.hold(_WHY)

    def remove(self, client: int, size: int) -> None:
        """So many bytes of a client have been committed."""
        self._change(client, -size)
        for each in [each for each in self._held if not self._is_over(each)]:
            self._let_go(each)

    def store_refuses(self) -> None:
        """Nothing durable is taken from now on."""
        for each in list(self._held):
            self._let_go(each)

    def _change(self, client: int, more: int) -> None:
        self._allotment.held += more
        self._of[client] = self._of.get(client, 0) + more
        if not self._of[client]:
            del self._of[client]

    def _is_over(self, client: int) -> bool:
        own = self._of.get(client, 0)
        return own > self._allotment.share(own)

    def _let_go(self, client: int) -> None:
        del self._held[client]
        port = self._ports.get(client)
        if port is not None:
            port.go_on(_WHY)

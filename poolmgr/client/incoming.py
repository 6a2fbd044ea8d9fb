"""The files that come beside a daemon's messages: each COMPLETED whose payload is a number takes the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from poolmgr.errors import ProtocolError
from poolmgr.parcels.parcel import Allowance, taken
from poolmgr.parcels.passing import dispose_all

_UNREAD: Final = 64  # results that stay in their files until they are asked for; more are read into memory


class Incoming:
    """Those of one client."""

    def __init__(self) -> None:
        self._fds: deque[int] = deque()
        self._unread = Allowance(_UNREAD)

    def came(self, fds: Iterable[int]) -> None:
        """Take over descriptors that came ahead of, or with, what is received next."""
        self._fds.extend(fds)

    def claim(self, message: list[Any]) -> None:
        """Put the payload in the place of the size in a COMPLETED.

        Raises:
            ProtocolError: its file did not come.
        """
        if not self._fds:
            raise ProtocolError("the daemon sent a result without its file")
        message[2] = taken(self._fds.popleft(), message[2], self._unread)

    def close(self) -> None:
        """The connection has ended: close what was not claimed."""
        dispose_all(self._fds)
        self._fds.clear()

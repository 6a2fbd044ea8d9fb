"""Payloads in files on one connection of a client: whether there are any, and those that come beside its messages.

A daemon that offers files is asked for them when the first large payload is seen, and not before: receiving descriptors
costs a little with each read, and most connections never see one. Until it has answered, large payloads go inline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from time import monotonic
from typing import Any, ClassVar, Final

from poolmgr.client.pending import Pending
from poolmgr.errors import ConnectionLost, ProtocolError
from poolmgr.parcels.parcel import PARCEL_BYTES, Allowance, taken
from poolmgr.parcels.passing import dispose_all
from poolmgr.wire.messages import RESPONSE

_UNREAD: Final = 64  # results that stay in their files until they are asked for; more are read into memory
_SCARCE_S: Final = 60.0  # for how long nothing asks for files once this process had too many descriptors open


class Files:
    """Of one connection, and of those that take its place.

    Attributes:
        due: the daemon is to be asked (``ask``), by whoever reads, before it reads on.
        asked: it was: from now on descriptors are to be received.
    """

    _scarce_until: ClassVar[float] = 0.0  # of all connections, as the limit is the process's

    def __init__(self) -> None:
        self.due = False
        self.asked: Pending[bool] | None = None
        self._offered = False
        self._fds: deque[int] = deque()
        self._dropped = False  # descriptors were: which message a later one belongs to is not known any more
        self._unread = Allowance(_UNREAD)

    @property
    def granted(self) -> bool:
        """Whether the daemon takes files."""
        outcome = None if self.asked is None else self.asked.outcome
        return outcome is not None and not isinstance(outcome, BaseException) and outcome[0] == RESPONSE

    def offered(self, offered: bool) -> None:
        """What the daemon has said in its welcome."""
        self._offered = offered

    def ask(self) -> tuple[Pending[bool], str, dict[str, Any]]:
        """The request to put to the daemon, for ``Protocol.request``."""
        self.due, self.asked = False, Pending()
        return self.asked, "files", {}

    def passed(self, size: int) -> None:
        """So large a payload has come or gone."""
        if size >= PARCEL_BYTES and self.asked is None:
            self.due = self._offered and monotonic() >= Files._scarce_until

    def came(self, fds: Iterable[int], dropped: bool = False) -> None:
        """Take over descriptors that came ahead of, or with, what is received next. ``dropped``: the kernel has dropped
        others (MSG_CTRUNC), as this process may not have more open."""
        if self._dropped:
            dispose_all(fds)
            return
        self._fds.extend(fds)
        if dropped:
            self._dropped = True
            Files._scarce_until = monotonic() + _SCARCE_S

    def completed(self, message: list[Any]) -> None:
        """Put the payload in the place of the size in a COMPLETED, if there is one.

        Raises:
            ConnectionLost: its file was dropped. On another connection the same result comes inline.
            ProtocolError: there was none.
        """
        if len(message) < 3:
            return
        if type(message[2]) is not int:
            self.passed(len(message[2]))
        elif self._fds:
            message[2] = taken(self._fds.popleft(), message[2], self._unread)
        elif self._dropped:
            raise ConnectionLost("the file of a result was dropped, as this process has too many open (RLIMIT_NOFILE)")
        else:
            raise ProtocolError("the daemon sent a result without its file")

    def end(self) -> None:
        """The connection has ended: close what was not claimed. On another one the daemon is to be asked anew."""
        dispose_all(self._fds)
        self._fds.clear()
        self.due, self.asked, self._offered, self._dropped = False, None, False, False

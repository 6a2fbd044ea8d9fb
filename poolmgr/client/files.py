"""Payloads in files on one connection of a client: whether there are any, and those that come beside its messages.

A daemon that offers files is asked for them when the first large payload is seen, and not before: receiving descriptors
costs a little with each read, and most connections never see one. Until it has answered, large payloads go inline.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any, ClassVar, Final

from poolmgr.client.pending import Pending
from poolmgr.errors import ConnectionLost, ProtocolError
from poolmgr.parcels.memfds import Memfds
from poolmgr.parcels.parcel import PARCEL_BYTES, Allowance, Parcel, taken
from poolmgr.parcels.passing import dispose_all
from poolmgr.wire.messages import RESPONSE
from poolmgr.wire.parts import Part

_MOST: Final = 128  # files that are not read yet; what is sent beyond them goes inline
_MOST_BYTES: Final = 256 << 20
# Of memory to be used again, while nothing is under way: what `map` fills, which has 64 calls under way, however large.
_KEEP: Final = 64
_KEEP_BYTES: Final = 128 << 20
_UNREAD: Final = 64  # results that stay in their files until they are asked for; more are read into memory
_SCARCE_S: Final = 60.0  # for how long nothing asks for files once this process had too many descriptors open

# Those of this process, for what a fork must do to them.
_all: weakref.WeakSet[Files] = weakref.WeakSet()


class Files:
    """Of one connection, and of those that take its place.

    Attributes:
        written: bytes that went into files since nothing was under way.
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
        # Not those of another connection: behind its payload a worker may see what a file held before, and the other
        # daemon's workers are perhaps not to.
        self._memfds = Memfds(_MOST, _MOST_BYTES, _KEEP_BYTES)
        self.written = 0
        self._written_files = 0
        _all.add(self)

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

    def write(self, parts: Sequence[Part]) -> Parcel | None:
        """A file of what ``parts`` hold, to be sent. None: there is none to be had."""
        parcel = self._memfds.write(parts)
        if parcel is not None:
            self.written += parcel.size
            self._written_files += 1
        return parcel

    def rest(self) -> None:
        """Nothing is under way: give back what was more than is kept, if there was so much."""
        size, count = self.written, self._written_files
        self.written = self._written_files = 0
        # Otherwise all are left alone: what was read a moment ago may not be closed yet, and would be given up.
        if size > _KEEP_BYTES or count > _KEEP:
            self._memfds.trim(_KEEP_BYTES)
            if len(self._memfds) > _KEEP:
                self._memfds.trim(_KEEP * PARCEL_BYTES)  # none is smaller

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

    def close(self) -> None:
        """There will be no other connection. What was written and is not read yet stays with those who read it."""
        self.end()
        self._memfds.close()

    def __del__(self) -> None:
        self._memfds.close()

    def forget(self) -> None:
        """In the child of a fork: its parent's memory is its parent's to write to."""
        self._memfds.forget()


def _forget_all() -> None:
    for each in tuple(_all):
        each.forget()


# Before connections are closed in the child, which their module does: a lock may have been held in the parent.
os.register_at_fork(after_in_child=_forget_all)

"""The files that come beside a client's messages: each SUBMIT whose payload is a number takes the next."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from poolmgr.errors import BadDescriptor, ProtocolError, Unavailable
from poolmgr.parcels.parcel import LEAST_BYTES, Allowance, Parcel, check, taken
from poolmgr.parcels.passing import PASSED, dispose_all
from poolmgr.wire.messages import PAYLOAD_LIMIT, SUBMIT

TURN_BYTES: Final = 8 << 20  # of files that are claimed in one turn: all may have to be read into memory, or compared
_UNCLAIMED: Final = 4 * PASSED  # descriptors that may have come before their messages ...
_UNCOUNTED: Final = PASSED  # ... and of these, where the allowance is used up


class Arrivals:
    """Those of one connection.

    Args:
        allowance: of descriptors that may be held for it. Where it is used up, payloads are read into memory.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._fds: deque[tuple[int, bool]] = deque()  # whether each is counted in the allowance
        self._uncounted = 0
        self._bytes = 0  # claimed since ``next_turn``
        self._lost = False

    def came(self, fds: list[int], lost: bool) -> None:
        """Take them over. ``lost``: there were others, and this process may have no more open."""
        for fd in fds:
            is_counted = self._allowance.take()
            self._uncounted += not is_counted
            self._fds.append((fd, is_counted))
        self._lost = self._lost or lost

    def claim(self, messages: list[list[Any]]) -> int:
        """Put payloads in the place of the sizes in ``messages``; of a wrong descriptor, the error that says why.

        Returns how many messages are done: fewer than there are where ``TURN_BYTES`` were claimed. The others are for
        another turn of the loop, after ``next_turn``.

        Raises:
            ProtocolError: there are too many descriptors.
            Unavailable: there are more than this process may have. That is no fault of the client's.
        """
        if self._lost:
            raise Unavailable("the daemon has as many files open as it may: raise its limit (LimitNOFILE, ulimit -n)")
        for number, message in enumerate(messages):
            if message[0] == SUBMIT and len(message) > 3 and type(message[3]) is int and self._fds:
                if self._bytes >= TURN_BYTES:
                    return number
                message[3] = self._payload(message[3])
        if len(self._fds) > _UNCLAIMED:
            raise ProtocolError(f"over {_UNCLAIMED} descriptors without a message")
        if self._uncounted > _UNCOUNTED:
            raise Unavailable(f"over {_UNCOUNTED} descriptors without a message, and the daemon holds all that it may")
        return len(messages)

    def next_turn(self) -> None:
        """As many bytes as before may be claimed."""
        self._bytes = 0

    def _payload(self, size: int) -> Parcel | bytes | BadDescriptor:
        fd, is_counted = self._fds.popleft()
        self._uncounted -= not is_counted
        try:
            check(fd, size, LEAST_BYTES, PAYLOAD_LIMIT)
        except BadDescriptor as error:
            self._drop(fd, is_counted)
            return error.with_traceback(None)  # whose frames hold other payloads
        self._bytes += size
        return Parcel(fd, size, self._allowance) if is_counted else taken(fd, size, self._allowance)

    def _drop(self, fd: int, is_counted: bool) -> None:
        dispose_all((fd,))
        if is_counted:
            self._allowance.give_back()

    def close(self) -> None:
        """Close what was not claimed. Safe to call twice."""
        while self._fds:
            self._drop(*self._fds.popleft())
        self._uncounted = 0

    def __bool__(self) -> bool:
        return bool(self._fds) or self._lost

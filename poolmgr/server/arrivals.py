"""The files that come beside a client's messages: each SUBMIT whose payload is a number takes the next."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from poolmgr.errors import BadDescriptor, ProtocolError
from poolmgr.parcels.parcel import LEAST_BYTES, Allowance, Parcel, check, taken
from poolmgr.parcels.passing import PASSED, dispose_all
from poolmgr.wire.messages import PAYLOAD_LIMIT, SUBMIT

_UNCLAIMED: Final = 4 * PASSED  # descriptors that may have come before their messages


class Arrivals:
    """Those of one connection.

    Args:
        allowance: of descriptors that may be held for it. Where it is used up, payloads are read into memory.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._fds: deque[int] = deque()
        self._lost = False

    def came(self, fds: list[int], lost: bool) -> None:
        """Take them over. ``lost``: others were dropped."""
        self._fds.extend(fds)
        self._lost = self._lost or lost

    def claim(self, messages: list[list[Any]]) -> None:
        """Put payloads in the place of the sizes in ``messages``; of a wrong descriptor, the error that says why.

        Raises:
            ProtocolError: there are too many descriptors, or too few.
        """
        if self._lost:
            raise ProtocolError(f"descriptors were lost: at most {PASSED} go with one send")
        for message in messages:
            if message[0] == SUBMIT and len(message) > 3 and type(message[3]) is int and self._fds:
                message[3] = self._payload(self._fds.popleft(), message[3])
        if len(self._fds) > _UNCLAIMED:
            raise ProtocolError(f"over {_UNCLAIMED} descriptors without a message")

    def _payload(self, fd: int, size: int) -> Parcel | bytes | BadDescriptor:
        try:
            check(fd, size, LEAST_BYTES, PAYLOAD_LIMIT)
        except BadDescriptor as error:
            dispose_all((fd,))
            return error.with_traceback(None)  # whose frames hold other payloads
        return taken(fd, size, self._allowance)

    def close(self) -> None:
        """Close what was not claimed. Safe to call twice."""
        dispose_all(self._fds)
        self._fds.clear()

    def __bool__(self) -> bool:
        return bool(self._fds) or self._lost

"""The submits of a client that the daemon has not answered: how many there may be, and what they were.

Submits are numbered 1, 2, ... over all connections of a client. ACCEPTED(n) answers the first n of one connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence
from typing import Final

from poolmgr.errors import ProtocolError
from poolmgr.payload import Payload

WINDOW: Final = 10_000  # submits that may be unanswered
WINDOW_BYTES: Final = 32 * 1024 * 1024  # ... and what they may add up to

Sent = tuple[
    bytes, str, Payload, bytes | None
]  # of a submit: its key, its handler's name, packed arguments and options


class Window:
    """To be changed by its ``Protocol`` only.

    Attributes:
        limit: how many submits may be unanswered; 0 while there is no connection.
        submitted: how many there were.
        acknowledged: of how many of them, the first ones, nothing is to be heard: the daemon has accepted or refused
            them, or they were calls that were lost with their connection.
        is_open: there is room for any number. They will fail: the connection is lost.
    """

    __slots__ = (
        "_accepted",
        "_bytes",
        "_has_gaps",
        "_resent",
        "_sent",
        "acknowledged",
        "is_open",
        "limit",
        "submitted",
    )

    def __init__(self) -> None:
        self.limit = WINDOW
        self.submitted = 0
        self.acknowledged = 0
        self.is_open = False
        # Each submit after ``acknowledged``. None, a gap: it is not on this connection.
        self._sent: deque[Sent | None] = deque()
        self._has_gaps = False
        self._bytes = 0
        self._accepted = 0  # of this connection's submits
        self._resent = 0  # of this connection's submits

    @property
    def room(self) -> bool:
        """Whether another submit fits."""
        return (self.submitted - self.acknowledged < self.limit and self._bytes < WINDOW_BYTES) or self.is_open

    @property
    def unanswered(self) -> int:
        """How many submits are not answered."""
        return self.submitted - self.acknowledged

    @property
    def has_resumed(self) -> bool:
        """Whether all that was sent again is answered."""
        return self._accepted >= self._resent

    def add(self, sent: Sent) -> None:
        """Another submit was made. It is kept until the answer."""
        self.submitted += 1
        self._sent.append(sent)
        self._bytes += len(sent[2])

    def add_all(self, sent: Sequence[Sent]) -> None:
        """Other submits were made, in this order."""
        self.submitted += len(sent)
        self._sent.extend(sent)
        self._bytes += sum([len(each[2]) for each in sent])

    def end(self) -> None:
        """The connection is lost: nothing will be sent again."""
        self.is_open = True
        self._sent.clear()
        self._bytes = 0

    def accepted(self, count: int) -> None:
        """The daemon has answered the first ``count`` submits of this connection.

        Raises:
            ProtocolError: there were not so many, or it has answered more before.
        """
        if self.is_open:
            return
        sent, has_gaps = self._sent, self._has_gaps
        answered = count - self._accepted
        if not 0 <= answered <= self.submitted - self.acknowledged:
            raise ProtocolError(f"the daemon accepted {count} tasks, {self.submitted} were submitted")
        for _ in range(answered):
            answered_one = sent.popleft()
            assert answered_one is not None
            self._bytes -= len(answered_one[2])
            if has_gaps:
                self._pass_gaps()
        self._accepted = count
        self.acknowledged += answered

    def again(self, numbers: Container[int]) -> list[Sent]:
        """What to send of the unanswered submits on a new connection: those of these numbers."""
        numbered = enumerate(self._sent, self.acknowledged + 1)
        self._sent = deque(sent if number in numbers else None for number, sent in numbered)
        resent = [sent for sent in self._sent if sent is not None]
        self._bytes = sum(len(sent[2]) for sent in resent)
        self._accepted, self._resent = 0, len(resent)
        self.limit = WINDOW
        self._has_gaps = len(resent) < len(self._sent)
        self._pass_gaps()
        return resent

    def _pass_gaps(self) -> None:
        while self._sent and self._sent[0] is None:
            self._sent.popleft()
            self.acknowledged += 1

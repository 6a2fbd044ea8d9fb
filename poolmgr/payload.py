"""What a task is called with, or what it returns, packed: bytes, or a file that holds them.

Whoever passes a payload on needs no more of it than this. The file is parcels/parcel.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from poolmgr.errors import PayloadLost


class Filed(Protocol):
    """A payload in a file. It has a length, in bytes, and equals another payload of the same content."""

    def __len__(self) -> int: ...

    def content(self) -> bytes:
        """All of it. What is missing of a file that somebody has damaged is made up for by bytes that no MessagePack
        value begins with."""
        ...


@dataclass(frozen=True)
class Lost:
    """In place of the payload of a waiting task whose file is gone for good. Whoever takes the task in ends it.

    Attributes:
        why: for people.
    """

    why: str

    def __len__(self) -> int:
        return 0

    def content(self) -> bytes:
        """Raises ``PayloadLost``."""
        raise PayloadLost(self.why)


Payload = bytes | Filed


def inline(payload: Payload) -> bytes:
    """The payload as bytes."""
    return payload if isinstance(payload, bytes) else payload.content()

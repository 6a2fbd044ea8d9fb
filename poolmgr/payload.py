"""What a task is called with, or what it returns, packed: bytes, or a file that holds them.

Whoever passes a payload on needs no more of it than this. The file is parcels/parcel.py's.
"""

from __future__ import annotations

from typing import Protocol


class Filed(Protocol):
    """A payload in a file. It has a length, in bytes, and equals another payload of the same content."""

    def __len__(self) -> int: ...

    def content(self) -> bytes:
        """All of it. What is missing of a file that somebody has damaged is made up for by bytes that no MessagePack
        value begins with."""
        ...


Payload = bytes | Filed


def inline(payload: Payload) -> bytes:
    """The payload as bytes."""
    return payload if isinstance(payload, bytes) else payload.content()

"""What a client sends of its calls: messages, and files that hold the arguments where these are large."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from poolmgr.client.files import Files
from poolmgr.client.window import Sent
from poolmgr.parcels.parcel import PARCEL_BYTES, Parcel
from poolmgr.parcels.passing import FileMessage
from poolmgr.payload import Payload, inline
from poolmgr.wire.framing import in_parts
from poolmgr.wire.messages import SUBMIT
from poolmgr.wire.parts import LARGE_BYTES, Part
from poolmgr.wire.values import SMALL, call_parts, pack_call

Message = Part | FileMessage  # or a part of one
Outgoing = Message | list[Message]


def packed(args: tuple[Any, ...], kwargs: dict[str, Any], files: Files) -> Payload:
    """The arguments of a call as a payload, in a file if the connection has ``files``.

    Raises:
        BadValue, PayloadTooLarge: as ``values.pack_call``.
    """
    parts = None
    for each in args:
        if type(each) not in SMALL:
            parts = call_parts(args, kwargs)
            break
    if parts is None:
        payload = pack_call(args, kwargs)
        if len(payload) < PARCEL_BYTES:
            return payload
        parts = [payload]
    if files.granted and sum(map(len, parts)) >= PARCEL_BYTES and (parcel := files.write(parts)) is not None:
        return parcel
    return Scattered(parts) if {*map(type, parts)} == {bytes} else b"".join(parts)


class Scattered:
    """A payload whose large binaries are the caller's own: they cannot change, and are sent from where they are."""

    __slots__ = ("_size", "parts")

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size

    def content(self) -> bytes:
        """All of it."""
        return b"".join(self.parts)


def submission(sent: Sent, encode: Callable[[Sequence[Any]], bytes], files: Files, *, waited: bool = False) -> Outgoing:
    """The SUBMIT of a task whose end is wanted. ``waited``: there is a place for it."""
    key, name, payload, options = sent
    more = (options, True, True) if waited else (options, True)
    if isinstance(payload, bytes) and len(payload) < LARGE_BYTES:
        return encode((SUBMIT, key, name, payload, *more))
    if isinstance(payload, Parcel) and files.granted:  # it may be older than this connection
        message = encode((SUBMIT, key, name, payload.size, *more))
        return FileMessage(message, payload, lambda: encode((SUBMIT, key, name, payload.content(), *more)))
    files.passed(len(payload))
    parts = payload.parts if isinstance(payload, Scattered) else [inline(payload)]
    return list(in_parts((SUBMIT, key, name, None, *more), 3, parts, encode))


def together(messages: Iterable[Outgoing]) -> Outgoing:
    """Several messages: joined, where they are short and none of them brings a file."""
    found: list[Message] = []
    for each in messages:
        if isinstance(each, list):
            found += each
        else:
            found.append(each)
    parts = [each for each in found if isinstance(each, bytes) and len(each) < LARGE_BYTES]
    return b"".join(parts) if len(parts) == len(found) else found

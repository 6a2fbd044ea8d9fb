"""What a worker's messages say, checked. Whatever a worker may send, what comes out is well typed, or an exception."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import msgpack

from poolmgr.core.completions import Result
from poolmgr.core.failure import Failure
from poolmgr.parcels.parcel import Parcel
from poolmgr.wire.messages import (
    BROKEN,
    MESSAGE_LIMIT,
    NAME_LIMIT,
    PROTOCOL_VERSION,
    RAISED,
    READY,
    RECALLED,
    RELEASED,
    REPORT,
    TRACEBACK_LIMIT,
    TYPES_LIMIT,
    WORN,
)

_CLOCK_SLACK_S = 1.0  # by so much a worker's time may be ahead of ours


def result_of(message: list[Any], now: float) -> Result:
    """What a DONE says. Raises an ``Exception`` of whatever kind where it is not as docs/protocol.md says.

    A size in the place of the payload is put in the place of it before (``ears``).
    """
    _, fence, begun_at, ended_at, payload = message
    if type(fence) is not int or type(begun_at) is not float or type(ended_at) is not float:
        raise ValueError("a fence or time of the wrong type")
    if not 0.0 < begun_at <= ended_at <= now + _CLOCK_SLACK_S:  # false for NaN, too
        raise ValueError(f"begun at {begun_at}, ended at {ended_at}, and it is {now}")
    if type(payload) is not bytes and type(payload) is not Parcel:
        raise ValueError("a result that is no bin")
    return fence, begun_at, ended_at, payload


def understood(message: list[Any], now: float) -> Sequence[Any]:
    """A message other than DONE, its type first, with every value of the type that the scheduler expects.

    RAISED comes out as (RAISED, fence, begun at, ended at, Failure), READY as (READY, capabilities, takes
    files, takes streams, takes many).

    Raises:
        Exception: of whatever kind, where the message is not as docs/protocol.md says.
    """
    kind = message[0]
    if kind == RAISED:
        _, fence, begun_at, ended_at, code, types, packed, retry_delay_s = message
        result_of([kind, fence, begun_at, ended_at, packed], now)  # what a DONE and this have in common
        return RAISED, fence, begun_at, ended_at, _failure(code, types, packed, retry_delay_s)
    if kind == RELEASED:
        _, fence, begun_at, ended_at = message
        result_of([kind, fence, begun_at, ended_at, b""], now)
        return RELEASED, fence, begun_at, ended_at
    if kind == REPORT:
        _, fence, fraction, text = message
        return REPORT, fence, float(fraction), _text(text, MESSAGE_LIMIT)
    if kind == RECALLED:
        fences = message[1]
        if type(fences) is not list or any(type(fence) is not int for fence in fences):
            raise ValueError("fences of the wrong type")
        return RECALLED, fences
    if kind == READY:
        if message[1] != PROTOCOL_VERSION:
            raise ValueError(f"protocol version {message[1]}, expected {PROTOCOL_VERSION}")
        info = message[4] if len(message) > 4 and type(message[4]) is dict else {}
        capabilities = frozenset(_text(each, NAME_LIMIT) for each in message[3])
        return READY, capabilities, *(info.get(each) is True for each in ("files", "streams", "many"))
    if kind == WORN:
        _, fence, why = message
        if type(fence) is not int:
            raise ValueError("a fence of the wrong type")
        return WORN, fence, _text(why, MESSAGE_LIMIT)
    if kind == BROKEN:
        return BROKEN, _text(message[1], 2 * TRACEBACK_LIMIT)
    raise ValueError(f"type {kind}")


def _failure(code: Any, types: Any, packed: Any, retry_delay_s: Any) -> Failure:
    if retry_delay_s is not None and retry_delay_s is not False:
        if type(retry_delay_s) not in (int, float) or not (isfinite(retry_delay_s) and retry_delay_s >= 0):
            raise ValueError(f"a retry after {retry_delay_s!r} s")
        retry_delay_s = float(retry_delay_s)
    found = msgpack.unpackb(packed)
    return Failure(
        _text(code, NAME_LIMIT),
        _text(found.get("message", ""), MESSAGE_LIMIT),
        _text(found.get("type", ""), NAME_LIMIT),
        _text(found.get("traceback", ""), 2 * TRACEBACK_LIMIT),
        tuple(_text(each, NAME_LIMIT) for each in types[:TYPES_LIMIT]),
        retry_delay_s,
    )


def _text(value: Any, limit: int) -> str:
    """At most ``limit`` characters of it: what a worker says is passed on to clients, in a message that must fit."""
    if type(value) is not str:
        raise ValueError(f"{type(value).__name__} where a text is expected")
    return value[:limit]

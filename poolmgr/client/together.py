"""Submits that go in one message, and the ids that they get."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from time import time_ns
from typing import Any, Final

from poolmgr.client.pending import Pending
from poolmgr.payload import Payload

MANY: Final = 1000  # submits in one message
SMALL_BYTES: Final = 16 * 1024  # a payload of at most so many goes with others

Submit = tuple[Pending[Any], str, Payload, bytes | None]  # who gets its end, the handler, packed arguments and options


def alike(batch: Iterable[Submit], payload_limit: int) -> Iterator[list[Submit]]:
    """The submits of ``batch``, in their order, in lists for one message each. One over the limit is alone in its."""
    small = min(SMALL_BYTES, payload_limit)

    def goes_with(submit: Submit) -> tuple[str, bytes | None, bool]:
        _, name, payload, options = submit
        return name, options, len(payload) <= small

    for (_, _, is_small), some in groupby(batch, goes_with):
        while together := list(islice(some, MANY if is_small else 1)):
            yield together


def new_id(salt: bytes, number: int) -> bytes:
    """A task id as ``model.new_task_id`` shapes it, without its system call: wall ms, salt, count on the connection."""
    return (time_ns() // 1_000_000).to_bytes(6, "big") + salt + (number & 0xFFFFFFFF).to_bytes(4, "big")


def new_ids(salt: bytes, first: int, count: int) -> list[bytes]:
    """As many of them, for the submits numbered from ``first``."""
    begin = (time_ns() // 1_000_000).to_bytes(6, "big") + salt
    return [begin + (number & 0xFFFFFFFF).to_bytes(4, "big") for number in range(first, first + count)]

"""How an attempt went wrong."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgpack

from poolmgr.post_mortem import PostMortem

_NO_FAULT: Final = frozenset({"bad_arguments", "unknown_task", "cancelled", "interrupted"})


class Failure(NamedTuple):
    """A failed attempt, as the worker told it or as the scheduler saw it.

    ``code`` is one of errors.py's. ``types`` are the names of the exception and its bases, for the retry policy.
    ``retry_delay_s``: None leaves the retry to the policy, a number asks for one after so long, False forbids it.
    ``post_mortem`` is what the attempt left behind; it is kept with the attempt, and does not travel to who waits.
    """

    code: str
    message: str
    type: str = ""
    traceback: str = ""
    types: tuple[str, ...] = ()
    retry_delay_s: float | bool | None = None
    post_mortem: PostMortem | None = None

    @property
    def is_a_fault(self) -> bool:
        """Whether it says something of the service behind the name, or of the worker. Bad arguments do not, nor does a
        handler that asks to be called again later (``raise Retry(delay_s=...)``)."""
        asked_for = self.retry_delay_s is not None and self.retry_delay_s is not False
        return self.code not in _NO_FAULT and not asked_for

    def packed(self) -> bytes:
        """As it travels and is kept: a MessagePack map."""
        found = {"type": self.type, "message": self.message, "traceback": self.traceback}
        return bytes(msgpack.packb(found, unicode_errors="replace"))

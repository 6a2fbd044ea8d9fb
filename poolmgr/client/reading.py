"""A reader of one stream, without I/O: where it is, what it asks for, and what has come. What both clients share."""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import Any, Final, Generic, TypeVar

from poolmgr.client import commands
from poolmgr.client.commands import Page, Question
from poolmgr.client.pending import Pending
from poolmgr.errors import ChunksDropped as Dropped
from poolmgr.errors import ConnectionLost, NotFound, PoolError, TaskCancelled
from poolmgr.wire.messages import COMPLETED, RESPONSE
from poolmgr.wire.values import unpack

R = TypeVar("R")

FIRST_PAUSE_S: Final = 0.05  # before a connection is tried again
LONGEST_PAUSE_S: Final = 1.0

_numbers = count(1)  # a connection tells its readers apart by these


class Reading(Generic[R]):
    """What one iterator knows.

    Attributes:
        end: the task, whose outcome is the stream's.
        key: the task's id.
        offset: the number of the next chunk to be taken.
        number: that of this reader on its connection.
        asked: the answer to its last question, until it is taken in. Whoever gives up waiting for it leaves it here, so
            that nothing is asked for twice.
        is_over: all chunks have come. Their takers are then told the outcome, if that is an error; once.
    """

    def __init__(self, end: Pending[Any], key: bytes, offset: int) -> None:
        self.end = end
        self.key = key
        self.offset = offset
        self.number = next(_numbers)
        self.asked: Pending[Any] | None = None
        self.is_over = False
        self.was_told = False
        self._ready: deque[bytes] = deque()

    @property
    def has_chunk(self) -> bool:
        """Whether one can be taken."""
        return bool(self._ready)

    def take(self) -> R:
        """The next chunk. Raises ``BadValue``: it cannot be read; the next one is behind it."""
        self.offset += 1
        value: R = unpack(self._ready.popleft())
        return value

    def question(self) -> Question[Page]:
        """For the next chunks, once all that have come are taken."""
        return commands.chunks(self.key, self.offset, self.number)

    def came(self) -> None:
        """Take in the answer to it, which must be there. Errors: those of ``Pending.value``."""
        assert self.asked is not None
        try:
            page = self.question().read(self.asked.value())
            ready = deque(page.chunks)
        except PoolError:
            self.asked = None
            raise
        # Without a call in between: a signal handler that raises finds all of it, or nothing.
        self._ready, self.is_over, self.asked = ready, page.ended, None

    def detachment(self) -> Question[None]:
        """What tells the daemon that it reads no more."""
        return commands.leave_chunks(self.key, self.number)

    def is_elsewhere(self) -> bool:
        """The daemon knows no task of its id, and has acknowledged the submit: whether it is an earlier one, by its
        deduplication key, which is to be asked for."""
        first = self.end.first
        if not first or first == self.key:
            return False
        self.key = first
        return True

    def is_empty(self, error: NotFound) -> bool:
        """Whether the daemon does not know the task because it has completed without any chunk, as a call."""
        outcome = self.end.outcome
        completed = outcome is not None and not isinstance(outcome, BaseException)
        if isinstance(error, Dropped) or self.offset or self.end.durable or not completed:
            return False
        return outcome[0] in (COMPLETED, RESPONSE)  # type: ignore[index]

    def goes_on(self, error: PoolError) -> bool:
        """Whether a stream goes on after its connection broke: that of a durable task does."""
        return isinstance(error, ConnectionLost) and self.end.durable


def given_up(task_id: str) -> TaskCancelled:
    """What comes of a call whose stream was closed."""
    return TaskCancelled("its stream was closed, and the call with it", task_id=task_id)

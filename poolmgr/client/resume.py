"""A broken connection, until what was under way on it has been resumed on another: what both clients share of that.

1. A connection that breaks is **down** while it holds durable tasks that have not ended; it is dialled again, at once,
   then after 50 ms, 100 ms, and so on up to each second. If it holds none, or the two sides do not understand each
   other (any error but ``Unavailable``), it is lost, and so is what was under way.
2. On the new connection, submits that were not acknowledged are sent again in their order, byte for byte, ids
   included, so that the daemon has each once. What was acknowledged is watched again.
3. The outage lasts until the daemon has answered all that. If the connection breaks before, it is the same outage,
   with its patience and its pauses: a daemon that dies of what it is sent is not brought down for ever.
4. Requests, and tasks that are not durable, fail when the connection breaks: they are never sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from poolmgr.client import commands
from poolmgr.client.pending import Outcome, Pending
from poolmgr.errors import ConnectionLost, NotFound, PoolError, Unavailable, from_code
from poolmgr.wire.messages import REFUSAL

RECONNECT_S: Final = 60.0  # by default, how long a client tries

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_WATCHES: Final = 1000  # requests to watch that may be unanswered: the daemon may have to look on its disk for each


class Outage:
    """When to dial again, and until when. Times are monotonic, in seconds.

    Attributes:
        due: when to dial next.
        attempts: how often that has failed.
        error: why it failed the last time.
    """

    __slots__ = ("_ends_at", "attempts", "due", "error")

    def __init__(self, now: float, patience_s: float) -> None:
        self.due = now
        self.attempts = 0
        self.error: PoolError | None = None
        self._ends_at = now + patience_s

    def failed(self, error: PoolError, now: float) -> bool:
        """Dialling has failed, or the new connection broke at once. Whether to try again, which is then ``due``."""
        self.error = error
        pause = min(_FIRST_PAUSE_S * 2 ** min(self.attempts, 10), _LONGEST_PAUSE_S)
        self.attempts += 1
        self.due = min(now + pause, max(self._ends_at, now))
        return now < self._ends_at and isinstance(error, Unavailable)


class Rewatch:
    """The tasks that are watched again on a new connection, by their ids; so many at a time.

    Attributes:
        waiting: the ids that are not asked for yet.
        asked: the others by the numbers of the requests, as long as these are not answered.
    """

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self.waiting = deque(keys)
        self.asked: dict[int, bytes] = {}

    @property
    def over(self) -> bool:
        """Whether the daemon has answered all."""
        return not self.waiting and not self.asked

    def ask(self, tasks: Mapping[bytes, Pending[Any]], last: int) -> list[tuple[int, str, Mapping[str, Any]]]:
        """The requests to put now, for ids among those of ``tasks``: numbers behind ``last``, commands, arguments."""
        requests = []
        while self.waiting and len(self.asked) < _WATCHES:
            if (key := self.waiting.popleft()) in tasks:
                last += 1
                self.asked[last] = key
                question = commands.watch(key)
                requests.append((last, question.command, question.arguments))
        return requests


class Shared(Pending[Any]):
    """Several tasks of this client that their deduplication keys found to be one, watched under the id of that."""

    __slots__ = ("members",)

    observed = True

    def __init__(self, key: bytes, first: Pending[Any]) -> None:
        super().__init__(durable=True)
        self.key = key
        self.members: list[Pending[Any]] = [first]

    def progressed(self, fraction: float, message: str) -> None:
        for each in self.members:
            each.progressed(fraction, message)


def under_daemons_ids(tasks: Mapping[bytes, Pending[Any]], acknowledged: int) -> dict[bytes, Pending[Any]]:
    """The same tasks by the ids that the daemon knows them by.

    A submit that its key found to be an earlier task was acknowledged as that one, and its own id names nothing.
    """
    found: dict[bytes, Pending[Any]] = {}
    for key, pending in tasks.items():
        known_as = pending.first if pending.first and pending.number <= acknowledged else key
        there = found.setdefault(known_as, pending)
        if there is not pending:
            if not isinstance(there, Shared):
                there = found[known_as] = Shared(known_as, there)
            there.members += pending.members or (pending,)
    return found


def forgotten(refusal: Outcome, key: bytes) -> PoolError:
    """What to tell whoever waits for the task ``key``, which the daemon refuses to be asked for."""
    assert not isinstance(refusal, BaseException)
    assert refusal[0] == REFUSAL
    error = from_code(str(refusal[2]), str(refusal[3]))
    if not isinstance(error, NotFound):
        return error
    return NotFound(
        f"task {key.hex()} was acknowledged, and this daemon does not know it any more: it has ended while the "
        "connection was down, and its result has expired (result_ttl_s) or was purged; or the daemon was started with "
        "another state directory"
    )


def unacknowledged(count: int, cause: PoolError | None) -> ConnectionLost:
    """What to tell whoever waited for acknowledgements on a connection that was lost because of ``cause``."""
    return ConnectionLost(f"{cause}; {count} tasks were not acknowledged: each future tells what is known of its own")


def ended() -> ConnectionLost:
    """The cause of an interruption when the daemon closes its end without a word."""
    return ConnectionLost("the connection to the daemon ended")

"""What goes to clients, and what must wait for a commit before it does."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from poolmgr.core.effects import Accepted, Answer, Emit, Finished, Same, Start, Streamed
from poolmgr.payload import Payload

Held = Accepted | Answer | Emit | Finished | Same | Start | Streamed


class Port(Protocol):
    """One client connection, as the manager sees it."""

    def send(self, message: tuple[Any, ...]) -> None:
        """Append to what the next ``flush`` writes."""
        ...

    def completed(self, task_id: bytes, result: Payload) -> None:
        """``send`` of a task's result. Those that come together may go in one message."""
        ...

    def completed_many(self, task_ids: Sequence[bytes], results: Sequence[Payload]) -> None:
        """``completed`` for each."""
        ...

    def take_files(self) -> None:
        """The client wants large results as files, and may send large arguments so."""
        ...

    def flush(self) -> None:
        """One write for all that was sent in this turn."""
        ...

    def answer(self, request: int, value: Any) -> None:
        """The answer to the request of that number."""
        ...

    def hold(self, why: str) -> None:
        """Read nothing more from it, until ``go_on`` was said for every reason why."""
        ...

    def go_on(self, why: str) -> None:
        """This is no reason any more."""
        ...

    def tell_outcome(self, task_id: bytes, known_as: bytes) -> None:
        """Look a final task's outcome up in the store, and send it under the id ``known_as``."""
        ...


class Outbox:
    """Effects that wait for their commit, in the order of the commits."""

    def __init__(self) -> None:
        self.committed = 0
        self._held: dict[int, deque[Held]] = {}

    def hold(self, effect: Held) -> None:
        """Keep an effect whose commit has not succeeded."""
        self._held.setdefault(effect.commit, deque()).append(effect)

    def release(self, number: int) -> list[Held]:
        """Commits up to ``number`` have succeeded: what has waited for them."""
        self.committed = number
        released: list[Held] = []
        for commit in sorted(each for each in self._held if each <= number):
            released.extend(self._held.pop(commit))
        return released

    def drop_starts(self) -> None:
        """Forget the starts that wait: their commits are refused, and they are not to be made when these succeed."""
        for commit, effects in self._held.items():
            self._held[commit] = deque(effect for effect in effects if not isinstance(effect, Start))

    def __len__(self) -> int:
        return sum(len(each) for each in self._held.values())

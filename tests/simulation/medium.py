"""What a simulated daemon's store is kept in: it outlives the daemon, and it can make trouble.

``Memory`` is quick, and its troubles are made up. ``sqlite_file.File`` is what the product has, with SQLite's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

from poolmgr.core.changes import Change
from poolmgr.errors import StoreUnavailable
from poolmgr.store.base import Store
from poolmgr.store.memory import MemoryStore

# kind of trouble -> what the store says of it
TROUBLES: Final = {"full": "disk is full", "busy": "locked", "failing": "the disk fails"}


class Medium(Protocol):
    """Holds the store of one daemon after the other."""

    @property
    def store(self) -> Store:
        """What the daemon has opened last."""
        ...

    def open(self) -> int:
        """A new daemon opens it; its epoch."""
        ...

    def close(self) -> None:
        """The daemon has ended in good order."""
        ...

    def crash(self) -> None:
        """The daemon is dead: what it had written is there, and nothing was tidied up. Does nothing once closed."""
        ...

    def crash_in(self, action: Callable[[Store], object], share: float) -> None:
        """The daemon dies while ``action`` writes: of its bytes, this ``share`` (from 0, below 1) has been written.

        What ``action`` would commit is then not committed.
        """
        ...

    def trouble(self, kind: str, size: float) -> AbstractContextManager[None]:
        """Inside of it the medium is in trouble of this kind, or '' in none: it may refuse. ``size`` is 0 to 1."""
        ...

    def check(self) -> None:
        """Raise ``AssertionError`` if it is damaged."""
        ...

    def remove(self) -> None:
        """Leave no trace of it. Safe to call in any state."""
        ...


class _Store(MemoryStore):
    """A memory store that can refuse."""

    def __init__(self) -> None:
        super().__init__(limit=None, limit_bytes=None)
        self.refuses = ""

    def apply(self, changes: Sequence[Change]) -> None:
        self._refuse()
        super().apply(changes)

    def expire(self, wall_now: float, limit: int = 1000) -> int:
        self._refuse()
        return super().expire(wall_now, limit)

    def _refuse(self) -> None:
        if self.refuses:
            raise StoreUnavailable(self.refuses)


class Memory:
    """A ``Medium`` of objects."""

    def __init__(self) -> None:
        self.store = _Store()

    def open(self) -> int:
        return self.store.open()

    def close(self) -> None:
        self.store.close()

    def crash(self) -> None:
        self.store.close()

    def crash_in(self, action: Callable[[Store], object], share: float) -> None:
        self.store.close()

    @contextmanager
    def trouble(self, kind: str, size: float) -> Iterator[None]:
        self.store.refuses = TROUBLES.get(kind, "")
        try:
            yield
        finally:
            self.store.refuses = ""

    def check(self) -> None:
        pass

    def remove(self) -> None:
        pass

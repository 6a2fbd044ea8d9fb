"""The store with its writer: group commits that take time, that may fail, and around which the daemon may die."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from poolmgr.core.changes import Change
from poolmgr.core.effects import Persist
from poolmgr.errors import StoreUnavailable
from poolmgr.store.memory import MemoryStore
from tests.simulation.faults import Faults
from tests.simulation.world import World

_BUSY_S = 0.05  # a commit that found the store busy is tried again so much later
_FULL_S = 1.0


class Medium(MemoryStore):
    """A memory store that outlives the daemon, and that can refuse."""

    def __init__(self) -> None:
        super().__init__(limit=None, limit_bytes=None)
        self.refuses = ""

    def apply(self, changes: Sequence[Change]) -> None:
        if self.refuses:
            raise StoreUnavailable(self.refuses)
        super().apply(changes)


class Disk:
    """Stands in the place of the store's thread. What was not committed when the daemon dies is gone."""

    def __init__(self, world: World, faults: Faults) -> None:
        self.store = Medium()
        self.refusing = False  # the last commit failed, and the next has not succeeded
        self._world = world
        self._faults = faults
        self._full_until = 0.0
        self._forget()
        self._life = 0

    def _forget(self) -> None:
        self._waiting: deque[Persist | Callable[[], None]] = deque()
        self._writing: list[Persist] = []

    def begin(
        self, committed: Callable[[int], None], applied: Callable[[Sequence[Change]], None], die: Callable[[], None]
    ) -> int:
        """A daemon opens the store; its epoch. It hears of each commit by ``committed``, unless it ``die``s there."""
        self._committed, self._applied, self._die = committed, applied, die
        return self.store.open()

    def crash(self) -> None:
        """The daemon is dead."""
        self._life += 1
        self._forget()
        self.refusing = False
        self.store.close()

    @property
    def idle(self) -> bool:
        """Everything is committed."""
        return not self._waiting and not self._writing

    def persist(self, effect: Persist) -> None:
        """Commit, together with what else waits."""
        self._waiting.append(effect)
        self._go_on()

    def read(self, function: Callable[[], None]) -> None:
        """Call ``function`` once everything that was to be committed so far is."""
        self._waiting.append(function)
        self._go_on()

    def _go_on(self) -> None:
        if self._writing:
            return
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, Persist):
                self._writing.append(first)
            elif self._writing:
                break
            else:
                self._world.after(0.00005, self._look_up, first, self._life)
            self._waiting.popleft()
        if self._writing:
            slow = self._faults.strikes("slow-commit")
            self._world.after(self._world.between(0.0002, 0.5 if slow else 0.004), self._write, self._life)

    def _look_up(self, function: Callable[[], None], life: int) -> None:
        if life == self._life:
            function()

    def _write(self, life: int) -> None:
        if life != self._life:
            return
        now = self._world.now
        if self._faults.strikes("store-full"):
            self._full_until = now + self._world.between(0.5, 8.0)
        full = now < self._full_until
        self.store.refuses = "database or disk is full" if full else ""
        if not full and self._faults.strikes("store-busy"):
            self.store.refuses = "database is locked"
        if self._faults.strikes("death-before-commit"):
            self._die()
            return
        changes = [change for persist in self._writing for change in persist.changes]
        try:
            self.store.apply(changes)
        except StoreUnavailable:
            self.refusing = True
            self._world.after(_FULL_S if full else _BUSY_S, self._write, life)
            return
        self.refusing = False
        self._applied(changes)
        if self._faults.strikes("death-after-commit"):
            self._die()
            return
        number = self._writing[-1].number
        self._writing = []
        self._committed(number)
        self._go_on()

    def heal(self) -> None:
        """The disk has room again."""
        self._full_until = 0.0

"""The store with its writer: group commits that take time, that may fail, and around which the daemon may die."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from poolmgr.core.changes import Change
from poolmgr.core.effects import Persist
from poolmgr.errors import StoreUnavailable
from poolmgr.store.base import Store
from tests.simulation.faults import Faults
from tests.simulation.ledger import Ledger
from tests.simulation.medium import TROUBLES, Medium
from tests.simulation.world import World

_BUSY_S = 0.05  # a commit that found the store busy is tried again so much later
_FULL_S = 1.0
_EXPIRE_S = 2.0


class Disk:
    """Stands in the place of the store's thread. What was not committed when the daemon dies is gone."""

    def __init__(self, world: World, faults: Faults, medium: Medium) -> None:
        self.ledger = Ledger()
        self.refusals: Counter[str] = Counter()  # what the store really said no to, by the kind of trouble
        self._medium = medium
        self._world = world
        self._faults = faults
        self._full_until = 0.0
        self._forget()
        self._life = 0

    def _forget(self) -> None:
        self._waiting: deque[Persist | Callable[[], None]] = deque()
        self._writing: list[Persist] = []

    @property
    def store(self) -> Store:
        """What this life of the daemon has opened."""
        return self._medium.store

    def begin(
        self,
        committed: Callable[[int], None],
        refused: Callable[[int, str], None],
        applied: Callable[[Sequence[Change]], None],
        die: Callable[[], None],
    ) -> int:
        """A daemon opens the store; its epoch. It hears of each commit by ``committed``, and by ``refused`` each time
        that one is not, unless it ``die``s there."""
        self._committed, self._refused, self._applied, self._die = committed, refused, applied, die
        epoch = self._medium.open()
        self.ledger.compare(self.store)
        self._world.after(_EXPIRE_S, self._upkeep, self._life)
        return epoch

    def crash(self) -> None:
        """The daemon is dead."""
        self._life += 1
        self._forget()
        self._medium.crash()

    def close(self) -> None:
        """The daemon goes, and everything is committed."""
        self._medium.close()

    def check_settled(self) -> None:
        """At the end: what must be in the store is, and the next daemon would find it so."""
        self.ledger.compare(self.store)
        self._medium.check()

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
        changes = [change for persist in self._writing for change in persist.changes]
        if self._faults.strikes("death-before-commit"):
            self._die()
            return
        if self._faults.strikes("death-in-commit"):
            self._medium.crash_in(lambda store: store.apply(changes), self._world.random.random())
            self._die()
            return
        trouble = self._trouble()
        if not self._try(trouble, lambda: self.store.apply(changes)):
            self._refused(self._writing[0].number, trouble)
            self._world.after(_FULL_S if trouble == "full" else _BUSY_S, self._write, life)
            return
        self.ledger.applied(changes)
        self._applied(changes)
        if self._faults.strikes("death-after-commit"):
            self._die()
            return
        number = self._writing[-1].number
        self._writing = []
        self._committed(number)
        self._go_on()

    def _trouble(self) -> str:
        """What kind of it the store is in at this moment, or ''."""
        now = self._world.now
        if self._faults.strikes("store-full"):
            self._full_until = now + self._world.between(0.5, 8.0)
        if now < self._full_until:
            return "full"
        return next((kind for kind in ("busy", "failing") if self._faults.strikes(f"store-{kind}")), "")

    def _try(self, trouble: str, action: Callable[[], None]) -> bool:
        """Whether the store does it, in its trouble; what that is it must tell."""
        error = ""
        try:
            with self._medium.trouble(trouble, self._world.random.random() if trouble else 0.0):
                action()
        except StoreUnavailable as refusal:
            error = str(refusal)
        if not error:
            return True
        assert trouble, f"it refuses for no reason: {error}"
        assert TROUBLES[trouble] in error, f"it is {trouble}, and says: {error}"
        self.refusals[trouble] += 1
        if trouble != "busy":  # it came to nothing before it began
            self.ledger.compare(self.store)
        return False

    def _upkeep(self, life: int) -> None:
        if life == self._life:
            self.read(self._expire)
            self._world.after(_EXPIRE_S, self._upkeep, life)

    def _expire(self) -> None:
        wall_now = self._world.now + self._world.wall_offset
        if self._faults.strikes("death-in-upkeep"):
            self._medium.crash_in(lambda store: store.expire(wall_now), self._world.random.random())
            self._die()
        else:
            self._try(self._trouble(), lambda: self.ledger.expired(wall_now, self.store.expire(wall_now)))
            self._try(self._trouble(), self._sweep)

    def _sweep(self) -> None:
        self.store.sweep(self._world.random.choice((1, 5, 200)))

    def heal(self) -> None:
        """The disk has room again."""
        self._full_until = 0.0

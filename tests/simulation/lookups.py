"""Stands in the place of manager/lookups.py: tasks by their ids, one look-up at a time; what is found may be old."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from poolmgr.core.changes import TaskRecord
from poolmgr.model import FINAL

if TYPE_CHECKING:
    from tests.simulation.shell import Shell

Then = Callable[[TaskRecord | None], None]


class LookUps:
    """``find`` looks in the store, after all that was decided so far; waiting tasks that it shows are fetched."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._waiting: deque[tuple[bytes, Then]] = deque()
        self._looking = False

    def find(self, id: bytes, then: Then) -> None:
        """Call ``then``, in a turn of its own, with the task in memory if it is live, and with its record if it is in
        the store and final."""
        self._waiting.append((id, then))
        if not self._looking:
            self._next()

    def _next(self) -> None:
        self._looking = bool(self._waiting)
        if self._looking:
            self._shell.tell(self._shell.scheduler.recovery.look_up, True)
            self._read()

    def _read(self) -> None:
        shell, id = self._shell, self._waiting[0][0]
        shell.act()
        if shell.alive:
            shell.disk.read(lambda: self._found(shell.disk.store.record(id)))

    def _found(self, record: TaskRecord | None) -> None:
        world = self._shell.world
        world.after(world.between(0.0, 0.002), self._shell.hear, self._take, record)

    def _take(self, record: TaskRecord | None) -> None:
        shell = self._shell
        id, then = self._waiting[0]
        if id not in shell.scheduler.state.tasks and record is not None and record.state not in FINAL:
            fetched = shell.tell(shell.scheduler.recovery.fetch, record, shell.world.now)
            if fetched is None:
                self._read()
                return
        self._waiting.popleft()
        then(record if record is not None and record.state in FINAL else None)
        shell.tell(shell.scheduler.recovery.look_up, False)
        self._next()

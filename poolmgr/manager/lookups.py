"""Tasks by their ids, wherever they are: in memory, on a shelf, or final in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from poolmgr.core.changes import TaskRecord
from poolmgr.core.shelf import LineKey, Place
from poolmgr.core.shelving import PAGE_BYTES
from poolmgr.core.task import Task
from poolmgr.manager.clock import now
from poolmgr.manager.shell import Shell
from poolmgr.model import FINAL, last_id_of
from poolmgr.store.base import Store

_PAGE = 1000

T = TypeVar("T")


class Found(NamedTuple):
    """What the store has of those ids that were ``asked``: of many the first ones. What it lacks and is not beyond
    ``forgotten`` it may have had; what is among ``taken``, too: those had been submitted shortly before it was asked.
    """

    asked: frozenset[bytes]
    records: dict[bytes, TaskRecord]
    forgotten: bytes
    taken: frozenset[bytes]


class LookUps:
    """``async with look_ups:`` one looks up, and does something with what was found, before the next one may.

    So what the store shows is as it is: all that was decided before is kept, and nobody else takes the same task.
    """

    def __init__(self, shell: Shell, act: Callable[[], None]) -> None:
        self._shell = shell
        self._act = act
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> LookUps:
        await self._lock.acquire()
        self._shell.scheduler.recovery.look_up(True)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._shell.scheduler.recovery.look_up(False)
        self._lock.release()

    async def find(self, task_id: bytes) -> Task | None:
        """The live task of that id, brought into memory if only the store has it; None if it is final or unknown.

        Raises:
            StoreUnavailable: the store cannot be asked now.
        """
        tasks = self._shell.scheduler.state.tasks
        while (task := tasks.get(task_id)) is None:
            record = await self._read(lambda store: store.record(task_id))
            if record is None or record.state in FINAL:
                return tasks.get(task_id)
            if task_id not in tasks:
                self.take(record)
        return task

    def take(self, record: TaskRecord) -> Task | None:
        """The live task of a record that was read just now; None if it has ended since."""
        live = self._shell.scheduler.state.tasks.get(record.id)
        return live or self._shell.scheduler.recovery.fetch(record, now())

    async def records(self, ids: Sequence[bytes]) -> Found:
        """What the store has of these, until their payloads are a page. Raises ``StoreUnavailable``."""
        newest = last_id_of(now() + self._shell.scheduler.state.wall_offset)
        taken = frozenset(id for id in ids if id in self._shell.recent_ids)

        def read(store: Store) -> Found:
            records: dict[bytes, TaskRecord] = {}
            asked: set[bytes] = set()
            weighs = 0
            for id in ids:
                asked.add(id)
                record = store.record(id)
                if record is not None:
                    records[id] = record
                    weighs += len(record.payload)
                if weighs >= PAGE_BYTES:
                    break
            forgotten = store.forgotten()
            if forgotten > newest:  # the clock was set back: all that is submitted now would seem to be forgotten
                forgotten = b""
            return Found(frozenset(asked), records, forgotten, taken)

        return await self._read(read)

    async def shelf(self, line: LineKey | None, after: Place) -> list[TaskRecord]:
        """The next tasks of a line that may be in the store alone, beyond ``after``. Raises ``StoreUnavailable``."""
        return await self._read(lambda store: store.shelf(line, after, _PAGE, PAGE_BYTES))

    async def _read(self, function: Callable[[Store], T]) -> T:
        self._act()
        return await self._shell.read_store(function)

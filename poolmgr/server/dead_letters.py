"""Commands about the tasks that were given up: which, those again, and those no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from poolmgr.core.changes import TaskRecord, TasksPurged
from poolmgr.errors import BadOption, UnknownTask, WrongState
from poolmgr.manager.clock import now
from poolmgr.model import FINAL, TaskInfo, TaskState, as_map, new_task_id
from poolmgr.server.call import Call
from poolmgr.server.call import task_id as checked_id
from poolmgr.server.task_commands import no_task
from poolmgr.store.base import Store

_PAGE = 1000  # dead tasks read at a time


class Which(NamedTuple):
    """Of which dead tasks a request speaks: all, unless it says more."""

    name: str | None
    cause: str | None
    ended_by: float  # wall time

    def among(self, store: Store) -> Iterator[TaskInfo]:
        """Those that ``store`` keeps, newest first."""
        before = None
        while page := store.tasks(state=TaskState.DEAD, name=self.name, limit=_PAGE, before=before):
            yield from filter(self._fits, page)
            before = bytes.fromhex(page[-1].id)

    def _fits(self, info: TaskInfo) -> bool:
        return (self.cause is None or info.cause == self.cause) and (info.ended_at or 0.0) <= self.ended_by


async def dead_letters(call: Call) -> list[dict[str, Any]]:
    """Those that the request speaks of, newest first."""
    which, limit = _which(call), call.limit()
    found = await _found(call, lambda store: list(islice(which.among(store), limit)))
    return [as_map(info) for info in sorted(found, key=lambda info: info.id, reverse=True)[:limit]]


async def requeue(call: Call) -> Any:
    """Dead tasks again as new ones: the old id, and the new one, of each. All or none."""
    async with call.manager.look_ups:  # two at once would both find the same ones not requeued yet
        return await _requeue(call)


async def _requeue(call: Call) -> Any:
    manager = call.manager
    made: list[tuple[TaskRecord, bytes]] = []
    for each in await _ids(call, requeued_too=False):
        record = manager.shell.memory.record(each) or await manager.read_store(_record(each))
        if record is None:
            raise no_task(each)
        if record.state is not TaskState.DEAD:
            raise WrongState(f"task {each.hex()} is {record.state}; only dead tasks can be requeued")
        if record.name not in manager.shell.handlers:
            raise UnknownTask(f"the app has no task {record.name!r} any more, so {each.hex()} cannot be run")
        made.append((record, new_task_id()))
    manager.scheduler.intake.requeue(made, now())
    answer = call.when_kept({record.id.hex(): new_id.hex() for record, new_id in made})
    manager.act()  # to the store: whoever looks there next finds them requeued
    return answer


async def purge(call: Call) -> Any:
    """Forget final tasks (``ids``), or the dead ones that the request speaks of, with their history; how many."""
    manager = call.manager
    ids = []
    for each in await _ids(call, requeued_too=True):
        info = manager.shell.memory.task(each) or await manager.read_store(_info(each))
        if info is None or info.state not in FINAL:
            raise no_task(each) if info is None else WrongState(f"task {each.hex()} has not ended")
        ids.append(each)
    manager.shell.memory.apply([TasksPurged(tuple(ids))])
    manager.scheduler.state.fact(TasksPurged(tuple(ids)), True)
    return call.when_kept(len(ids))


async def _ids(call: Call, *, requeued_too: bool) -> list[bytes]:
    """The argument ``ids``, or all that the request speaks of; those that were requeued only if ``requeued_too``."""
    which = _which(call)
    ids = call.arguments.get("ids")
    if ids is None:
        found = await _found(call, lambda store: list(which.among(store)))
        return [bytes.fromhex(info.id) for info in found if requeued_too or info.requeued_as is None]
    if not isinstance(ids, list):
        raise BadOption("ids takes a list of task ids")
    if which != Which(None, None, math.inf):
        raise BadOption("name the ids, or say which by name, cause or older_than_s: not both")
    return list(dict.fromkeys(checked_id(each) for each in ids))


def _which(call: Call) -> Which:
    older_than_s = call.arguments.get("older_than_s")
    ended_by = math.inf
    if older_than_s is not None:
        if isinstance(older_than_s, bool) or not isinstance(older_than_s, (int, float)) or not older_than_s >= 0:
            raise BadOption(f"older_than_s takes seconds, at least 0, got {older_than_s!r}")
        ended_by = now() + call.manager.scheduler.state.wall_offset - older_than_s
    return Which(call.optional_text("name"), call.optional_text("cause"), ended_by)


async def _found(call: Call, look: Callable[[Store], list[TaskInfo]]) -> list[TaskInfo]:
    """What ``look`` finds among those that are not durable, and then among those that are."""
    return [*look(call.manager.shell.memory), *await call.manager.read_store(look)]


def _record(task_id: bytes) -> Callable[[Store], TaskRecord | None]:
    return lambda store: store.record(task_id)


def _info(task_id: bytes) -> Callable[[Store], TaskInfo | None]:
    return lambda store: store.task(task_id)

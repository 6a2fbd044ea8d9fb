"""Commands about tasks."""

from __future__ import annotations

from collections.abc import Callable
from heapq import nlargest
from typing import Any

from poolmgr.core import views
from poolmgr.core.shelf import START, place_of
from poolmgr.errors import BadOption, NotFound, WrongState
from poolmgr.manager.clock import now
from poolmgr.manager.manager import Manager
from poolmgr.model import TaskInfo, TaskState, as_map
from poolmgr.payload import inline
from poolmgr.server.call import LATER, Call
from poolmgr.server.call import task_id as checked_id
from poolmgr.store.base import Outcome, Store


async def task(call: Call) -> dict[str, Any]:
    """A live task, or one that a store keeps."""
    manager, task_id = call.manager, call.id()
    live = manager.scheduler.state.tasks.get(task_id)
    if live is not None:
        return as_map(views.task_info(manager.scheduler.state, live))
    found = manager.shell.memory.task(task_id) or await manager.read_store(lambda store: store.task(task_id))
    if found is None:
        raise no_task(task_id)
    return as_map(found)


async def tasks(call: Call) -> list[dict[str, Any]]:
    """Live and kept ones, newest first."""
    wanted = call.arguments
    state = _state(wanted.get("state"))
    limit, name, before = call.limit(), call.optional_text("name"), wanted.get("before")
    before = checked_id(before) if before is not None else None
    manager = call.manager

    def kept(store: Store) -> list[TaskInfo]:
        return store.tasks(state=state, name=name, limit=limit, before=before)

    found = {info.id: info for info in [*await manager.read_store(kept), *kept(manager.shell.memory)]}
    fitting = []
    for live in manager.scheduler.state.tasks.values():
        if (state is None or live.state is state) and (name is None or live.name == name):
            if before is None or live.id < before:
                fitting.append((live.id, live))
        else:
            found.pop(live.id.hex(), None)
    for _, live in nlargest(limit, fitting):
        found[live.id.hex()] = views.task_info(manager.scheduler.state, live)
    return [as_map(found[each]) for each in sorted(found, reverse=True)[:limit]]


async def result(call: Call) -> dict[str, Any]:
    """How a task ended."""
    outcome = await outcome_of(call.manager, call.id())
    return {"state": outcome.state, "code": outcome.code, "outcome": inline(outcome.outcome)}


async def outcome_of(manager: Manager, task_id: bytes) -> Outcome:
    """A final task's outcome. Raises ``WrongState`` where it has none yet, ``NotFound`` where it is not known."""
    if task_id in manager.scheduler.state.tasks:
        raise _not_ended(task_id)
    found = manager.shell.memory.outcome(task_id)
    found = found or await manager.read_store(lambda store: store.outcome(task_id))
    if found is not None:
        return found
    if await manager.read_store(lambda store: store.record(task_id)) is None:
        raise no_task(task_id)
    raise _not_ended(task_id)


async def watch(call: Call) -> Any:
    """The task's end will be pushed: at once, if it has ended."""
    manager, task_id = call.manager, call.id()
    if not await _live(manager, task_id, lambda: manager.scheduler.intake.watch(task_id, call.client)):
        await outcome_of(manager, task_id)
        manager.shell.ports[call.client].tell_outcome(task_id, task_id)
    return None


def files(call: Call) -> bool:
    """From now on payloads may travel as files on this connection. Not for another user than the daemon's."""
    call.manager.shell.ports[call.client].take_files()
    return True


async def _live(manager: Manager, task_id: bytes, act: Callable[[], object]) -> bool:
    """Whether the task is live; if so, ``act``, with the task in memory."""
    if task_id not in manager.scheduler.state.tasks:
        async with manager.look_ups as look_ups:
            if await look_ups.find(task_id) is None:
                return False
            act()
    else:
        act()
    return True


async def cancel(call: Call) -> Any:
    """True only if the task never began, or was ended by ``kill``."""
    manager, task_id, kill = call.manager, call.id(), call.flag("kill")

    def act() -> None:
        manager.scheduler.intake.cancel(task_id, kill, manager.token(call.client, call.request), now())

    if await _live(manager, task_id, act):
        return LATER
    await outcome_of(manager, task_id)
    return False


async def preempt(call: Call) -> bool:
    """A running task is to give its worker up, and goes back to the queue. False: it does not run."""
    manager, task_id = call.manager, call.id()
    if task_id in manager.scheduler.state.tasks:
        return manager.scheduler.preemption.ask(task_id, now())
    if not await _live(manager, task_id, lambda: None):
        await outcome_of(manager, task_id)
    return False


async def clear(call: Call) -> Any:
    """Cancel every task that waits; how many. Those that come meanwhile stay."""
    manager = call.manager
    state = manager.scheduler.state
    last = state.last_order
    count = manager.scheduler.intake.clear(now())
    async with manager.look_ups as look_ups:
        for line in state.shelved_lines():
            after = START
            while page := await look_ups.shelf(line, after):
                after = place_of(page[-1])
                taken = [look_ups.take(record) for record in page if record.order <= last]
                count += manager.scheduler.intake.cancel_waiting([task for task in taken if task is not None], now())
    return call.when_kept(count)


def _state(value: Any) -> TaskState | None:
    try:
        return TaskState(value) if value is not None else None
    except ValueError:
        raise BadOption(f"unknown state {value!r}: it is one of {', '.join(TaskState)}") from None


def _not_ended(task_id: bytes) -> WrongState:
    return WrongState(f"task {task_id.hex()} has not ended; wait for it with watch")


def no_task(task_id: bytes) -> NotFound:
    return NotFound(
        f"no task {task_id.hex()}: it never was, or its result was delivered (a call), expired, or was purged"
    )

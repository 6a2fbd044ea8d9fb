"""Commands about the file that durable tasks are kept in."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from poolmgr.errors import BadOption, WrongState
from poolmgr.server.call import Call

if TYPE_CHECKING:
    from poolmgr.store.sqlite import SqliteStore


def database(call: Call) -> dict[str, Any]:
    """Where it is."""
    return {"path": _file(call).path}


async def backup(call: Call) -> dict[str, Any]:
    """Copy it, as it is at one moment, to the new file ``to``. Commits go on meanwhile."""
    from poolmgr.store.backup import back_up

    store, to = _file(call), call.text("to")
    if not os.path.isabs(to):
        raise BadOption(f"to takes an absolute path, got {to!r}: the daemon has a directory of its own")
    with ExitStack() as held:
        held.enter_context(store.files_held())
        copying = asyncio.get_running_loop().run_in_executor(None, lambda: back_up(store.path, to, alone=False))
        release = held.pop_all().close
    copying.add_done_callback(lambda _: release())  # whoever asked may leave: the thread goes on, and needs the files
    return {"path": to, "bytes": await asyncio.shield(copying)}


async def vacuum(call: Call) -> dict[str, int]:
    """Give back the space that forgotten tasks have left. Commits wait for it."""
    store = _file(call)
    before = os.stat(store.path).st_size
    await call.manager.read_store(lambda _: store.vacuum())
    return {"bytes_before": before, "bytes_after": os.stat(store.path).st_size}


def _file(call: Call) -> SqliteStore:
    from poolmgr.store.sqlite import SqliteStore

    store = call.manager.shell.store
    if not isinstance(store, SqliteStore):
        raise WrongState("this pool keeps everything in memory: there is no database")
    return store

"""What the parts of the manager share, by itself."""

from __future__ import annotations

import asyncio

import pytest

from poolmgr.config import Settings
from poolmgr.core.scheduler import Scheduler
from poolmgr.errors import StoreUnavailable
from poolmgr.manager.lookups import LookUps
from poolmgr.manager.shell import Shell
from poolmgr.store.base import Store
from poolmgr.store.memory import MemoryStore
from poolmgr.store.writer import StoreWriter


def make_shell() -> Shell:
    settings, store = Settings(), MemoryStore()
    store.open()
    shell = Shell(settings, store, Scheduler(settings, random=lambda: 0.0), lambda: None)
    shell.writer = StoreWriter(store, lambda number, error: None)
    shell.writer.start()
    return shell


def refuse(store: Store) -> None:
    raise StoreUnavailable("the disk is full")


def test_a_store_that_refuses_says_so() -> None:
    async def main() -> None:
        shell = make_shell()
        with pytest.raises(StoreUnavailable, match="full"):
            await shell.read_store(refuse)
        shell.writer.close()

    asyncio.run(main())


def test_one_that_is_closed_says_nothing_and_whoever_asks_can_be_ended() -> None:
    async def main() -> None:
        shell = make_shell()
        asked = asyncio.ensure_future(shell.read_store(lambda store: store.task(bytes(16))))
        await asyncio.sleep(0)
        shell.writer.close()
        assert await asked is None, "what was asked before is answered"
        look_ups = LookUps(shell, lambda: None)

        async def look_up() -> None:
            async with look_ups:
                await look_ups.find(bytes(16))

        for late in (shell.read_store(refuse), look_up(), look_up()):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(late, 0.01)

    asyncio.run(main())

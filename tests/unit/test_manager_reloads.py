"""A reload's watcher is told how it ends, whatever ends it."""

from __future__ import annotations

import asyncio

import pytest

from poolmgr.config import Settings
from poolmgr.core.scheduler import Scheduler
from poolmgr.errors import ConfigError
from poolmgr.manager.reloads import Reloads
from poolmgr.manager.shell import Shell
from poolmgr.store.memory import MemoryStore


class Watcher:
    def __init__(self) -> None:
        self.told: list[str] = []

    def reload_began(self) -> None:
        self.told.append("began")

    def reload_ended(self, refusal: str) -> None:
        self.told.append(refusal)


@pytest.mark.parametrize(
    ("reason", "refusal"),
    [
        (ConfigError("no such setting"), "no such setting"),
        (ZeroDivisionError("unforeseen"), "ZeroDivisionError('unforeseen')"),
        (asyncio.CancelledError(), "it was broken off"),
    ],
    ids=["foreseen", "unforeseen", "broken-off"],
)
def test_a_reload_that_does_not_succeed_is_a_refusal(reason: BaseException, refusal: str) -> None:
    watcher = Watcher()

    def read_settings() -> Settings:
        raise reason

    async def reload() -> None:
        settings = Settings()
        shell = Shell(settings, MemoryStore(), Scheduler(settings, random=lambda: 0.0), lambda: None)
        reloads = Reloads(shell, read_settings)
        reloads.watcher = watcher
        await reloads.reload()

    with pytest.raises(type(reason)):
        asyncio.run(reload())
    assert watcher.told == ["began", refusal]

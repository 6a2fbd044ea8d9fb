"""A client's connection in the daemon, without a daemon: what is left of it when it is gone."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
import uvloop

from poolmgr.manager.manager import Manager
from poolmgr.manager.recent_ids import RecentIds
from poolmgr.model import TaskOptions
from poolmgr.parcels.parcel import Allowance
from poolmgr.parcels.stream import Stream
from poolmgr.server.connection import Connection
from poolmgr.server.options import OptionCache
from tests.integration.raw import HELLO_THERE, submit
from tests.unit.driver import Pool


def manager_of(pool: Pool, gone: asyncio.Event) -> Manager:
    """As much of a manager as a connection needs that asks for nothing."""
    shell = SimpleNamespace(recent_ids=RecentIds(NOW))
    return cast(
        Manager,
        SimpleNamespace(
            scheduler=pool.scheduler, shell=shell, epoch=1, attach=lambda port: 1,
            detach=lambda client: gone.set(), told=lambda: None, refused_to=lambda client: None,
            descriptors=lambda: Allowance(8),
        ),
    )  # fmt: skip


NOW = 1_700_000_000.0


async def serve(made: list[weakref.ref[Connection]], connected: set[Connection]) -> None:
    """Have a connection, take two submits and a refused one from it, and lose it."""
    gone = asyncio.Event()
    manager, options = manager_of(Pool(), gone), OptionCache({"add": TaskOptions()})
    peer = SimpleNamespace(pid=1, uid=0, is_owner=True)

    def make() -> Connection:
        connection = Connection(manager, options, lambda transport: peer, connected)
        made.append(weakref.ref(connection))
        return connection

    ours, theirs = socket.socketpair()
    with theirs:
        Stream(asyncio.get_running_loop(), ours, make(), bytearray(4096))
        theirs.sendall(HELLO_THERE + submit(1) + submit(2) + submit(3, "nobody"))
        theirs.settimeout(10)
        assert await asyncio.get_running_loop().run_in_executor(None, theirs.recv, 4096)
    await gone.wait()
    await asyncio.sleep(0)  # the loop lets go of what it has called


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_lost_connection_leaves_nothing_to_the_collector(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    made: list[weakref.ref[Connection]] = []
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(serve(made, set()))
            assert [each() for each in made] == [None]
    finally:
        gc.enable()

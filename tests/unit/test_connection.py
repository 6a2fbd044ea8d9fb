"""A client's connection in the daemon, without a daemon: what is left of it when it is gone."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import socket
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import msgpack
import pytest
import uvloop

from poolmgr.errors import BadDescriptor, Unavailable
from poolmgr.manager.manager import Manager
from poolmgr.manager.recent_ids import RecentIds
from poolmgr.model import TaskOptions
from poolmgr.parcels.parcel import Allowance, Parcel
from poolmgr.parcels.stream import Stream
from poolmgr.server.arrivals import TURN_BYTES, Arrivals
from poolmgr.server.connection import Connection
from poolmgr.server.options import OptionCache
from poolmgr.server.peer import Peer
from poolmgr.wire.messages import (
    COMPLETED,
    COMPLETED_MANY,
    ERROR,
    HELLO,
    PROTOCOL_VERSION,
    REFUSAL,
    REQUEST,
    RESPONSE,
    SUBMIT,
)
from tests.integration.raw import CALL, HELLO_THERE, submit
from tests.unit.driver import Pool
from tests.unit.test_stream import KNOWS_PASSRIGHTS


class BrokenLookUps:
    """A defect."""

    async def __aenter__(self) -> BrokenLookUps:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def records(self, ids: list[bytes]) -> None:
        raise ValueError("a defect")


def manager_of(pool: Pool, gone: asyncio.Event) -> Manager:
    """As much of a manager as a connection needs that asks for nothing."""
    shell = SimpleNamespace(recent_ids=RecentIds(NOW), ports={})
    return cast(
        Manager,
        SimpleNamespace(
            scheduler=pool.scheduler, shell=shell, epoch=1, attach=lambda port: 1,
            detach=lambda client: gone.set(), told=lambda: None, refused_to=lambda client: None,
            descriptors=lambda: Allowance(8), look_ups=BrokenLookUps(),
        ),
    )  # fmt: skip


NOW = 1_700_000_000.0


async def serve(made: list[weakref.ref[Connection]], connected: set[Connection]) -> None:
    """Have a connection, take two submits and a refused one from it, and lose it."""
    gone = asyncio.Event()
    manager, options = manager_of(Pool(), gone), OptionCache({"add": TaskOptions()})
    peer = Peer(1, os.geteuid(), True)

    def make() -> Connection:
        connection = Connection(manager, options, lambda transport: peer, connected)
        made.append(weakref.ref(connection))
        return connection

    ours, theirs = socket.socketpair()
    with theirs:
        Stream(asyncio.get_running_loop(), ours, make(), memoryview(bytearray(4096)))
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


@asynccontextmanager
async def connected(manager: Manager, peer: Peer) -> AsyncIterator[tuple[Connection, Raw]]:
    """A connection that ``peer`` has made, and its other end."""
    ours, theirs = socket.socketpair()
    options = OptionCache({"add": TaskOptions()})
    connection = Connection(manager, options, lambda transport: peer, set())
    stream = Stream(asyncio.get_running_loop(), ours, connection, memoryview(bytearray(4096)))
    theirs.setblocking(False)
    raw = Raw(theirs)
    try:
        yield connection, raw
    finally:
        stream.abort()
        theirs.close()
        await connection._lost


class Raw:
    """Says what it is told to, and hears the answers."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._unpacker = msgpack.Unpacker()

    def say(self, *messages: tuple[Any, ...]) -> None:
        self.sock.send(b"".join(map(msgpack.packb, messages)))

    async def hear(self) -> Any:
        """The next message; None at the end."""
        async with asyncio.timeout(10):
            while True:
                for message in self._unpacker:
                    return message
                data = await asyncio.get_running_loop().sock_recv(self.sock, 4096)
                if not data:
                    return None
                self._unpacker.feed(data)


@pytest.mark.parametrize("is_own", [True, False])
def test_files_are_for_the_daemons_own_user_alone(is_own: bool) -> None:
    """The kernel does not tell of pages that were spliced out of a file: whoever is not trusted must hold none."""

    async def test() -> None:
        gone = asyncio.Event()
        manager = manager_of(Pool(), gone)
        async with connected(manager, Peer(1, os.geteuid() + (not is_own), True)) as (connection, raw):
            manager.shell.ports[1] = connection
            raw.say((HELLO, PROTOCOL_VERSION, "client", {}), (REQUEST, 1, "files", {}))
            assert (await raw.hear())[2]["files"] is is_own
            answer = await raw.hear()
            assert answer[:3] == ([RESPONSE, 1, True] if is_own else [REFUSAL, 1, "not_allowed"])
            if KNOWS_PASSRIGHTS and not is_own:
                with pytest.raises(PermissionError):
                    socket.send_fds(raw.sock, [b"x"], [0])

    asyncio.run(test())


def test_a_defect_when_the_store_is_asked_ends_the_connection_that_asks() -> None:
    async def test() -> None:
        async with connected(manager_of(Pool(), asyncio.Event()), Peer(1, os.geteuid(), True)) as (connection, raw):
            durable = msgpack.packb({"durable": True})
            raw.say((HELLO, PROTOCOL_VERSION, "client", {}), (SUBMIT, b"\xff" * 16, "add", PAYLOAD, durable, True))
            await raw.hear()
            kind, code, text = await raw.hear()
            assert (kind, code) == (ERROR, "error")
            assert "ValueError: a defect" in text
            assert await raw.hear() is None
            assert not connection._held

    asyncio.run(test())


def test_results_that_come_together_go_together_where_they_may() -> None:
    """Small ones do, to a client that understands that; any others go by themselves, in the same order."""

    async def test() -> None:
        manager = manager_of(Pool(), asyncio.Event())
        ids = [bytes([number]) * 16 for number in range(3)]
        for many, results in (
            (True, [b"a", b"b", b"c"]),
            (False, [b"a", b"b", b"c"]),
            (True, [b"a", bytes(40_000), b"c"]),
        ):
            async with connected(manager, Peer(1, os.geteuid(), True)) as (connection, raw):
                raw.say((HELLO, PROTOCOL_VERSION, "client", {"many": many}))
                await raw.hear()
                connection.completed_many(ids, results)
                connection.flush()
                heard = [await raw.hear()]
                while sum(len(each[1]) if each[0] == COMPLETED_MANY else 1 for each in heard) < 3:
                    heard.append(await raw.hear())
                if many and results[1] == b"b":
                    assert heard == [[COMPLETED_MANY, ids, results]]
                else:
                    assert heard == [[COMPLETED, id, result] for id, result in zip(ids, results, strict=True)]

    asyncio.run(test())


PAYLOAD = msgpack.packb([[], {}])


@pytest.mark.parametrize("in_one", [True, False])
def test_files_that_may_have_to_be_read_are_taken_some_a_turn(in_one: bool) -> None:
    """Sparse files cost their sender nothing, and whoever compares or copies them much."""

    async def test() -> None:
        manager = manager_of(Pool(), asyncio.Event())
        async with connected(manager, Peer(1, os.geteuid(), True)) as (connection, raw):
            manager.shell.ports[1] = connection
            raw.say((HELLO, PROTOCOL_VERSION, "client", {}), (REQUEST, 1, "files", {}))
            await raw.hear()
            await raw.hear()
            taken: list[int] = []
            take_each = connection._take_each

            def counted(messages: list[list[Any]], at: float) -> None:
                taken.append(len(messages))
                take_each(messages, at)

            manager.refused_to = lambda client: connection.flush()  # type: ignore[method-assign]
            connection._take_each = counted  # type: ignore[method-assign]
            size = TURN_BYTES * 2 // 3
            fd = sparse_memfd(size)
            submits = [
                msgpack.packb((SUBMIT, number.to_bytes(16, "big"), "nobody", size, CALL, True)) for number in range(7)
            ]
            if in_one:
                socket.send_fds(raw.sock, [b"".join(submits)], [fd] * 7)
            else:
                for submit in submits:
                    socket.send_fds(raw.sock, [submit], [fd])
            os.close(fd)
            told = [await raw.hear() for _ in submits]
            assert [each[1][-1] for each in told] == list(range(7))  # in their order
            assert sum(taken) == 7
            assert max(taken) == (2 if in_one else 1)
            assert not connection._held

    asyncio.run(test())


def sparse_memfd(size: int) -> int:
    fd = os.memfd_create("sparse", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def test_descriptors_without_messages_are_counted_too() -> None:
    allowance = Allowance(3)
    arrivals = Arrivals(allowance)
    arrivals.came([sparse_memfd(1 << 20) for _ in range(5)], False)
    assert allowance.taken == 3
    messages: list[list[Any]] = [[SUBMIT, b"", "", 1 << 20], [SUBMIT, b"", "", 5], [SUBMIT, b"", "", 1 << 20]]
    assert arrivals.claim(messages) == 3
    assert [type(each[3]) for each in messages] == [Parcel, BadDescriptor, Parcel]
    assert allowance.taken == 2
    arrivals.close()
    arrivals.close()
    messages.clear()
    assert allowance.taken == 0
    arrivals.came([os.dup(0) for _ in range(36)], False)
    with pytest.raises(Unavailable, match="over 32"):
        arrivals.claim([])
    arrivals.close()
    assert allowance.taken == 0


def test_descriptors_that_the_daemon_may_not_have_are_no_fault_of_the_clients() -> None:
    """Durable futures survive what is ``Unavailable``, and no ``ProtocolError``."""
    arrivals = Arrivals(Allowance(3))
    arrivals.came([], True)
    with pytest.raises(Unavailable, match="as many files open as it may"):
        arrivals.claim([])

"""A socket on an event loop that carries descriptors: what it tells its protocol, and what it does to its peer."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from poolmgr.parcels import stream as stream_module
from poolmgr.parcels.memfds import Memfds
from poolmgr.parcels.parcel import Parcel
from poolmgr.parcels.passing import ANCILLARY_BYTES, RECEIVE, FileMessage, received, send
from poolmgr.parcels.stream import Stream, refuse_files

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]
CONTENT = b"x" * 100_000
with socket.socket(socket.AF_UNIX) as _some:
    KNOWS_PASSRIGHTS = refuse_files(_some)


class Told:
    """A protocol that remembers what it was told."""

    def __init__(self) -> None:
        self.data = b""
        self.files: list[int] = []
        self.at: list[int] = []  # how much data had come before each of them
        self.calls: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.fails = False

    def connection_made(self, transport: Any) -> None:
        self.calls.append("made")

    def files_received(self, fds: list[int], lost: bool) -> None:
        self.files += fds
        self.at += [len(self.data)] * len(fds)
        if lost:
            self.calls.append("lost files")

    def data_received(self, data: memoryview) -> None:
        if self.fails:
            raise ValueError("a defect")
        self.data += data

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@asynccontextmanager
async def connected(takes_files: bool = True) -> AsyncIterator[tuple[Stream, Told, socket.socket]]:
    ours, theirs = socket.socketpair()
    told = Told()
    made = Stream(asyncio.get_running_loop(), ours, told, memoryview(bytearray(65536)))
    if takes_files:
        made.take_files()
    theirs.setblocking(False)
    try:
        yield made, told, theirs
    finally:
        made.abort()
        await told.lost
        theirs.close()
        for fd in told.files:
            os.close(fd)


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110 - what is waited for is the loop's own turns
            await asyncio.sleep(0)


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    def run(test: Callable[[], Any]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(test())

    return run


Run = Callable[[Callable[[], Awaitable[None]]], None]


def a_parcel() -> Parcel:
    memfds = Memfds(1, 1 << 30, 0)
    parcel = memfds.write([CONTENT])
    memfds.close()
    assert parcel is not None
    return parcel


def a_message(data: bytes = b"message", parcel: Parcel | None = None) -> FileMessage:
    return FileMessage(data, parcel or a_parcel(), lambda: b"inline")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_descriptors_are_told_ahead_of_the_bytes_that_they_came_with(run: Run) -> None:
    async def test() -> None:
        async with connected() as (_, told, theirs):
            theirs.send(b"before")
            parcel = a_parcel()
            for text in (b"one", b"two"):
                send(theirs, text, parcel.fd, 0)
            theirs.send(b"after")
            await until(lambda: told.data == b"beforeonetwoafter")
            assert told.at[0] <= 6
            assert 6 <= told.at[1] <= 9
            assert [os.pread(fd, 10, 0) for fd in told.files] == [b"x" * 10] * 2
            assert not any(os.get_inheritable(fd) for fd in told.files)

    run(test)


def test_all_descriptors_of_one_send_are_taken(run: Run) -> None:
    """What the kernel has no room for it closes in the loop's thread, and a close may wait."""

    async def test() -> None:
        async with connected() as (_, told, theirs):
            with a_many(253) as fds:
                socket.send_fds(theirs, [b"x"], fds)
            await until(lambda: told.data)
            assert "lost files" not in told.calls
            assert len(told.files) == 253

    run(test)


def test_descriptors_that_this_process_may_not_have_are_told_to_be_lost(run: Run) -> None:
    async def test() -> None:
        async with connected() as (_, told, theirs):
            with a_many(100) as fds:
                socket.send_fds(theirs, [b"x"], fds)
                soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (max(fds) + 50, hard))
                try:
                    await until(lambda: told.data)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert told.calls[-1] == "lost files"
            assert 0 < len(told.files) < 100

    run(test)


@pytest.mark.skipif(not KNOWS_PASSRIGHTS, reason="Linux 6.16 and later can refuse descriptors")
def test_descriptors_are_refused_where_none_are_wanted(run: Run) -> None:
    async def test() -> None:
        async with connected(takes_files=False) as (made, told, theirs):
            with a_many(1) as fds:
                with pytest.raises(PermissionError):
                    socket.send_fds(theirs, [b"x"], fds)
                theirs.send(b"y")
                made.take_files()
                socket.send_fds(theirs, [b"z"], fds)
            await until(lambda: told.data == b"yz")
            assert len(told.files) == 1

    run(test)


def test_descriptors_that_are_not_wanted_and_cannot_be_refused_are_closed_elsewhere(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    disposed: list[int] = []
    monkeypatch.setattr(stream_module, "refuse_files", lambda sock: False)
    monkeypatch.setattr(stream_module, "dispose_all", disposed.extend)

    async def test() -> None:
        async with connected(takes_files=False) as (_, told, theirs):
            with a_many(253) as fds:
                socket.send_fds(theirs, [b"x"], fds)
            await until(lambda: told.data)
            assert not told.files
            assert len(disposed) == 253
            while disposed:
                os.close(disposed.pop())

    run(test)

    run(test)


class a_many:  # noqa: N801 - reads as a phrase
    def __init__(self, count: int) -> None:
        self._fds = [os.dup(0) for _ in range(count)]

    def __enter__(self) -> list[int]:
        return self._fds

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            os.close(fd)


def test_what_is_written_leaves_in_its_order_with_its_files(run: Run) -> None:
    async def test() -> None:
        async with connected() as (made, told, theirs):
            made.set_write_buffer_limits(high=1 << 20, low=1 << 18)
            chunk = b"y" * 100_000
            for _ in range(30):
                made.write(chunk)
                made.write_file(a_message())
            assert made.get_write_buffer_size() > 1 << 20
            assert "pause" in told.calls
            found, files = b"", []
            while len(found) < 30 * (len(chunk) + 7):
                try:
                    data, ancillary, _, _ = theirs.recvmsg(1 << 20, ANCILLARY_BYTES, RECEIVE)
                except BlockingIOError:
                    await asyncio.sleep(0)
                    continue
                found += data
                files += received(ancillary)
            assert found == (chunk + b"message") * 30
            assert len(files) == 30
            assert told.calls[-1] == "resume"
            assert made.get_write_buffer_size() == 0
            for fd in files:
                os.close(fd)

    run(test)


def test_a_peer_that_reads_nothing_is_not_owed_files_without_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "_PASSED_BYTES", 5 * len(CONTENT))

    async def test() -> None:
        async with connected() as (made, _, theirs):
            message = a_message(b"m")
            for _ in range(8):
                made.write_file(message)
            data, ancillary, _, _ = theirs.recvmsg(100, ANCILLARY_BYTES, RECEIVE)
            for _ in range(20):
                if not ancillary:
                    break
                for fd in received(ancillary):
                    os.close(fd)
                more, ancillary, _, _ = theirs.recvmsg(100, ANCILLARY_BYTES, RECEIVE)
                data += more
            assert data == b"mmmmm" + b"inline" * 3
            made.write_file(message)  # it has read all: there is room again
            data, ancillary, _, _ = theirs.recvmsg(100, ANCILLARY_BYTES, RECEIVE)
            assert data == b"m"
            [fd] = received(ancillary)
            os.close(fd)

    run(test)


@pytest.mark.parametrize("full", [False, True])
def test_where_no_more_descriptors_may_be_on_their_way_it_goes_inline(
    run: Run, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.ETOOMANYREFS, "too many")

    async def test() -> None:
        async with connected() as (made, told, theirs):
            if full:
                made.write(b"y" * (1 << 20))
            monkeypatch.setattr(stream_module, "send", refuse)
            made.write_file(a_message())
            made.write(b"end")
            found = b""
            while not found.endswith(b"end"):
                try:
                    found += theirs.recv(1 << 20)
                except BlockingIOError:
                    await asyncio.sleep(0)
            assert found == b"y" * (full << 20) + b"inlineend"
            assert not told.lost.done()

    run(test)


def test_closed_it_sends_what_is_unsent_and_aborted_it_does_not(run: Run) -> None:
    async def test() -> None:
        before = open_files()
        async with connected() as (made, told, theirs):
            made.write(b"y" * (1 << 20))
            made.write_file(a_message())
            made.close()
            made.close()
            assert made.is_closing()
            made.write(b"not any more")
            found = b""
            while not told.lost.done() or found[-7:] != b"message":
                try:
                    data, ancillary, _, _ = theirs.recvmsg(1 << 20, ANCILLARY_BYTES, RECEIVE)
                except BlockingIOError:
                    await asyncio.sleep(0)
                    continue
                found += data
                for fd in received(ancillary):
                    os.close(fd)
            assert len(found) == (1 << 20) + 7
            assert await told.lost is None
        async with connected() as (made, told, _):
            made.write(b"y" * (1 << 20))
            made.write_file(a_message())
            made.abort()
            made.abort()
            assert await told.lost is None
        assert open_files() == before

    run(test)


def test_closed_it_does_not_wait_for_a_peer_that_takes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "_TAKE_NOTHING_S", 0.2)

    async def test() -> None:
        async with connected() as (made, told, theirs):
            made.write(b"y" * (4 << 20))
            made.close()
            for _ in range(6):  # this one is slow
                await asyncio.sleep(0.1)
                theirs.recv(300_000)
            assert not told.lost.done()
            async with asyncio.timeout(5):
                assert await told.lost is None

    run(test)


def test_a_peer_that_has_gone_ends_it(run: Run) -> None:
    async def test() -> None:
        async with connected() as (_, told, theirs):
            theirs.send(b"last")
            theirs.close()
            assert await told.lost is None
            assert told.data == b"last"
        async with connected() as (made, told, theirs):
            theirs.close()
            made.write(b"x")
            made.write_file(a_message())
            assert isinstance(await told.lost, ConnectionError | None)

    run(test)


def test_paused_it_reads_nothing_and_goes_on_where_it_was(run: Run) -> None:
    async def test() -> None:
        async with connected() as (made, told, theirs):
            made.pause_reading()
            made.pause_reading()
            parcel = a_parcel()
            send(theirs, b"later", parcel.fd, 0)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not told.data
            made.resume_reading()
            await until(lambda: told.data == b"later")
            assert told.at == [0]

    run(test)


def test_a_defect_of_its_protocol_ends_it_alone(run: Run) -> None:
    async def test() -> None:
        contexts: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
        async with connected() as (_, told, theirs):
            told.fails = True
            theirs.send(b"x")
            assert isinstance(await told.lost, ValueError)
        assert len(contexts) == 1
        assert "handle" not in contexts[0]  # with one the daemon would end (daemon/loop.py)

    run(test)


def test_it_leaves_nothing_to_the_collector(run: Run) -> None:
    async def test() -> None:
        ours, theirs = socket.socketpair()
        told = Told()
        made = weakref.ref(Stream(asyncio.get_running_loop(), ours, told, memoryview(bytearray(100))))
        theirs.close()
        await told.lost
        await asyncio.sleep(0)
        assert made() is None

    gc.collect()
    gc.disable()
    try:
        run(test)
    finally:
        gc.enable()

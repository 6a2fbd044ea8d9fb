"""Payloads that travel in files: right in whatever way; and nothing is left of them, whoever dies or lies."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import numpy
import pytest
import uvloop

from poolmgr import AsyncClient, Client, Executor
from poolmgr.errors import TaskFailed
from poolmgr.parcels.parcel import PARCEL_BYTES
from poolmgr.wire.messages import (
    ACCEPTED,
    COMPLETED,
    ERROR,
    HELLO,
    PROTOCOL_VERSION,
    REFUSED,
    REQUEST,
    RESPONSE,
    SUBMIT,
    WELCOME,
)
from poolmgr.wire.values import pack_call
from scripts.proofs.pool import Pool, until
from tests.conformance import third_party_worker
from tests.integration.conftest import Gate, check_it_is_as_it_was
from tests.integration.raw import CALL, Raw

MB = 1 << 20
SIZES = [PARCEL_BYTES - 100, PARCEL_BYTES, MB, 5 * MB + 3]
WITH_FILES = msgpack.packb([HELLO, PROTOCOL_VERSION, "client", {}]) + msgpack.packb([REQUEST, 1, "files", {}])


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that tell one payload from another."""
    return (seed.to_bytes(4, "big") + os.urandom(4092)) * (size // 4096) + b"." * (size % 4096)


def warm(client: Client) -> None:
    """Have a connection see large payloads, and so take files."""
    for _ in range(2):
        client.run("size_of", noise(MB))
    assert client._redial.live().protocol.files.granted


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def payload_files(pid: int) -> int:
    """How many descriptors of payloads a process holds."""
    found = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += os.readlink(each).startswith("/memfd:poolmgr-payload")
        except FileNotFoundError:
            pass
    return found


@pytest.fixture
def steady(shared_pool: Pool, client: Client) -> Iterator[Client]:
    """A client of the shared pool, which after the test holds no descriptor more than before."""
    warm(client)
    before = descriptors(shared_pool.pid)
    yield client
    until(lambda: payload_files(shared_pool.pid) == 0, "the daemon holds no payload")
    until(lambda: descriptors(shared_pool.pid) <= before, "it holds no descriptor more than before")


@pytest.fixture
def raw(shared_pool: Pool) -> Iterator[Raw]:
    raw = Raw(shared_pool.socket)
    raw.say(WITH_FILES)
    welcome = raw.hear()
    assert welcome is not None
    assert welcome[0] == WELCOME
    assert welcome[2]["files"] is True
    assert raw.hear() == [RESPONSE, 1, True]
    yield raw
    raw.close()


# ------------------------------------------------------------------------------------------ every way


@pytest.mark.parametrize("size", SIZES)
def test_a_large_value_comes_back_by_every_call(steady: Client, size: int) -> None:
    value = noise(size)
    assert steady.run("echo", value) == value
    assert steady.using(durable=False).submit("echo", value).result(timeout=20) == value
    assert steady.submit("echo", value).result(timeout=20) == value
    assert list(steady.map("echo", [value] * 5)) == [value] * 5
    assert steady.run("size_of", value=value) == size  # as a keyword argument it is packed as a whole
    assert steady.run("echo", [[value[:100]] * 2000, {"x": value}]) == [[value[:100]] * 2000, {"x": value}]


def test_each_of_many_has_its_own(steady: Client) -> None:
    values = [noise(MB + number, number) for number in range(40)]
    assert list(steady.map("echo", values)) == values
    futures = [steady.using(durable=False).submit("echo", each) for each in values]
    assert [each.result(timeout=20) for each in futures] == values


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_async_client_sends_and_receives_them(shared_pool: Pool, steady: Client, loop: str) -> None:
    async def calls() -> None:
        async with AsyncClient(str(shared_pool.socket)) as client:
            await client.run("echo", noise(MB))
            await client.run("echo", noise(MB))
            link = client._redial.link
            assert link is not None
            assert link.protocol.files.granted
            values = [noise(MB + number, number) for number in range(10)]
            assert [each async for each in client.map("echo", values)] == values
            assert await asyncio.gather(*(client.run("echo", each) for each in values)) == values
            assert await client.submit("echo", values[3]) == values[3]

    factory = uvloop.new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(calls())


def test_an_executor_sends_and_receives_them(steady: Client) -> None:
    with Executor(client=steady) as executor:
        values = [noise(MB + number, number) for number in range(10)]
        assert list(executor.map(bytes, values)) == values
        assert executor.submit(bytes.upper, values[0]).result(timeout=20) == values[0].upper()


def test_arrays_travel_from_memory_to_memory(steady: Client) -> None:
    numbers = numpy.arange(MB, dtype="f8").reshape(1024, 1024)
    with Executor(client=steady) as executor:
        for _ in range(2):  # of the first large call on all go as files
            executor.submit(numpy.sum, numbers).result(timeout=20)
        doubled = executor.submit(numpy.multiply, numbers, 2).result(timeout=20)
        assert numpy.array_equal(doubled, numbers * 2)
        doubled[0, 0] = 7  # it is this program's own
        sums = list(executor.map(numpy.sum, [numbers + number for number in range(10)]))
        assert sums == [numbers.sum() + number * MB for number in range(10)]
        # In the worker they may be written to, too, and lie as memory of its own would.
        assert executor.submit(change_in_place, numbers).result(timeout=20) == (True, True, True, -1.0)
        assert numbers[0, 0] == 0.0
        frozen = numbers.copy()
        frozen.flags.writeable = False
        assert executor.submit(is_writeable, frozen).result(timeout=20) is False
        turned, small = executor.submit(both, numbers.T[::2], numbers[0, :5]).result(timeout=20)
        assert numpy.array_equal(turned, numbers.T[::2])
        assert numpy.array_equal(small, numbers[0, :5])
        small += 1
        assert next(executor.map(lambda each: each + 1, [numbers], chunksize=3))[0, 0] == 1.0
        with pytest.raises(ValueError, match="no such"):
            executor.submit(raise_with, numbers).result(timeout=20)
    for back in (steady.run("echo", numbers), steady.run("echo", [numbers, 1])[0]):
        assert numpy.array_equal(back, numbers)
        back += 1


def change_in_place(array: Any) -> tuple[bool, bool, bool, float]:
    flags = bool(array.flags.writeable), bool(array.flags.aligned), bool(array.flags.c_contiguous)
    array[0, 0] = -1.0
    return (*flags, float(array[0, 0]))


def is_writeable(array: Any) -> bool:
    return bool(array.flags.writeable)


def both(one: Any, other: Any) -> tuple[Any, Any]:
    return one, other


def raise_with(array: Any) -> None:
    raise ValueError("no such thing", array)


def test_a_private_pools_executor_does_the_same() -> None:
    numbers = numpy.arange(MB, dtype="f4")
    with Executor(max_workers=2) as executor:
        for _ in range(3):
            executor.submit(numpy.negative, numbers).result(timeout=20)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            assert numpy.array_equal(executor.submit(numpy.negative, numbers).result(timeout=20), -numbers)
        assert len(os.listdir("/proc/self/fd")) <= before + 8


def test_workers_and_clients_that_take_no_files_get_them_inline(short_path: Callable[[], Path], steady: Client) -> None:
    command = shlex.join([sys.executable, str(third_party_worker.__file__)])
    pool = Pool(short_path(), app="", workers=1, worker_command=command, worker_tasks="third.add")
    with pool, pool.client() as client:
        assert client.run("third.add", noise(MB), b"x")[-1:] == b"x"
        until(lambda: payload_files(pool.pid) == 0)


def test_a_client_that_takes_no_files_gets_results_inline(shared_pool: Pool, steady: Client) -> None:
    raw = Raw(shared_pool.socket)
    raw.say(msgpack.packb([HELLO, PROTOCOL_VERSION, "client", {}]))
    value = noise(MB)
    raw.say(msgpack.packb([SUBMIT, os.urandom(16), "echo", pack_call((value,), {}), CALL, True]))
    heard = [raw.hear() for _ in range(3)]
    [completed] = [each for each in heard if each and each[0] == COMPLETED]
    assert msgpack.unpackb(completed[2]) == value
    raw.close()


# ------------------------------------------------------------------------------------------ nothing is left


def test_thousands_leave_nothing_behind(start_pool: Callable[..., Pool]) -> None:
    pool = start_pool(workers=4)
    with pool.client() as client:
        value = noise(PARCEL_BYTES)
        list(client.map("echo", [value] * 200))
        before = {each.pid: descriptors(each.pid) for each in client.workers() if each.pid}
        daemons = descriptors(pool.pid)
        for _ in range(4):
            assert set(client.map("size_of", [value] * 1000)) == {PARCEL_BYTES}
            assert all(each == value for each in client.map("echo", [value] * 200))
        until(lambda: payload_files(pool.pid) == 0)
        assert descriptors(pool.pid) <= daemons
        # What the others keep to use again is bounded, and given back when there is nothing to do.
        for pid in before:
            assert descriptors(pid) <= before[pid] + 64
        until(lambda: all(payload_files(pid) <= 2 * MB // PARCEL_BYTES for pid in before), "idle workers give back")
        assert payload_files(os.getpid()) <= 64
    assert payload_files(os.getpid()) == 0


def test_a_client_that_has_nothing_under_way_gives_back_what_its_largest_burst_took(steady: Client) -> None:
    before = payload_files(os.getpid())
    value = noise(2 * MB)
    futures = [steady.using(durable=False).submit("size_of", value) for _ in range(100)]
    assert {each.result(timeout=20) for each in futures} == {len(value)}
    assert payload_files(os.getpid()) <= before + 64
    assert memory_of_payloads() <= 128 * MB
    assert steady.run("echo", value) == value


def test_an_async_client_gives_it_back_as_well(shared_pool: Pool, steady: Client) -> None:
    async def burst() -> None:
        async with AsyncClient(str(shared_pool.socket)) as client:
            value = noise(PARCEL_BYTES)
            for _ in range(2):
                await client.run("size_of", value)
            before = payload_files(os.getpid())
            assert set(await asyncio.gather(*(client.run("size_of", value) for _ in range(100)))) == {len(value)}
            assert payload_files(os.getpid()) <= before + 64
        assert payload_files(os.getpid()) <= before

    asyncio.run(burst())


def memory_of_payloads() -> int:
    """What this process keeps of it."""
    found = {}
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            if os.readlink(each).startswith("/memfd:poolmgr-payload"):
                found[os.stat(each).st_ino] = os.stat(each).st_blocks * 512
    return sum(found.values())


def test_what_one_daemon_was_sent_is_not_behind_what_another_gets(
    steady: Client, start_pool: Callable[..., Pool]
) -> None:
    def inodes(client: Client) -> set[int]:
        return {each.inode for each in client._redial.live().protocol.files._memfds._made}

    with start_pool(workers=1).client() as other:
        warm(other)
        for client in (steady, other) * 3:
            client.run("size_of", noise(MB))
        assert inodes(steady)
        assert inodes(other)
        assert not inodes(steady) & inodes(other)


def test_results_that_nobody_takes_are_bounded(shared_pool: Pool, client: Client, raw: Raw) -> None:
    value = pack_call((20 * MB,), {})
    for _ in range(30):
        raw.say(msgpack.packb([SUBMIT, os.urandom(16), "zeros", value, CALL, True]))
    until(lambda: client.metrics()["tasks"]["running"] == 0, timeout_s=30)
    files = [payload_files(each.pid) for each in client.workers() if each.pid]
    assert max(files) * 20 <= 128 + 20
    raw.close()
    until(lambda: payload_files(shared_pool.pid) == 0)
    check_it_is_as_it_was(client, 4)


# ------------------------------------------------------------------------------------------ deaths


def test_a_worker_that_is_killed_before_it_reads_costs_nothing_of_the_payload(start_pool: Callable[..., Pool]) -> None:
    pool = start_pool(workers=1)
    value = noise(3 * MB)
    with pool.client() as client:
        warm(client)
        [worker] = client.workers()
        assert worker.pid is not None
        before = descriptors(pool.pid)
        for _ in range(3):
            [worker] = client.workers()
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGSTOP)
            future = client.using(durable=False).submit("echo", value)
            future.accepted(timeout=10)
            until(lambda: payload_files(pool.pid) == 1, "the daemon holds it for another attempt")
            os.kill(worker.pid, signal.SIGKILL)
            assert future.result(timeout=20) == value
        until(lambda: payload_files(pool.pid) == 0)
        until(lambda: descriptors(pool.pid) <= before)


def test_a_task_that_kills_its_worker_is_tried_again_with_the_same_arguments(steady: Client, tmp_path: Path) -> None:
    value = noise(2 * MB)
    assert steady.using(max_retries=1, retry_backoff_s=0).run("die_at_first", str(tmp_path / "died"), value) == value


def test_recalled_and_cancelled_tasks_let_go_of_their_files(lone: Client, lone_pool: Pool, gate: Gate) -> None:
    warm(lone)
    value = noise(MB)
    list(lone.map("echo", [b""] * 100))  # so that some are prefetched
    calls = lone.using(durable=False)
    holding = calls.submit("hold", gate.path)
    gate.begun()
    waiting = [calls.submit("echo", value) for _ in range(20)]
    waiting[-1].accepted(timeout=10)
    until(lambda: payload_files(lone_pool.pid) == 20)
    assert all(each.cancel() for each in waiting)
    gate.open()
    holding.result(timeout=10)
    until(lambda: payload_files(lone_pool.pid) == 0)
    [worker] = lone.workers()
    assert worker.pid is not None
    until(lambda: payload_files(worker.pid or 0) == 0, "the worker has closed what was recalled")


def test_a_client_that_is_killed_in_the_middle_of_a_message_leaves_nothing(shared_pool: Pool, steady: Client) -> None:
    code = f"""
import os, signal, socket, sys
sys.path[:0] = {sys.path!r}
from tests.integration import test_large_payloads as here
sock = socket.socket(socket.AF_UNIX)
sock.connect({str(shared_pool.socket)!r})
sock.sendall(here.WITH_FILES)
while not sock.recv(4096).endswith(bytes([1, 0xC3])):
    pass
payload = here.pack_call((bytes(here.MB),), {{}})
for _ in range(5):
    here.send_file(sock, here.submit_file(os.urandom(16), len(payload)), here.memfd(here.MB * 2, content=payload))
here.send_file(sock, here.submit_file(os.urandom(16), here.MB)[:-3], here.memfd(here.MB))
os.kill(os.getpid(), signal.SIGKILL)
"""
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL


def test_durable_ones_survive_the_daemon(make_pool: Callable[..., Pool], short_path: Callable[[], Path]) -> None:
    directory = short_path()
    pool = make_pool(directory=directory).start()
    values = [noise(MB + number, number) for number in range(8)]
    with pool.client() as client:
        warm(client)
        ended = client.submit("echo", values[0])
        assert ended.result(timeout=20) == values[0]
        client.pause("echo")
        waiting = [client.submit("echo", each) for each in values]
        client.flush(timeout=20)
        pool.kill()
        pool.start()
        assert [each.result(timeout=20) for each in waiting] == values
        assert [client.result(each.id) for each in waiting] == values
        assert client.result(ended.id, timeout=20) == values[0]
        until(lambda: payload_files(pool.pid) == 0)


def test_a_reconnecting_client_sends_its_files_again(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool().start()
    values = [noise(MB + number, number) for number in range(12)]
    with pool.client() as client:
        warm(client)
        os.kill(pool.pid, signal.SIGSTOP)
        waiting = [client.submit("echo", each) for each in values]
        pool.kill()
        pool.start()
        assert [each.result(timeout=30) for each in waiting] == values


# ------------------------------------------------------------------------------------------ lies


def memfd(size: int, seals: int = fcntl.F_SEAL_SHRINK, content: bytes = b"") -> int:
    fd = os.memfd_create("hostile", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.pwrite(fd, content, 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def submit_file(task_id: bytes, size: Any, name: str = "echo") -> bytes:
    packed: bytes = msgpack.packb([SUBMIT, task_id, name, size, CALL, True])
    return packed


def send_file(sock: socket.socket, data: bytes, *fds: int) -> None:
    socket.send_fds(sock, [data], fds)
    for fd in fds:
        os.close(fd)


def _unreadable() -> int:
    """By access mode 3, which the kernel knows, and few others do: it may neither read nor write."""
    fd = memfd(MB)
    try:
        return os.open(f"/proc/self/fd/{fd}", 3)
    finally:
        os.close(fd)


def _unix_socket() -> int:
    return socket.socket(socket.AF_UNIX).detach()


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: os.pipe()[0], MB),
        (lambda: os.open("/", os.O_RDONLY), MB),
        (lambda: os.open("/dev/zero", os.O_RDONLY), MB),
        (lambda: os.open(sys.executable, os.O_RDONLY), 100_000),
        (_unix_socket, MB),
        (_unreadable, MB),
        (lambda: memfd(MB, 0), MB),
        (lambda: memfd(MB - 1), MB),
        (lambda: memfd(MB), 1000),
        (lambda: memfd(MB), -5),
        (lambda: memfd(MB), 1 << 40),
    ],
)
def test_a_wrong_descriptor_costs_its_submit_alone(
    steady: Client, raw: Raw, make: Callable[[], int], size: int
) -> None:
    good, bad, last = (os.urandom(16) for _ in range(3))
    payload = pack_call((b"y" * MB,), {})
    send_file(raw.sock, submit_file(good, len(payload)), memfd(2 * MB, content=payload))
    send_file(raw.sock, submit_file(bad, size), make())
    send_file(raw.sock, submit_file(last, len(payload)), memfd(2 * MB, content=payload))
    raw.sock.settimeout(10)
    told: dict[bytes, Any] = {}
    while len(told) < 3:
        data, fds, _, _ = socket.recv_fds(raw.sock, 1 << 16, 8)
        for fd in fds:
            assert os.pread(fd, 5, 5) == b"yyyyy"
            os.close(fd)
        unpacker = msgpack.Unpacker()
        unpacker.feed(data)
        told.update({each[1]: each for each in unpacker if each[0] != ACCEPTED})
    assert [told[each][0] for each in (good, bad, last)] == [COMPLETED, REFUSED, COMPLETED]
    assert told[bad][2] == "bad_descriptor"
    assert told[good][2] == len(payload) - 2  # without the call's two arrays


def test_what_changes_on_the_way_is_its_senders_fault(steady: Client, raw: Raw) -> None:
    """It cannot shrink; holes may be punched, and bytes changed, at any time."""
    payload = pack_call((b"y" * MB,), {})
    for change in (b"\xc1" * 100, b"\xdd\xff\xff\xff\xff"):
        fd = memfd(2 * MB, content=payload)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 10)
        os.pwrite(fd, change, 0)
        send_file(raw.sock, submit_file(os.urandom(16), len(payload)), fd)
        while (told := raw.hear()) and told[0] == ACCEPTED:
            pass
        assert told is not None
        assert told[3] == "bad_arguments"
    steady.purge()


@pytest.mark.parametrize("count", [1, 129, 300])
def test_descriptors_without_a_message_end_their_connection(steady: Client, raw: Raw, count: int) -> None:
    try:
        if count == 1:
            raw.say(submit_file(os.urandom(16), MB))  # a message without a descriptor
        for _ in range(count // 10):
            send_file(raw.sock, msgpack.packb([99])[:0] or b"\x93", *(memfd(MB) for _ in range(10)))
        send_file(raw.sock, b"\xc1", *(memfd(MB) for _ in range(count % 10)))
    except (BrokenPipeError, ConnectionResetError):
        pass
    message = raw.hear()
    assert message is None or (message[0] == ERROR and message[1] == "protocol")
    assert steady.run("add", 1, 2) == 3


def test_too_many_in_one_send_end_their_connection(steady: Client, raw: Raw) -> None:
    send_file(raw.sock, submit_file(os.urandom(16), MB), *(memfd(MB) for _ in range(200)))
    message = raw.hear()
    assert message is not None
    assert message[:2] == [ERROR, "protocol"]
    assert steady.run("add", 1, 2) == 3


def test_more_than_are_held_are_read_into_memory(make_pool: Callable[..., Pool], gate: Gate) -> None:
    pool = make_pool(workers=1)
    pool.command = ["sh", "-c", 'ulimit -n 400; exec "$@"', "sh", *pool.command]
    pool.start()
    values = [noise(PARCEL_BYTES, number) for number in range(120)]
    with pool.client() as client:
        warm(client)
        calls = client.using(durable=False)
        holding = calls.submit("hold", gate.path)
        gate.begun()
        futures = [calls.submit("echo", each) for each in values]
        futures[-1].accepted(timeout=20)
        assert 0 < payload_files(pool.pid) <= 50  # a quarter is for all, half of that for one client
        gate.open()
        holding.result(timeout=10)
        assert [each.result(timeout=20) for each in futures] == values
        until(lambda: payload_files(pool.pid) == 0)


@pytest.mark.parametrize("kind", ["pipe", "none", "unsealed", "unreadable", "short", "two", "unasked", "wrong fence"])
def test_a_worker_that_lies_about_its_result_is_killed_and_nobody_else(client: Client, kind: str) -> None:
    with pytest.raises(TaskFailed) as failed:
        client.using(max_retries=0).run("lie_about_the_result", kind)
    assert failed.value.code == "worker_died"
    assert client.run("add", 1, 2) == 3
    client.purge()

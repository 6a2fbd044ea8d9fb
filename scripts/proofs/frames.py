"""A million fuzzed frames, and thousands of connections cut short, hurt nobody but who sends them.

Half of the frames go to the daemon's socket, half come out of its own workers' pipes and control channels; and as many
again are given to the decoder and to the check of what workers say, without any process. All are made from seeds.
Meanwhile an honest client has its results.
"""

from __future__ import annotations

import os
import random
import select
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgpack

from poolmgr import Client, PoolError
from poolmgr.errors import ProtocolError
from poolmgr.manager import procfs
from poolmgr.manager.hearing import result_of, understood
from poolmgr.wire.framing import Decoder
from poolmgr.wire.messages import DONE, HELLO, PROTOCOL_VERSION, REQUEST
from scripts.proofs import fuzz
from scripts.proofs.pool import Pool, until
from scripts.proofs.report import Report

FRAMES = 1_000_000
A_CONNECTION = 250  # frames of one connection
A_TASK = 2000  # frames of one babbling task
WORKERS = 4
LEAK_MB = 48.0  # what the daemon may have grown by
_HELLO = msgpack.packb([HELLO, PROTOCOL_VERSION, "client", {}])
_FILES = msgpack.packb([REQUEST, 1, "files", {}])


def prove(scale: float) -> Report:
    """Send ``scale`` times a million frames."""
    report = Report("frames")
    half = max(2 * A_TASK, round(FRAMES * scale / 2))
    with (
        tempfile.TemporaryDirectory(prefix="poolmgr-") as directory,
        Pool(Path(directory), app="fuzz", workers=WORKERS, result_ttl_s=1, breaker_failures=0) as pool,
    ):
        with pool.client() as client:
            _connect(pool, client, 0, 20)  # what is grown once, is grown now
            _babble(client, 0, 4)
            before = _sizes(pool, client)
            connections = half // A_CONNECTION
            honest = _connect(pool, client, 1, connections)
            tasks = half // A_TASK
            honest += _babble(client, 1, tasks)
            after = _sizes(pool, client)
        report.figure("frames to the socket", connections * A_CONNECTION)
        report.figure("connections, each cut short", connections, at_least=connections)
        report.figure("frames out of workers", tasks * A_TASK)
        report.figure("workers that babbled", tasks, at_least=tasks)
        report.figure("honest results", honest, at_least=connections + tasks)
        report.figure("growth of the daemon", after[0] - before[0], "MB", at_most=LEAK_MB)
        report.figure("files of the daemon more", after[1] - before[1], at_most=0)
        report.figure("processes more", after[2] - before[2], at_most=0)
    decoded, believed = undaunted(range(max(10, round(FRAMES * scale / 100))))
    report.figure("frames decoded without any process", decoded, at_least=decoded)
    report.figure("of them believed", believed, at_least=1)
    return report


def _connect(pool: Pool, client: Client, seed: int, connections: int) -> int:
    """Open so many connections, one after the other; honest results meanwhile."""
    for number in range(connections):
        source = random.Random(f"socket {seed} {number}")
        make = source.choice((fuzz.submit, fuzz.submit, fuzz.request, fuzz.submit_file))
        frames = fuzz.stream(source, make, A_CONNECTION - 1)
        if make is fuzz.submit_file:
            _say_with_files(pool.socket, source, frames)
        else:
            data = b"".join(frames)
            _say(pool.socket, _HELLO + data if source.random() < 0.95 else data)
        assert client.run("noop", number) == number
    return connections


def _say(path: Path, data: bytes) -> None:
    """Say it, and go: half of the time without reading a word."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.setblocking(False)
        try:
            while data:
                readable, writable, _ = select.select([sock], [sock], [], 10)
                if readable and not sock.recv(1 << 16):
                    return
                if writable:
                    data = data[sock.send(data) :]
        except ConnectionError:
            pass  # it has had enough


def _say_with_files(path: Path, source: random.Random, frames: Iterable[bytes]) -> None:
    """The same, with descriptors beside the frames, and mostly after it was said that they may come."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.settimeout(10)
        try:
            asks = source.random() < 0.9
            sock.sendall(_HELLO + (_FILES if asks else b""))
            answers, decoder = 1 + asks, Decoder()
            while answers > 0 and (data := sock.recv(1 << 16)):
                answers -= len(decoder.feed(data))
            for frame in frames:
                with fuzz.descriptors(source) as fds:
                    try:
                        sent = socket.send_fds(sock, [frame], fds)
                    except PermissionError:  # nobody has asked: then the kernel refuses them
                        sent = 0
                    sock.sendall(frame[sent:])
                if source.random() < 0.3 and select.select([sock], [], [], 0)[0]:
                    _, fds, _, _ = socket.recv_fds(sock, 1 << 16, 8)
                    for fd in fds:
                        os.close(fd)
        except (ConnectionError, TimeoutError):
            pass


def _babble(client: Client, seed: int, tasks: int) -> int:
    """Have so many tasks babble, one after the other; honest results meanwhile."""
    # A piece of a frame may swallow the task's own result behind it: then its time limit ends it.
    calls = client.using(durable=False, max_retries=0, timeout_s=1.0)
    for number in range(tasks):
        name = "babble_on_control" if number % 4 == 3 else "babble"
        try:
            calls.submit(name, seed * 1_000_000 + number, A_TASK).result(timeout=30)
        except PoolError:
            pass
        assert client.run("noop", number) == number
    client.purge()
    return tasks


def _sizes(pool: Pool, client: Client) -> tuple[float, int, int]:
    """The daemon's size in MB, its files, and all processes; once all workers are ready again."""
    until(lambda: [worker.state for worker in client.workers()] == ["ready"] * WORKERS, "all workers are ready", 30)
    until(lambda: len(pool.crew()) == WORKERS + 2, "the dead are gone")
    return procfs.resident_mb(pool.pid), pool.open_files(), len(pool.crew())


def undaunted(seeds: range) -> tuple[int, int]:
    """Decode a hundred odd frames for each seed, in pieces, and check what comes out as the manager does: the number
    of frames, and how many messages were believed.

    Raises:
        Exception: another than ``ProtocolError`` of the decoder, or what was believed is not as the scheduler expects.
    """
    believed = 0
    for seed in seeds:
        source = random.Random(seed)
        decoder = Decoder()
        for _ in range(100):
            data = fuzz.odd(source, fuzz.from_worker(source))
            cut = source.randrange(len(data) + 1)
            try:
                messages = [*decoder.feed(data[:cut]), *decoder.feed(data[cut:])]
            except ProtocolError:
                decoder = Decoder()
                continue
            believed += sum(map(_believed, messages))
    return 100 * len(seeds), believed


def _believed(message: list[Any]) -> bool:
    try:
        if message[0] == DONE:
            fence, begun_at, ended_at, payload = result_of(message, 1.0)
            assert type(fence) is int
            assert 0 < begun_at <= ended_at
            assert type(payload) is bytes
        else:
            assert understood(message, 1.0)[0] == message[0]
    except AssertionError:
        raise
    except Exception:
        return False
    return True

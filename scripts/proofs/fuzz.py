"""Frames as no honest peer sends them, from a seed. Also the app of the proof ``frames``: a worker that babbles them.

Most are messages of the protocol with one thing wrong with them, since these get furthest.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgpack

from poolmgr import task
from poolmgr.wire.messages import (
    BROKEN,
    DONE,
    HEARTBEAT,
    LOG,
    PROTOCOL_VERSION,
    RAISED,
    READY,
    RECALLED,
    REPORT,
    REQUEST,
    RESULT,
    SUBMIT,
    SUBMIT_MANY,
)

FILE_BYTES = 200_000  # of a payload in a file
CALL = msgpack.packb({"durable": False, "max_retries": 0})

_ODD: Sequence[Any] = (
    None, True, False, 0, 1, -1, 2**63, 2**64 - 1, -(2**63), 0.0, -1.0, float("nan"), float("inf"), 1e308, "", "x",
    "\u0000", "x" * 300, b"", b"\xc1", b"x" * 300, [], [[]], [1, 2, 3], {}, {"a": 1}, {b"k": [None]},
    [[[[[[[[]]]]]]]],
)  # fmt: skip
_HARMLESS = (
    "status",
    "health",
    "metrics",
    "workers",
    "worker",
    "task",
    "tasks",
    "result",
    "watch",
    "cancel",
    "nothing",
)


def submit(source: random.Random) -> list[Any]:
    """A submit, in its right form."""
    name = source.choice(("noop", "nobody", "", "noop"))
    options = source.choice((None, msgpack.packb({"durable": False, "max_retries": 0}), b"\xc1"))
    payload = source.choice((msgpack.packb([[1], {}]), b"", b"\xc1", source.randbytes(8)))
    if source.random() < 0.3:
        ids = [source.randbytes(16) for _ in range(source.choice((1, 2, 5)))]
        ids = sorted(ids) if source.random() < 0.5 else ids
        return [SUBMIT_MANY, ids, name, [payload] * len(ids), options, source.random() < 0.5]
    return [SUBMIT, source.randbytes(16), name, payload, options, source.random() < 0.5]


def submit_file(source: random.Random) -> list[Any]:
    """A submit whose payload is to be in a file."""
    size = source.choice((FILE_BYTES, FILE_BYTES, 1, 2**40, -1, source.randrange(2 * FILE_BYTES)))
    return [SUBMIT, source.randbytes(16), source.choice(("noop", "nobody")), size, CALL, source.random() < 0.5]


@contextmanager
def descriptors(source: random.Random) -> Iterator[list[int]]:
    """Some to send along: good ones, and what nobody should take."""
    fds = [source.choice(_DESCRIPTORS)() for _ in range(source.choice((0, 1, 1, 1, 2, 3)))]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def _memfd(size: int, seals: int) -> int:
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.pwrite(fd, msgpack.packb([[bytes(FILE_BYTES - 7)]]), 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def _end_of_pipe() -> int:
    reader, writer = os.pipe()
    os.close(writer)
    return reader


_DESCRIPTORS: Sequence[Callable[[], int]] = (
    *[lambda: _memfd(FILE_BYTES, fcntl.F_SEAL_SHRINK)] * 4,
    lambda: _memfd(FILE_BYTES, 0),
    lambda: _memfd(2 * FILE_BYTES, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE),
    lambda: os.open("/", os.O_RDONLY),
    lambda: os.open("/dev/null", os.O_RDWR),
    lambda: socket.socket(socket.AF_UNIX).detach(),
    lambda: os.memfd_create("none", 0),
    _end_of_pipe,
)


def request(source: random.Random) -> list[Any]:
    """A request that would change nothing."""
    return [
        REQUEST,
        source.randrange(1 << 32),
        source.choice(_HARMLESS),
        source.choice(({}, {"id": b"x"}, {"worker": 5})),
    ]


def from_worker(source: random.Random) -> list[Any]:
    """What a worker might say of tasks that it does not have."""
    fence, at = source.randrange(1 << 40, 1 << 60), source.random()
    return source.choice(
        (
            [DONE, fence, at, at, b"result"],
            [DONE, fence, at, at, source.choice((FILE_BYTES, 5, -1))],
            [RAISED, fence, at, at, "task_failed", ["ValueError"], msgpack.packb({"message": "no"}), None],
            [REPORT, fence, 0.5, "half"],
            [RECALLED, [fence, fence + 1]],
            [READY, PROTOCOL_VERSION, 1, []],
            [BROKEN, "broken"],
        )
    )


def old_news(source: random.Random) -> list[Any]:
    """What a worker says that the manager hears, and has no use for: it lives on."""
    while (message := from_worker(source))[0] in (READY, BROKEN) or type(message[-1]) is int:
        pass
    return message


def on_control(source: random.Random) -> list[Any]:
    """A packet of the control channel."""
    return source.choice(
        (
            [HEARTBEAT],
            [RESULT, source.randrange(1 << 40)],
            [LOG, 0, "debug", "text"],
            [LOG, source.choice(_ODD), "debug", "text"],
        )
    )


def odd(source: random.Random, message: list[Any]) -> bytes:
    """A message with something wrong with it."""
    message = list(message)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        at = source.randrange(len(message) + 1)
        how = source.random()
        if how < 0.7 and at < len(message):
            message[at] = source.choice(_ODD)
        elif how < 0.8:
            message.insert(at, source.choice(_ODD))
        elif how < 0.9 and at < len(message):
            del message[at]
        else:
            data = bytearray(msgpack.packb(message))
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
            return bytes(data)
    packed: bytes = msgpack.packb(message)
    return packed


def truncated(source: random.Random, data: bytes) -> bytes:
    """The beginning of it."""
    return data[: source.randrange(len(data))]


def stream(source: random.Random, make: Callable[[random.Random], list[Any]], frames: int) -> Iterator[bytes]:
    """So many frames: whole ones, then odd ones of which any may be the last that is read, then a piece of one."""
    for _ in range(frames - 2):
        yield msgpack.packb(make(source))
    yield odd(source, make(source))
    yield truncated(source, odd(source, make(source)))


@task
def noop(number: int) -> int:
    return number


@task
def babble(seed: int, frames: int) -> None:
    """Says on every channel of this worker what no worker says. The last frames are such as it does not survive."""
    source = random.Random(seed)
    pipes = [int(each) for each in os.listdir("/proc/self/fd") if int(each) > 2 and _kind(each).startswith("pipe:")]
    data = b"".join(stream(source, old_news, frames))
    for pipe in pipes:
        try:
            os.write(pipe, data)
        except OSError:
            continue  # the one that it reads from


@task
def babble_on_control(seed: int, frames: int) -> None:
    """The same on the control channel, a packet each."""
    source = random.Random(seed)
    for each in os.listdir("/proc/self/fd"):
        if _kind(each).startswith("socket:"):
            with socket.socket(fileno=os.dup(int(each))) as control:
                for _ in range(frames - 1):
                    control.send(msgpack.packb([HEARTBEAT]))
                with descriptors(source) as fds:
                    socket.send_fds(control, [odd(source, on_control(source))], fds)


def _kind(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""

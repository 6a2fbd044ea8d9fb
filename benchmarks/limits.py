"""What the machine itself can do: no pool of processes is faster than the pipe between two of them."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from scripts.proofs.disk import fdatasync_us

_BYTE: Final = b"x"
_FORKS: Final = 100


class Limit(NamedTuple):
    """One of them."""

    name: str
    value: float
    unit: str


def measure(disk: Path, seconds: float) -> list[Limit]:
    """All of them; each takes about so many seconds. ``disk`` is where poolmgr's state and Redis's log are."""
    return [
        Limit("pipe, one byte there and back between two processes", _pipe_rate(seconds), "round trips/s"),
        Limit("Unix socket, the same", _socket_rate(seconds), "round trips/s"),
        Limit("fork and end of this process, median", _fork_us(), "us"),
        Limit("fdatasync after 4 KiB, median", fdatasync_us(disk), "us"),
    ]


def _pipe_rate(seconds: float) -> float:
    there, back = os.pipe(), os.pipe()
    try:
        return _ping_pong(
            seconds,
            lambda: os.write(there[1], _BYTE) and os.read(back[0], 1),
            lambda: os.read(there[0], 1),
            lambda: os.write(back[1], _BYTE),
            lambda: os.close(there[1]),
        )
    finally:
        for descriptor in (there[0], *back):
            os.close(descriptor)


def _socket_rate(seconds: float) -> float:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return _ping_pong(
            seconds,
            lambda: ours.send(_BYTE) and ours.recv(1),
            lambda: theirs.recv(1),
            lambda: theirs.send(_BYTE),
            ours.close,
        )


def _ping_pong(
    seconds: float,
    ping: Callable[[], object],
    hear: Callable[[], bytes],
    answer: Callable[[], object],
    hang_up: Callable[[], object],
) -> float:
    """Round trips a second with a fork of this process, which ends when it is hung up on."""
    child = os.fork()
    if not child:
        try:
            hang_up()  # its own copy of our end
            while hear():
                answer()
        finally:
            os._exit(0)
    trips, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for _ in range(100):
            ping()
        trips += 100
    rate = trips / (time.perf_counter() - began)
    hang_up()
    os.waitpid(child, 0)
    return rate


def _fork_us() -> float:
    taken = []
    for _ in range(_FORKS):
        began = time.perf_counter()
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        taken.append(1e6 * (time.perf_counter() - began))
    return statistics.median(taken)

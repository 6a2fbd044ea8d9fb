"""What a worker may send over its control channel, and what that leaves behind in the daemon: nothing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest

from poolmgr.manager.console import Console
from poolmgr.manager.control import ControlChannel
from poolmgr.wire.framing import encode
from poolmgr.wire.messages import HEARTBEAT, RESULT


class _Budget:
    spent = False


class _Console:
    """Of a worker that logs little."""

    budget = _Budget()


class Heard:
    """A channel, the worker's end of it, and what was heard."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        ours, self.worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = ControlChannel(ours, self.loop)
        self.told: list[list[Any]] = []
        self.babble: list[str] = []
        self.channel.listen(cast("Console", _Console()), self.told.append, self.babble.append)

    def turn(self) -> None:
        for _ in range(5):
            self.loop.run_until_complete(asyncio.sleep(0))

    def close(self) -> None:
        self.channel.close()
        self.worker.close()
        self.loop.close()


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard()
    yield made
    made.close()


def memfd() -> int:
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_an_empty_packet_with_descriptors_is_babble_and_leaves_none(heard: Heard) -> None:
    fd = memfd()
    before = open_files()
    socket.send_fds(heard.worker, [b""], [fd] * 32)
    heard.worker.send(encode([HEARTBEAT]))
    heard.turn()
    assert len(heard.babble) == 1
    assert heard.told == [[HEARTBEAT]]  # nor has it become deaf
    assert open_files() == before
    os.close(fd)


def test_a_result_is_found_behind_other_packets(heard: Heard) -> None:
    fd = memfd()
    for _ in range(50):
        heard.worker.send(encode([HEARTBEAT]))
    socket.send_fds(heard.worker, [encode([RESULT, 7])], [fd])
    found = heard.channel.file_of(7)
    assert found is not None
    assert os.fstat(found).st_ino == os.fstat(fd).st_ino
    assert len(heard.told) == 50
    assert heard.channel.file_of(7) is None
    os.close(found)
    os.close(fd)


def test_nobody_who_sends_without_end_is_listened_to_without_end(heard: Heard) -> None:
    heard.worker.setblocking(False)

    def go_on(message: list[Any]) -> None:
        heard.told.append(message)
        heard.worker.send(encode([HEARTBEAT]))

    heard.channel.listen(cast("Console", _Console()), go_on, heard.babble.append)
    heard.worker.send(encode([HEARTBEAT]))
    assert heard.channel.file_of(7) is None
    assert 100 < len(heard.told) < 1000

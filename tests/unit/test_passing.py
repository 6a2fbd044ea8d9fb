"""What a peer has sent and should not have is closed, and nobody waits for that."""

from __future__ import annotations

import _thread
import os
import select
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from poolmgr.parcels import passing
from poolmgr.parcels.passing import dispose, dispose_all
from scripts.proofs.pool import until

LINGER = struct.pack("ii", 1, 1000)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def lingering(server: socket.socket) -> tuple[int, socket.socket]:
    """A descriptor whose close waits for 1,000 s, and what ends that: the other end, closed with data unread."""
    sock = socket.create_connection(server.getsockname())
    there, _ = server.accept()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    sock.setblocking(False)
    while select.select([], [sock], [], 0)[1]:
        sock.send(b"x" * 65536)
    return sock.detach(), there


def is_open(fd: int) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_sockets_that_linger_are_closed_by_one_thread(server: socket.socket) -> None:
    before = threads()
    made = [lingering(server) for _ in range(10)]
    fds = [fd for fd, _ in made]
    dispose_all(fds)
    assert threads() <= before + 1
    until(lambda: not any(map(is_open, fds)))
    until(lambda: threads() == before)
    for _, there in made:
        there.close()


def test_one_that_waits_all_the_same_has_no_more_than_a_bound_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = _thread.allocate_lock()
    closed: list[int] = []

    def close(fd: int) -> None:
        if not closed:
            closed.append(fd)
            with gate:
                pass
        os.close(fd)

    monkeypatch.setattr(passing, "_close", close)
    fds = [os.open("/", os.O_RDONLY) for _ in range(passing._WAITING + 10)]
    before = threads()
    with gate:
        dispose(fds[0])
        until(lambda: bool(closed))
        dispose_all(fds[1:])
        assert threads() == before + 1
        assert [is_open(fd) for fd in fds[-9:]] == [False] * 9  # closed by the caller
        assert is_open(fds[1])
    until(lambda: not any(map(is_open, fds)))
    until(lambda: threads() == before)


def test_where_there_are_no_threads_it_is_closed_at_once(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    fd, there = lingering(server)
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    for each in (fd, os.open("/", os.O_RDONLY), fd):  # the last one is closed already
        dispose(each)
        assert not is_open(each)
    there.close()


def test_a_forked_child_closes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert passing._closer._at_it.acquire(blocking=False)  # as if the parent's thread were closing
    child = os.fork()
    if child == 0:
        fd = os.open("/", os.O_RDONLY)
        dispose(fd)
        until(lambda: not is_open(fd))
        os._exit(0)
    passing._closer._at_it.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

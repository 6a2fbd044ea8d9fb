"""Who may do what: the kernel's word on the other end of a Unix socket, this process being at both."""

from __future__ import annotations

import os
import socket
import struct
from types import SimpleNamespace

import pytest

from poolmgr.errors import NotAllowed
from poolmgr.server.peer import Peer, peer_of


def test_the_daemons_own_user_may_do_everything() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours, None) == Peer(os.getpid(), os.getuid(), True)


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer is neither the daemon's user nor root: the daemon is somebody else's."""

    def unpack(kind: str, data: bytes) -> tuple[int, ...]:
        return (1, 17, 17) if kind == "iII" else struct.unpack(kind, data)

    monkeypatch.setattr("poolmgr.server.peer.os", SimpleNamespace(getuid=lambda: 4242))
    monkeypatch.setattr("poolmgr.server.peer.struct", SimpleNamespace(unpack=unpack))


@pytest.mark.usefixtures("stranger")
def test_a_member_of_the_group_may_come_by_any_of_its_groups() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for group in (17, *os.getgroups()):
            assert peer_of(ours, group) == Peer(1, 17, False)


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("group", [None, 4242])
def test_anybody_else_may_not(group: int | None) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(NotAllowed, match="user 17 may not use the pool of user 4242"):
        peer_of(ours, group)

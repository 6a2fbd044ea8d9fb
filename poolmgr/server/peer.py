"""Who is at the other end of the socket, as the kernel tells it."""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

from poolmgr.errors import NotAllowed

_SO_PEERGROUPS = 59
_GROUPS_BYTES = 1024  # the most that Python takes: 256 groups


class Peer(NamedTuple):
    """A connected process. ``is_owner``: the daemon's own user or root, who may do everything."""

    pid: int
    uid: int
    is_owner: bool


def peer_of(sock: socket.socket, group_id: int | None) -> Peer:
    """The peer of a connected Unix socket.

    Raises:
        NotAllowed: it is neither the daemon's user, nor root, nor a member of ``group_id``.
    """
    pid, uid, gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid in (os.getuid(), 0):
        return Peer(pid, uid, True)
    if group_id is not None and (gid == group_id or group_id in _groups(sock)):
        return Peer(pid, uid, False)
    raise NotAllowed(f"user {uid} may not use the pool of user {os.getuid()}; see the setting socket_group")


def _groups(sock: socket.socket) -> tuple[int, ...]:
    """The supplementary groups of the peer; none where there are too many to be told."""
    try:
        packed = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        return ()
    return struct.unpack(f"{len(packed) // 4}I", packed)

"""What is told of a daemon that has come up."""

from __future__ import annotations

from typing import NamedTuple


class Started(NamedTuple):
    """A daemon whose workers are all ready."""

    pid: int
    epoch: int
    workers: int
    socket: str

"""What connects a worker with its manager."""

from __future__ import annotations

from typing import NamedTuple


class Channels(NamedTuple):
    """A worker's file descriptors, in the order in which they are sent to it."""

    tasks: int
    results: int
    control: int
    page: int
    stdout: int
    stderr: int

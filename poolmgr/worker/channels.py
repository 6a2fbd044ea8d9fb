"""What a worker is to be, and what connects it with its manager."""

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


class Wanted(NamedTuple):
    """What a SPAWN asks for. ``command`` is what to exec; None: a fork of the template."""

    spawn: int
    worker: str
    incarnation: int
    group: str
    command: list[str] | None
    channels: Channels

"""What every peer is asked, in its own terms. An adapter is a module in this folder with a class ``Adapter``.

It says what the peer is and how it is set (``about``), what the peer cannot do (``cannot``), and how a user would start
it, submit a task and have its result. All else is the same for all of them, and is in measures.py.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final

from benchmarks.peers import tasks

NOT_DURABLE: Final = dict.fromkeys(("durable", "durable-latency"), "keeps nothing on disk")
NO_CHUNKS: Final = {"chunked": "has no map in chunks"}
PROCESSORS = os.cpu_count() or 1


class PeerAdapter(ABC):
    """A peer. Made, it does nothing yet; started, it has workers.

    Args:
        directory: for whatever it writes; on a real disk.
        durable: whether what is submitted is to survive a power loss once it is acknowledged.

    Attributes:
        about: its version, and the settings that it runs with.
        cannot: scenarios that it has no way to run, each with the reason.
        fastest: how many workers it is fastest with, where that is not 20: for all but start, queue and kill.
        queue_in_caller: whether tasks wait in the process that submits them, whose memory then counts.
        seen: the workers that have been seen to run a task.
    """

    about: ClassVar[str]
    cannot: ClassVar[Mapping[str, str]] = MappingProxyType({})
    fastest: ClassVar[int] = 20
    queue_in_caller: ClassVar[bool] = False

    def __init__(self, directory: Path, *, durable: bool) -> None:
        self.directory = directory
        self.durable = durable
        self.workers = 0
        self.seen: set[int] = set()

    def start(self, workers: int) -> None:
        """Start so many workers. May return before they are ready."""
        self.workers = workers
        self._start(workers)

    @abstractmethod
    def _start(self, workers: int) -> None: ...

    def stop(self) -> None:  # noqa: B027 (not all need to)
        """End it without waiting for what is queued. What is left behind is killed afterwards."""

    @abstractmethod
    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Hand over a call of a function of tasks.py; what ``result`` takes."""

    @abstractmethod
    def result(self, handle: Any, timeout_s: float) -> Any:
        """What a submitted call returned. Raises where it failed, or took longer."""

    def flush(self) -> None:  # noqa: B027 (not all need to)
        """Return when all that was submitted is where it waits for a worker."""

    def submit_all(self, values: Sequence[Any]) -> list[Any]:
        """Echo each value by a call of ``submit``, then take the results."""
        submit = self.submit
        handles = [submit(tasks.echo, value) for value in values]
        result = self.result
        return [result(handle, 60.0) for handle in handles]

    def map(self, values: Sequence[Any]) -> list[Any]:
        """Echo each value as a task of its own, in the way that the peer does best."""
        return self.submit_all(values)

    def map_chunked(self, values: Sequence[Any], size: int) -> list[Any]:
        """Echo all values, so many in a task."""
        raise NotImplementedError

    def call(self, value: Any) -> Any:
        """Echo one value, and wait for it."""
        return self.result(self.submit(tasks.echo, value), 60.0)

    def payload(self, size: int) -> Any:
        """A value of so many bytes; text for those that carry JSON."""
        return bytes(size)

    def worker_of(self, pids: Sequence[int]) -> int:
        """The worker process, of the one that ran a task and its parent."""
        return pids[0]


def command(name: str) -> str:
    """The path of a command of the environment that this runs in."""
    return os.path.join(os.path.dirname(sys.executable), name)

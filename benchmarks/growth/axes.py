"""What grows, how far, and what is measured at each point."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.growth.connections import Connections
from benchmarks.growth.daemon import PAUSED, Backlog, Daemon, Sample, Serving
from benchmarks.pairs import tasks_for
from benchmarks.scenarios import Figure

WORKERS: Final = 20
_DAY_S: Final = 86_400.0
_TASKS_A_SECOND: Final = 20_000  # of a line that is run: about


class Subject(Protocol):
    """A daemon in a certain situation."""

    def sample(self) -> Sample:
        """One run: its figures by name."""
        ...


Make = Callable[[Path, int, float], AbstractContextManager[Subject]]


@dataclass(frozen=True)
class Axis:
    """One thing of which there is more and more.

    Attributes:
        points: how much of it.
        make: the situation: where the daemon's files may be, the point, how long a run takes.
        figures: what a sample has.
    """

    name: str
    text: str
    unit: str
    points: tuple[int, ...]
    make: Make
    figures: tuple[Figure, ...]


@contextmanager
def _serving(directory: Path, workers: int, run_s: float) -> Iterator[tuple[Daemon, Callable[[], Serving]]]:
    with Daemon(directory, workers) as daemon, daemon.client() as client:
        yield daemon, lambda: Serving(daemon, client, run_s)


@contextmanager
def _with_workers(directory: Path, workers: int, run_s: float) -> Iterator[Subject]:
    with _serving(directory, workers, run_s) as (_, serving):
        yield serving()


@contextmanager
def _with_idle_clients(directory: Path, clients: int, run_s: float) -> Iterator[Subject]:
    with _serving(directory, WORKERS, run_s) as (daemon, serving), Connections(daemon.socket, clients - 1):
        yield serving()


class _AllActive:
    """All connections have calls under way."""

    def __init__(self, daemon: Daemon, connections: Connections, clients: int, run_s: float) -> None:
        self._daemon = daemon
        self._connections = connections
        self._tasks = 20 * clients
        took_s = self._tasks / self.sample()["calls"]
        self._tasks = tasks_for(run_s, tried=self._tasks, took_s=took_s, most=200_000)

    def sample(self) -> Sample:
        cpu_us, began = self._daemon.cpu_us(), time.perf_counter()
        tasks = self._connections.work(self._tasks)
        took_s = time.perf_counter() - began
        return {"CPU of a task": (self._daemon.cpu_us() - cpu_us) / tasks, "calls": tasks / took_s}


@contextmanager
def _with_active_clients(directory: Path, clients: int, run_s: float) -> Iterator[Subject]:
    with Daemon(directory, WORKERS) as daemon, Connections(daemon.socket, clients) as connections:
        yield _AllActive(daemon, connections, clients, run_s)


@contextmanager
def _beside_queued(directory: Path, queued: int, run_s: float) -> Iterator[Subject]:
    with _serving(directory, WORKERS, run_s) as (daemon, serving):
        _hand_over(daemon, queued)
        yield serving()


@contextmanager
def _beside_delayed(directory: Path, queued: int, run_s: float) -> Iterator[Subject]:
    with _serving(directory, WORKERS, run_s) as (daemon, serving):
        _hand_over(daemon, queued, delay_s=_DAY_S)
        yield serving()


def _hand_over(daemon: Daemon, tasks: int, **options: float) -> None:
    """Durable tasks of a name that is paused, by a client that then goes."""
    with daemon.client() as client:
        client.pause(PAUSED)
        submit = client.using(**options).submit
        for _ in range(tasks):
            submit(PAUSED, 0)


@contextmanager
def _in_line(directory: Path, waiting: int, run_s: float, *, durable: bool) -> Iterator[Subject]:
    with Daemon(directory, WORKERS) as daemon, daemon.client() as client:
        yield Backlog(daemon, client, durable=durable, waiting=waiting, tasks=int(_TASKS_A_SECOND * run_s))


def _calls_in_line(directory: Path, waiting: int, run_s: float) -> AbstractContextManager[Subject]:
    return _in_line(directory, waiting, run_s, durable=False)


def _durable_in_line(directory: Path, waiting: int, run_s: float) -> AbstractContextManager[Subject]:
    return _in_line(directory, waiting, run_s, durable=True)


_SERVING: Final = (
    Figure("CPU of a task in a map", "us", False),
    Figure("CPU of a call by itself", "us", False),
    Figure("map", "tasks/s", True),
    Figure("call by itself, p50", "us", False),
)
_ACTIVE: Final = (Figure("CPU of a task", "us", False), Figure("calls", "tasks/s", True))
_LINE: Final = (
    Figure("CPU of a task that runs", "us", False),
    Figure("CPU of a submit", "us", False),
    Figure("run", "tasks/s", True),
)
_CLIENTS: Final = (1, 10, 100, 1_000)
_QUEUED: Final = (0, 1_000, 10_000, 100_000, 1_000_000)

AXES: Final = (
    Axis("idle-clients", "clients connected, all but one idle", "clients", _CLIENTS, _with_idle_clients, _SERVING),
    Axis(
        "active-clients",
        "clients connected, each with ten no-op calls under way",
        "clients",
        _CLIENTS,
        _with_active_clients,
        _ACTIVE,
    ),
    Axis("workers", "workers, one client", "workers", (2, 20, 50, 100, 200), _with_workers, _SERVING),
    Axis("queued", "durable tasks queued of another name, paused", "tasks", _QUEUED, _beside_queued, _SERVING),
    Axis("delayed", "durable tasks of another name that wait for a day", "tasks", _QUEUED, _beside_delayed, _SERVING),
    Axis("line", "calls in the line behind those that run", "tasks", _QUEUED, _calls_in_line, _LINE),
    Axis("durable-line", "durable tasks in the line behind those that run", "tasks", _QUEUED, _durable_in_line, _LINE),
)  # fmt: skip
NAMES: Final = tuple(axis.name for axis in AXES)

"""Daemons for these tests. Each is private, and leaves no process behind, or the test has failed."""

from __future__ import annotations

import os
import select
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from poolmgr import Client
from scripts.proofs.pool import Pool, until

APPS = Path(__file__).resolve().parents[1] / "apps"
# For daemons that many tests share: each may let a handler fail as often as it likes.
NO_BREAKERS: Final[dict[str, Any]] = {"breaker_failures": 0}


@pytest.fixture(scope="session")
def short_path() -> Iterator[Callable[[], Path]]:
    """Makes directories whose names leave room for a socket's."""
    root = Path(tempfile.mkdtemp(prefix="poolmgr-"))
    numbers = iter(range(1000))

    def make() -> Path:
        path = root / str(next(numbers))
        path.mkdir()
        return path

    yield make
    shutil.rmtree(root)


@pytest.fixture
def make_pool(short_path: Callable[[], Path]) -> Iterator[Callable[..., Pool]]:
    """Makes daemons (of two workers, with the app ``handlers``) that are not started yet. All end with the test."""
    made: list[Pool] = []

    def make(**settings: Any) -> Pool:
        settings = {"app": "handlers", "app_directory": APPS, "workers": 2, **settings}
        made.append(Pool(settings.pop("directory", None) or short_path(), **settings))
        return made[-1]

    yield make
    for pool in made:
        pool.end()


@pytest.fixture
def start_pool(make_pool: Callable[..., Pool]) -> Callable[..., Pool]:
    """Starts a daemon with the given settings, as ``make_pool`` makes it."""
    return lambda **settings: make_pool(**settings).start()


@pytest.fixture(scope="session")
def shared_pool(short_path: Callable[[], Path]) -> Iterator[Pool]:
    """One daemon of four workers for all tests that leave a pool as they have found it."""
    with Pool(short_path(), app="handlers", app_directory=APPS, workers=4, min_workers=1, **NO_BREAKERS) as pool:
        yield pool


@pytest.fixture(scope="session")
def lone_pool(short_path: Callable[[], Path]) -> Iterator[Pool]:
    """As ``shared_pool``, with one worker: what runs next is certain, and what waits behind it is prefetched."""
    with Pool(short_path(), app="handlers", app_directory=APPS, workers=1, **NO_BREAKERS) as pool:
        yield pool


@pytest.fixture
def client(shared_pool: Pool) -> Iterator[Client]:
    """A client of the shared pool."""
    with shared_pool.client() as client:
        yield client
        check_it_is_as_it_was(client, 4)


@pytest.fixture
def lone(lone_pool: Pool) -> Iterator[Client]:
    """A client of the pool with one worker."""
    with lone_pool.client() as client:
        yield client
        check_it_is_as_it_was(client, 1)


def check_it_is_as_it_was(client: Client, workers: int) -> None:
    """All workers are ready, and nothing waits, runs, is dead, or is held back."""
    until(lambda: [worker.state for worker in client.workers()] == ["ready"] * workers, "all workers are ready")
    metrics = client.metrics()
    assert [metrics["tasks"][state] for state in ("queued", "scheduled", "running")] == [0, 0, 0]
    assert metrics["queue"]["paused"] == []
    assert client.dead_letters() == []


class Begun(NamedTuple):
    """What a handler says when it comes to a gate."""

    label: str
    pid: int
    attempt: int
    worker: str


class Gate:
    """Where handlers (``hold``) wait until the test lets them go on."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory)
        for name in ("begun", "go"):
            os.mkfifo(directory / name)
        # Both ways, so that neither side ever waits for the other to open it, or reads its end.
        self._begun = os.open(directory / "begun", os.O_RDWR)
        self._go = os.open(directory / "go", os.O_RDWR)
        self._rest = b""

    def begun(self, timeout_s: float = 10.0) -> Begun:
        """The next handler that has come here."""
        while b"\n" not in self._rest:
            assert self.someone_comes(timeout_s), "no handler has begun"
            self._rest += os.read(self._begun, 4096)
        line, _, self._rest = self._rest.partition(b"\n")
        label, pid, attempt, worker = line.decode().split("\t")
        return Begun(label, int(pid), int(attempt), worker)

    def someone_comes(self, timeout_s: float) -> bool:
        """Whether a handler comes within so many seconds."""
        return bool(self._rest or select.select([self._begun], [], [], timeout_s)[0])

    def open(self, count: int = 1) -> None:
        """Let so many handlers go on, those that are to come included."""
        os.write(self._go, b"." * count)

    def close(self) -> None:
        os.close(self._begun)
        os.close(self._go)


@pytest.fixture(scope="session")
def gates() -> Iterator[list[Gate]]:
    """All gates of a run. They stay open to its end: a handler that comes to one late must not wait for ever."""
    gates: list[Gate] = []
    yield gates
    for gate in gates:
        gate.close()


@pytest.fixture
def gate(tmp_path: Path, gates: list[Gate]) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    gates.append(gate)
    yield gate
    gate.open(100)

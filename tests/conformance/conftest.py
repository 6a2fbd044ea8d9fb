"""Every store, by the way a daemon meets it: opened, and opened again after the last life."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolmgr.store.base import Store
from poolmgr.store.memory import MemoryStore
from poolmgr.store.sqlite import SqliteStore
from tests.conformance.samples import Medium


@pytest.fixture(params=["memory", "sqlite"])
def medium(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Medium]:
    kept = MemoryStore()  # its medium is the object itself
    makers: dict[str, Callable[[], Store]] = {
        "memory": lambda: kept,
        "sqlite": lambda: SqliteStore(tmp_path / "state.db"),
    }
    medium = Medium(makers[request.param])
    yield medium
    medium.store.close()


@pytest.fixture
def store(medium: Medium) -> Store:
    return medium.store

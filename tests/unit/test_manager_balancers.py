"""A balancer that the settings name: found, or refused; and when it is the user's, its mistakes harm nobody."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from poolmgr.core.slot import Slot
from poolmgr.core.task import Task
from poolmgr.errors import ConfigError
from poolmgr.manager.balancers import load_balancer
from poolmgr.model import TaskOptions


class Last:
    def choose(self, task: Task, candidates: Sequence[Slot]) -> Slot:
        return candidates[-1]


class Raises:
    def choose(self, task: Task, candidates: Sequence[Slot]) -> Slot:
        raise RuntimeError("oops")


class Invents:
    def choose(self, task: Task, candidates: Sequence[Slot]) -> Slot:
        return Slot("worker-0")


class Nothing:
    def choose(self, task: Task, candidates: Sequence[Slot]) -> Any:
        return None


class NeedsArguments(Last):
    def __init__(self, weight: int) -> None: ...


class NoBalancer: ...


SLOTS = [Slot(f"worker-{number}") for number in range(3)]
TASK = Task(b"\0" * 16, "add", b"", TaskOptions(), group="", order=0, owner=0, now=0.0, wall=0.0)


@pytest.fixture(autouse=True)
def app(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("app_with_balancers")
    for each in (Last, Raises, Invents, Nothing, NeedsArguments, NoBalancer):
        setattr(module, each.__name__, each)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_a_custom_one_decides() -> None:
    assert load_balancer("app_with_balancers:Last").choose(TASK, SLOTS) is SLOTS[-1]


@pytest.mark.parametrize("name", ["Raises", "Invents", "Nothing"])
def test_its_mistakes_are_overruled_and_told_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    balancer = load_balancer(f"app_with_balancers:{name}")
    with caplog.at_level(logging.ERROR):
        assert [balancer.choose(TASK, SLOTS) for _ in range(3)] == [SLOTS[0]] * 3
    [record] = caplog.records
    assert f"app_with_balancers:{name}" in record.getMessage()
    assert record.exc_info


@pytest.mark.parametrize(
    "name", ["no_such_module:Last", "app_with_balancers:Missing", "app_with_balancers:NeedsArguments"]
)
def test_one_that_cannot_be_made_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"load_balancing: '{name}' cannot be loaded"):
        load_balancer(name)


def test_one_without_choose_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"has no method choose\(task, candidates\)"):
        load_balancer("app_with_balancers:NoBalancer")

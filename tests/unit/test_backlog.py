"""Clients whose submits are taken faster than they are committed have to wait; others do not."""

from __future__ import annotations

from typing import Any, cast

import pytest

from poolmgr.manager.backlog import Backlog
from poolmgr.manager.outbox import Port

LIMIT = 1000


class Ports(dict[int, Any]):
    """Connections that are only held and let go; ``held`` are those that are not read from."""

    def __init__(self, *clients: int) -> None:
        self.held: set[int] = set()
        for client in clients:
            self[client] = _Port(self, client)


class _Port:
    def __init__(self, ports: Ports, client: int) -> None:
        self._ports = ports
        self._client = client

    def hold(self, why: str) -> None:
        assert self._client not in self._ports.held
        self._ports.held.add(self._client)

    def go_on(self, why: str) -> None:
        self._ports.held.remove(self._client)


@pytest.fixture
def ports() -> Ports:
    return Ports(1, 2, 3)


@pytest.fixture
def backlog(ports: Ports) -> Backlog:
    return Backlog(cast(dict[int, Port], ports), LIMIT)


def test_one_client_may_have_half_of_all_under_way(backlog: Backlog, ports: Ports) -> None:
    backlog.add(1, 500)
    assert ports.held == set()
    backlog.add(1, 1)
    assert ports.held == {1}
    backlog.remove(1, 1)
    assert ports.held == set()


def test_the_others_go_on_while_one_is_held(backlog: Backlog, ports: Ports) -> None:
    backlog.add(1, 900)
    backlog.add(2, 10)
    assert ports.held == {1}
    backlog.add(3, 200)
    assert ports.held == {1, 3}


def test_one_that_has_become_light_goes_on_when_another_does(backlog: Backlog, ports: Ports) -> None:
    backlog.add(1, 700)
    backlog.add(2, 300)
    assert ports.held == {1, 2}
    backlog.remove(1, 700)
    assert ports.held == set()


def test_a_submit_larger_than_everything_is_waited_for(backlog: Backlog, ports: Ports) -> None:
    backlog.add(1, 50 * LIMIT)
    assert ports.held == {1}
    backlog.remove(1, 50 * LIMIT)
    assert ports.held == set()


def test_one_that_leaves_while_it_is_held_is_forgotten(backlog: Backlog, ports: Ports) -> None:
    backlog.add(1, 900)
    del ports[1]
    backlog.remove(1, 900)
    backlog.add(2, 400)
    assert 2 not in ports.held


def test_while_the_store_refuses_nobody_is_held(backlog: Backlog, ports: Ports) -> None:
    backlog.add(1, 900)
    backlog.store_refuses()
    backlog.store_refuses()
    assert ports.held == set()
    backlog.add(1, 1)
    assert ports.held == {1}
    backlog.remove(1, 901)
    assert ports.held == set()

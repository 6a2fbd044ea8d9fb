"""What systemd is told over the daemon's life, message by message, by a service with a scheduler and no manager."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from poolmgr.config import Settings
from poolmgr.core.scheduler import Scheduler
from poolmgr.daemon.notify import Notifier
from poolmgr.daemon.service import Service
from poolmgr.manager.manager import Manager

Message = dict[str, str]


class Systemd:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(10.0)

    def heard(self) -> Message:
        """The next message."""
        return dict(line.partition("=")[::2] for line in self._socket.recv(4096).decode().split("\n"))

    def silent(self) -> bool:
        self._socket.setblocking(False)
        try:
            self._socket.recv(4096)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path)
    yield systemd
    systemd.close()


@pytest.fixture
def manager() -> Any:
    """As much of one as is asked: of a pool of two that has just begun."""
    settings = Settings(pool_size=2, graceful_shutdown_timeout_s=100.0)
    scheduler = Scheduler(settings, random=lambda: 0.5, balancer=None, wall_offset=0.0)
    scheduler.begin(0.0)
    return SimpleNamespace(scheduler=scheduler, settings=settings, overdue_s=lambda: 0.0, trouble=lambda: ())


def play(notifier: Notifier, manager: Any, scene: Callable[[Service], Message | None]) -> Message | None:
    """Run ``scene`` beside the loop of a service that is ready, and return what it does."""

    async def live() -> Message | None:
        service = Service(notifier)
        service.ready(cast(Manager, manager))
        try:
            return await asyncio.to_thread(scene, service)
        finally:
            service.close()

    return asyncio.run(live())


def test_ready_says_how_the_pool_is(systemd: Systemd, manager: Any) -> None:
    message = play(Notifier(systemd.path), manager, lambda service: systemd.heard())
    assert message == {
        "READY": "1",
        "STATUS": "0 of 2 workers ready, 0 busy; tasks: 0 running, 0 queued, 0 scheduled. critical",
    }


def test_the_watchdog_is_fed_while_the_scheduler_advances(systemd: Systemd, manager: Any) -> None:
    def scene(service: Service) -> Message:
        systemd.heard()
        assert [systemd.heard() for _ in range(3)] == [{"WATCHDOG": "1"}] * 3
        manager.overdue_s = lambda: 60.0
        manager.trouble = lambda: ("the disk is full",)  # the next word is of this, and does not feed
        while "WATCHDOG" in (message := systemd.heard()):
            pass
        return message

    message = play(Notifier(systemd.path, watchdog_s=0.04), manager, scene)
    assert message is not None
    assert message.keys() == {"STATUS"}
    assert message["STATUS"].endswith("critical: the disk is full")


def test_a_status_is_told_once(systemd: Systemd, manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolmgr.daemon.service.STATUS_S", 0.01)

    def scene(service: Service) -> Message:
        systemd.heard()
        manager.trouble = lambda: ("one\ntwo",)
        first = systemd.heard()
        manager.trouble = lambda: ("three",)
        assert systemd.heard()["STATUS"].endswith("three")
        return first

    message = play(Notifier(systemd.path), manager, scene)
    assert message is not None
    assert message["STATUS"].endswith("critical: one two")  # a message is made of lines


def test_a_reload_is_told_with_its_time_and_its_end(systemd: Systemd, manager: Any) -> None:
    before = time.monotonic_ns() // 1000

    def scene(service: Service) -> None:
        systemd.heard()
        service.reload_began()
        began = systemd.heard()
        assert (began["RELOADING"], began["STATUS"][:10]) == ("1", "Reloading.")
        assert before <= int(began["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        service.reload_ended("the app cannot be imported")
        refused = systemd.heard()
        assert refused["READY"] == "1"
        assert refused["STATUS"].startswith("The last reload was refused: the app cannot be imported. 0 of 2 workers")
        service.reload_began()
        systemd.heard()
        service.reload_ended()
        assert systemd.heard()["STATUS"].startswith("0 of 2 workers")

    play(Notifier(systemd.path), manager, scene)


def test_a_long_reload_is_granted_its_time(systemd: Systemd, manager: Any) -> None:
    def scene(service: Service) -> Message:
        systemd.heard()
        service.reload_began()
        while "EXTEND_TIMEOUT_USEC" not in (message := systemd.heard()):
            pass
        return message

    message = play(Notifier(systemd.path, watchdog_s=0.04), manager, scene)
    assert message is not None
    assert int(message["EXTEND_TIMEOUT_USEC"]) >= 10_000_000


def test_a_stop_is_granted_the_pools_patience_once(systemd: Systemd, manager: Any) -> None:
    def scene(service: Service) -> None:
        systemd.heard()
        manager.scheduler.state.shutting_down = True
        service.stopping()
        first = systemd.heard()
        assert first["STOPPING"] == "1"
        assert first["STATUS"].startswith("Draining. ")
        service.stopping()
        assert int(first["EXTEND_TIMEOUT_USEC"]) - int(systemd.heard()["EXTEND_TIMEOUT_USEC"]) == 100_000_000

    play(Notifier(systemd.path), manager, scene)


def test_a_stop_that_a_client_has_asked_for_is_told_too(systemd: Systemd, manager: Any) -> None:
    def scene(service: Service) -> Message:
        systemd.heard()
        manager.scheduler.state.shutting_down = True
        while "STOPPING" not in (message := systemd.heard()):
            pass
        return message

    assert play(Notifier(systemd.path, watchdog_s=0.04), manager, scene)


def test_a_reload_that_a_stop_has_ended_is_not_ready_again(systemd: Systemd, manager: Any) -> None:
    def scene(service: Service) -> None:
        systemd.heard()
        service.reload_began()
        service.stopping()
        service.reload_ended("the daemon is shutting down")
        assert [systemd.heard().keys() >= {key} for key in ("RELOADING", "STOPPING")] == [True, True]
        assert systemd.silent()

    play(Notifier(systemd.path), manager, scene)


def test_without_systemd_nothing_is_done(manager: Any) -> None:
    service = Service(Notifier(None))
    service.stopping()
    service.close()
    service.ready(manager)  # starts no timer: there is no loop here


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_watchdog_is_the_one_of_this_process(environ: dict[str, str], watchdog_s: float) -> None:
    assert Notifier.from_environ(environ).watchdog_s == watchdog_s
    assert environ == {}

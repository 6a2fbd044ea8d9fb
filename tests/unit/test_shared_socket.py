"""How the reader of a connection waits: watching while answers come briskly, asleep where they do not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from poolmgr.client import shared_socket
from poolmgr.client.shared_socket import SharedSocket
from poolmgr.errors import ConnectionLost


class Clock:
    """Time goes on by ``step_s`` with every look at it, and by ``answer_s`` where the reader sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.step_s = 0.00001
        self.answer_s = 0.0
        self.sleeps = 0
        self.looks = 0
        self.answered_at = float("inf")

    def monotonic(self) -> float:
        self.now += self.step_s
        return self.now

    def poll(self, timeout_ms: float | None) -> list[tuple[int, int]]:
        if timeout_ms == 0:
            self.looks += 1
            return [(0, 1)] if self.now >= self.answered_at else []
        self.sleeps += 1
        self.now += self.answer_s
        return [(0, 1)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, as the connection sees it."""
    clock = Clock()
    monkeypatch.setattr(shared_socket, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def wait(clock: Clock) -> Iterator[Callable[[float], tuple[int, int]]]:
    """Waits for an answer that takes so long: how often the reader slept, and how often it looked."""
    ours, theirs = socket.socketpair()
    connection = SharedSocket(ours)
    connection._readable = clock  # type: ignore[assignment]

    def wait(answer_s: float) -> tuple[int, int]:
        clock.sleeps = clock.looks = 0
        clock.answer_s = answer_s
        clock.answered_at = clock.now + answer_s
        assert connection._await_answer(None)
        return clock.sleeps, clock.looks

    yield wait
    connection.close(ConnectionLost("the test is over"))
    theirs.close()


def test_the_first_answer_is_slept_for(wait: Callable[[float], tuple[int, int]]) -> None:
    assert wait(0.0001) == (1, 0)


def test_after_a_brisk_answer_the_next_is_watched_for(wait: Callable[[float], tuple[int, int]]) -> None:
    wait(0.0001)
    for _ in range(3):
        sleeps, looks = wait(0.0001)
        assert sleeps == 0
        assert looks >= 2


def test_what_does_not_come_briskly_is_slept_for_and_then_the_next_is_too(
    wait: Callable[[float], tuple[int, int]],
) -> None:
    wait(0.0001)
    sleeps, looks = wait(1.0)
    assert sleeps == 1
    assert looks >= 2
    assert wait(1.0) == (1, 0)
    assert wait(0.0001) == (1, 0)  # that was brisk: from now on it is watched again
    assert wait(0.0001)[0] == 0

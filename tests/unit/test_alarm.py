"""The daemon's alarm."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from poolmgr.manager.alarm import Alarm
from poolmgr.manager.clock import now


class Ringing:
    """An alarm, and when it rang. ``then``: what is done each time."""

    def __init__(self, then: Callable[[], Any] = lambda: None) -> None:
        self.rang: list[float] = []
        self.event = asyncio.Event()
        self.then = then
        self.alarm = Alarm(asyncio.get_running_loop(), self._ring)

    def _ring(self) -> None:
        self.rang.append(now())
        self.event.set()
        self.then()


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("delay_s", [0.0003, 0.0023])
def test_the_loop_rests_until_it_is_time(delay_s: float, run: Callable[[Awaitable[None]], None]) -> None:
    """It may ring some part of a millisecond too soon. Were it set for that part as it is, it would ring in each turn:
    some hundred times."""

    async def wait() -> None:
        due_at = now() + delay_s
        over = asyncio.get_running_loop().create_future()

        def again() -> None:
            if now() < due_at:
                ringing.alarm.set(due_at, now())
            else:
                over.set_result(None)

        ringing = Ringing(again)
        ringing.alarm.set(due_at, now())
        await over
        assert 1 <= len(ringing.rang) <= 10

    run(wait())


def test_what_is_due_already_rings_in_the_next_turn(run: Callable[[Awaitable[None]], None]) -> None:
    async def wait() -> None:
        ringing = Ringing()
        ringing.alarm.set(now() - 1.0, now())
        assert not ringing.rang, "not inside of the call"
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(ringing.rang) == 1

    run(wait())


def test_it_rings_at_the_earliest_time_it_was_set_to_and_once(run: Callable[[Awaitable[None]], None]) -> None:
    async def wait() -> None:
        ringing = Ringing()
        began = now()
        for later_s in (3600.0, 0.005, 60.0, math.inf):
            ringing.alarm.set(began + later_s, began)
        await asyncio.wait_for(ringing.event.wait(), 20)
        ringing.event.clear()
        ringing.alarm.set(now() + 0.001, now())  # it has rung: any time is the earliest now
        await asyncio.wait_for(ringing.event.wait(), 20)
        assert len(ringing.rang) == 2

    run(wait())


def test_cancelled_it_does_not_ring(run: Callable[[Awaitable[None]], None]) -> None:
    async def wait() -> None:
        ringing, other = Ringing(), Ringing()
        ringing.alarm.set(now(), now())
        ringing.alarm.cancel()
        ringing.alarm.cancel()
        other.alarm.set(now() + 0.002, now())
        await asyncio.wait_for(other.event.wait(), 20)
        assert not ringing.rang

    run(wait())

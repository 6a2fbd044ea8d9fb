"""The daemon's timers."""

from __future__ import annotations

import asyncio
import math

import pytest
import uvloop

from poolmgr.manager.clock import now, timer_s


@pytest.mark.parametrize("delay_s", [-1.0, 0.0, 1e-9, 0.0004, 0.001, 0.0011, 0.0149999, 1.0, 86_400.0004])
def test_a_timer_waits_whole_milliseconds_and_no_less(delay_s: float) -> None:
    waited_ms = timer_s(delay_s) * 1000
    assert waited_ms == pytest.approx(round(waited_ms))
    assert max(1.0, delay_s * 1000) <= waited_ms + 1e-6
    assert waited_ms < max(0.0, delay_s * 1000) + 1 + 1e-6


@pytest.mark.parametrize("delay_s", [0.0003, 0.0023])
def test_the_loop_rests_until_it_is_time(delay_s: float) -> None:
    """Rounded to the nearest millisecond, the last part of one is asked for again and again: some hundred turns."""
    turns = 0

    async def wait() -> None:
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        due_at = math.inf

        def tick() -> None:
            nonlocal turns
            turns += 1
            left_s = due_at - now()
            if left_s > 0:
                loop.call_later(timer_s(left_s), tick)
            else:
                over.set_result(None)

        due_at = now() + delay_s
        loop.call_later(timer_s(delay_s), tick)
        await over

    uvloop.run(wait())
    assert 1 <= turns <= 3

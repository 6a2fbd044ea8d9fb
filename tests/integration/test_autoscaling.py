"""A real pool grows with what waits, and shrinks with what does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from scripts.proofs.pool import Pool, until
from tests.integration.conftest import Gate

# How busy the machine is, and how full, is not what these tests are about.
ANY_MACHINE: Final[dict[str, Any]] = {"autoscale_cpu_percent": 100, "memory_thresholds": "98,99,100"}
QUICK: Final[dict[str, Any]] = {"autoscale": True, "autoscale_wait_s": 0.1, "autoscale_idle_s": 1, **ANY_MACHINE}


def test_a_pool_grows_with_what_waits_and_shrinks_again(start_pool: Callable[..., Pool], gate: Gate) -> None:
    pool = start_pool(workers=1, min_workers=1, max_workers=4, **QUICK)
    with pool.client() as client, client.events("pool-scaled-up", "pool-scaled-down") as events:
        futures = [client.submit("hold", gate.path, f"{number}") for number in range(5)]
        assert len({gate.begun().worker for _ in range(4)}) == 4  # and the fifth waits
        up = [next(events).fields for _ in range(2)]
        assert [(each["count"], each["new_size"], each["group"]) for each in up] == [
            (1, 2, "default"),
            (2, 4, "default"),
        ]
        assert all("no worker is idle" in each["reason"] for each in up)
        until(lambda: "max_workers is reached" in client.status()["autoscale"]["reason"], "it says why no more")
        for _ in range(5):
            gate.open()
        assert len([future.result(timeout=20) for future in futures]) == 5
        down = [next(events) for _ in range(3)]
        assert [(each.name, each.fields["new_size"]) for each in down] == [("pool-scaled-down", n) for n in (3, 2, 1)]
        assert all("workers were busy" in each.fields["reason"] for each in down)
        until(lambda: len(client.workers()) == 1, "the others have gone")
        last = client.metrics()["autoscale"]["last"]
        assert (last["before"], last["after"], last["reason"]) == (2, 1, down[-1].fields["reason"])


def test_scaling_by_hand_goes_on(start_pool: Callable[..., Pool]) -> None:
    pool = start_pool(workers=1, min_workers=1, max_workers=4, **QUICK)
    with pool.client() as client, client.events("pool-scaled-up", "pool-scaled-down") as events:
        assert client.scale(2) == 2
        assert next(events).fields["reason"] == "asked for"
        assert next(events).fields["new_size"] == 1


def test_a_pool_that_is_left_alone_has_nothing_to_tell(start_pool: Callable[..., Pool]) -> None:
    pool = start_pool(workers=1)
    with pool.client() as client:
        assert client.metrics()["autoscale"] is None

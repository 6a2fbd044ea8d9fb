"""Large payloads that wait weigh more than the daemon may: it stays small, and all of them run, in their order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest

from poolmgr.core.scheduler import WINDOW_BYTES
from poolmgr.manager.backlog import LIMIT_BYTES
from poolmgr.model import new_task_id
from poolmgr.wire.messages import ACCEPTED, SUBMIT
from scripts.proofs.pool import Pool, until
from scripts.proofs.samples import Sampler, resident_mb
from tests.integration.raw import HELLO_THERE, Raw

COUNT = 120
SIZE = 2 << 20  # together 240 MB
# What waits, what is on its way to disk, and a few copies of what comes and goes.
MORE_MB = (WINDOW_BYTES // 2 + LIMIT_BYTES // 2 + 16 * SIZE) / 2**20


@pytest.mark.parametrize(("delay_s", "restarted"), [(0.0, False), (0.0, True), (1.0, False)])
def test_many_large_payloads_that_wait(
    start_pool: Callable[..., Pool], tmp_path: Path, delay_s: float, restarted: bool
) -> None:
    pool = start_pool(workers=1, min_workers=1)
    noted = tmp_path / "noted"
    before_mb = resident_mb(pool.pid)
    with Sampler(pool, 0.005, memory_alone=True) as sampler:
        with pool.client() as client:
            client.pause("note_size")
            submit = client.using(delay_s=delay_s).submit
            for number in range(COUNT):
                submit("note_size", str(noted), number, bytes(SIZE))
            client.flush(timeout=120)
            until(lambda: client.metrics()["tasks"]["queued"] == COUNT, "all are due", timeout_s=60)
            if not restarted:
                client.resume("note_size")
        if restarted:
            pool.kill()
            pool.start()
        until(lambda: noted.exists() and noted.read_bytes().count(b"\n") == COUNT, "all have run", timeout_s=120)
    assert noted.read_text().split() == [f"{number}:{SIZE}" for number in range(COUNT)]
    assert sampler.most_mb < before_mb + MORE_MB


def test_large_submits_that_are_sent_again_are_the_same_tasks(start_pool: Callable[..., Pool]) -> None:
    """More than the store is asked for at a time, and than may wait for their commits at once."""
    pool = start_pool()
    payload = msgpack.packb([[bytes(5 << 20)], {}])
    submits = [msgpack.packb([SUBMIT, new_task_id(), "size_of", payload, None, False]) for _ in range(6)]
    with pool.client() as client:
        client.pause("size_of")
        for _ in range(2):
            raw = Raw(pool.socket)
            raw.say(HELLO_THERE)
            for submit in submits:
                raw.say(submit)
            while (heard := raw.hear()) != [ACCEPTED, len(submits)]:
                assert heard is not None
            raw.close()
        assert client.metrics()["tasks"]["queued"] == len(submits)
        client.resume("size_of")
        until(lambda: client.metrics()["tasks"]["completed"] == len(submits), "all have run")

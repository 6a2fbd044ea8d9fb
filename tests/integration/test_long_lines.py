"""More durable tasks than the daemon holds in memory: asked about by their ids, and survivors, like all others."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import pytest

from poolmgr.core.scheduler import WINDOW
from poolmgr.errors import PayloadLost, TaskCancelled
from poolmgr.model import TaskState, new_task_id
from poolmgr.wire.messages import ACCEPTED, COMPLETED, REFUSED, SAME, SUBMIT, WELCOME
from poolmgr.wire.values import unpack
from scripts.proofs.pool import Pool, until
from tests.integration.raw import HELLO_THERE, Raw

COUNT = WINDOW + 4_000  # more than is in memory


def test_tasks_that_only_the_store_has_are_like_all_others(start_pool: Callable[..., Pool]) -> None:
    pool = start_pool()
    with pool.client() as client:
        client.pause("add")
        futures = [client.submit("add", number) for number in range(COUNT)]
        client.flush(timeout=60)
        assert client.metrics()["tasks"]["queued"] == COUNT
        assert client.task(futures[-1].id).state is TaskState.QUEUED
        assert client.cancel(futures[-1].id)
        assert not client.cancel(futures[-1].id)
        with pytest.raises(TaskCancelled):
            futures[-1].result(timeout=10)
        client.resume("add")
        assert [future.result(timeout=60) for future in futures[:-1]] == list(range(COUNT - 1))


def test_they_are_there_after_the_next_start_and_can_be_cleared(start_pool: Callable[..., Pool]) -> None:
    pool = start_pool()
    with pool.client() as client:
        client.pause("add")
        kept = client.submit("add", 7)
        for number in range(COUNT):
            client.submit("add", number)
            client.using(delay_s=3600).submit("add", number)
        client.flush(timeout=60)
    pool.kill()
    pool.start()
    with pool.client() as client:
        assert client.result(kept.id, timeout=10) == 7
        client.pause("add")
        waiting = client.metrics()["tasks"]
        assert waiting["scheduled"] == COUNT
        assert client.clear() >= waiting["queued"] + waiting["scheduled"] - 100  # some may be running, or be done
        assert [client.metrics()["tasks"][state] for state in ("queued", "scheduled")] == [0, 0]


def test_a_payload_that_is_lost_or_cannot_be_read_meanwhile(start_pool: Callable[..., Pool]) -> None:
    """The lost one ends dead, and holds up nobody. Where to try again may help, that is done, and the log says why."""
    pool = start_pool()
    files = pool.state / "spool"
    with pool.client() as client:
        client.pause("size_of")
        small = [client.submit("size_of", b"") for _ in range(WINDOW)]  # what comes behind them is put away
        large = []
        for size in (100_000, 200_000, 300_000):
            large.append(client.submit("size_of", bytes(size)))
            client.flush(timeout=60)
        lost, unreadable, _ = sorted(files.iterdir(), key=lambda file: file.stat().st_size)
        lost.unlink()
        aside = unreadable.rename(pool.state / "aside")
        unreadable.mkdir()
        client.resume("size_of")
        until(lambda: "waiting tasks cannot be read" in pool.log.read_text(), "the log says so", timeout_s=30)
        assert f"{unreadable}: Is a directory" in pool.log.read_text()
        unreadable.rmdir()
        aside.rename(unreadable)
        assert [future.result(timeout=60) for future in small] == [0] * WINDOW
        with pytest.raises(PayloadLost, match=f"its payload is gone: somebody has removed {lost}"):
            large[0].result(timeout=10)
        assert [future.result(timeout=10) for future in large[1:]] == [200_000, 300_000]
    assert pool.log.read_text().count("waiting tasks cannot be read") == 1


def _submit(id: bytes, *args: object) -> bytes:
    packed: bytes = msgpack.packb([SUBMIT, id, "add", msgpack.packb([list(args), {}]), None, True])
    return packed


def _connected(pool: Pool) -> Raw:
    raw = Raw(pool.socket)
    raw.say(HELLO_THERE)
    welcome = raw.hear()
    assert welcome is not None
    assert welcome[0] == WELCOME
    return raw


def _answers(raw: Raw, count: int) -> list[list[object]]:
    found = [raw.hear() for _ in range(count)]
    return [each for each in found if each is not None]


@pytest.mark.parametrize("restarted", [False, True], ids=["the same daemon", "the next daemon"])
def test_a_submit_that_is_sent_again_after_its_end_is_not_run_again(
    start_pool: Callable[..., Pool], restarted: bool
) -> None:
    pool = start_pool()
    id = new_task_id()
    first = _connected(pool)
    first.say(_submit(id, 20, 22))
    kinds = [answer[0] for answer in _answers(first, 2)]
    assert sorted(kinds) == sorted([ACCEPTED, COMPLETED])  # type: ignore[type-var]
    first.close()
    if restarted:
        pool.kill()
        pool.start()
    again = _connected(pool)
    again.say(_submit(id, 20, 22) + _submit(new_task_id(), 1, 1) + _submit(id, "other content"))
    said: dict[tuple[object, object], list[object]] = {}
    while not {(SAME, id), (COMPLETED, id), (REFUSED, id), (ACCEPTED, 3)} <= said.keys():
        (answer,) = _answers(again, 1)
        said[answer[0], answer[1]] = answer
    assert said[SAME, id][2] == id
    assert unpack(said[COMPLETED, id][2]) == 42  # type: ignore[arg-type]
    assert said[REFUSED, id][2] == "id_conflict"
    with pool.client() as client:
        task = client.task(id.hex())
        assert (task.state, task.attempt) == (TaskState.COMPLETED, 1)
        completed = 1 if restarted else 2
        until(lambda: client.metrics()["tasks"]["completed"] == completed, "the other one has run")
    again.close()


def test_an_id_older_than_what_is_remembered_is_refused(start_pool: Callable[..., Pool]) -> None:
    pool = start_pool()
    early = new_task_id()
    late = early[:6] + b"\xff" * 10
    raw = _connected(pool)
    raw.say(_submit(late, 1, 1))
    _answers(raw, 2)
    raw.close()
    with pool.client() as client:
        assert client.purge(late.hex()) == 1
    pool.kill()
    pool.start()
    again = _connected(pool)
    again.say(_submit(early, 1, 1))
    refused = again.hear()
    assert refused is not None
    assert (refused[0], refused[1], refused[2]) == (REFUSED, early, "outcome_unknown")
    again.close()

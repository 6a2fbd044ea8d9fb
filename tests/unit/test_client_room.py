"""Clients that wait for room in the queue, against a daemon that is a thread of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from poolmgr.client.aio import AsyncClient
from poolmgr.client.sync import Client
from poolmgr.errors import BadOption, NotFound, QueueFull, UsageError
from poolmgr.wire.messages import REQUEST, SUBMIT
from tests.unit.fake_daemon import GRACE_S, FakeDaemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(str(tmp_path / "s")) as running:
        yield running


@pytest.fixture
def pool(daemon: FakeDaemon) -> Iterator[Client]:
    client = Client(daemon.path)
    yield client
    client.close()


def requests(daemon: FakeDaemon, command: str) -> list[dict[str, Any]]:
    """The arguments of those that the daemon has heard so far."""
    heard = [daemon.heard.get_nowait() for _ in range(daemon.heard.qsize())]
    return [message[3] for message in heard if message[0] == REQUEST and message[2] == command]


def test_room_is_asked_for_by_the_name_and_the_options(daemon: FakeDaemon, pool: Client) -> None:
    daemon.answers["room"] = 1
    future = pool.using(block=True, block_timeout_s=2, priority=3).submit("patient", "a")
    assert future.result(timeout=GRACE_S) == "a"
    _, _, command, asked = daemon.hear(REQUEST)
    assert command == "room"
    assert (asked["name"], asked["tasks"], asked["timeout_s"]) == ("patient", 1, 2.0)
    assert msgpack.unpackb(asked["options"]) == {"priority": 3}


def test_who_does_not_block_does_not_ask(daemon: FakeDaemon, pool: Client) -> None:
    pool.run("echo", 1)
    assert len(daemon.hear(SUBMIT)) == 6
    with pytest.raises(QueueFull):
        pool.run("patient", 1)
    assert requests(daemon, "room") == []


def test_a_refused_question_submits_nothing(daemon: FakeDaemon, pool: Client) -> None:
    with pytest.raises(NotFound, match="no room"):  # what this daemon says to what it does not know
        pool.using(block=True).submit("patient", 1)
    pool.run("echo", 1)
    assert daemon.hear(SUBMIT)[2] == "echo"


@pytest.mark.parametrize("wrong", [{"block": 1}, {"block": "yes"}, {"block_timeout_s": -1}, {"block_timeout_s": "1"}])
def test_how_to_block_is_checked(pool: Client, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match="block"):
        pool.using(**wrong)


def test_how_to_block_is_merged(daemon: FakeDaemon, pool: Client) -> None:
    daemon.answers["room"] = 1
    view = pool.using(block=True, block_timeout_s=5).using(priority=1).using(block_timeout_s=None)
    assert view.run("patient", 1) == 1
    assert daemon.hear(REQUEST)[3]["timeout_s"] is None
    assert view.using(block=False).run("echo", 1) == 1
    assert requests(daemon, "room") == []


@pytest.mark.parametrize("places", [1, 7, 128])
def test_a_map_sends_again_what_there_was_no_room_for(daemon: FakeDaemon, pool: Client, places: int) -> None:
    daemon.answers |= {"room": places, "leave_room": None}
    assert list(pool.map("patient", range(300))) == list(range(300))


def test_a_map_that_was_never_refused_does_not_ask(daemon: FakeDaemon, pool: Client) -> None:
    assert list(pool.map("echo", range(300))) == list(range(300))
    assert requests(daemon, "room") == []


def test_a_map_gives_back_what_it_has_no_use_for(daemon: FakeDaemon, pool: Client) -> None:
    daemon.answers |= {"room": 100, "leave_room": None}
    assert list(pool.using(block=True).map("patient", iter(range(3)))) == [0, 1, 2]
    number = next(m[1] for m in iter(daemon.heard.get, None) if m[0] == REQUEST and m[2] == "room")
    assert daemon.heard.get(timeout=GRACE_S)[0] == SUBMIT, "what it has a use for comes before"
    assert daemon.hear(REQUEST)[3] == {"request": number}


def test_an_input_that_fails_fails_at_its_place_although_room_is_asked_for(daemon: FakeDaemon, pool: Client) -> None:
    daemon.answers |= {"room": 2, "leave_room": None}

    def inputs() -> Iterator[int]:
        yield 1
        raise KeyError("the second")

    results = pool.using(block=True).map("patient", inputs())
    assert next(results) == 1
    with pytest.raises(KeyError, match="the second"):
        next(results)


def test_a_map_of_nothing_ends_although_room_is_asked_for(daemon: FakeDaemon, pool: Client) -> None:
    daemon.answers |= {"room": 2, "leave_room": None}
    assert list(pool.using(block=True).map("patient", [])) == []


def test_the_async_client_does_the_same(daemon: FakeDaemon) -> None:
    daemon.answers |= {"room": 7, "leave_room": None}

    async def main() -> None:
        async with asyncio.timeout(2 * GRACE_S), AsyncClient(daemon.path) as pool:
            future = await pool.submit_when_room("patient", "a")
            assert await future == "a"
            assert await pool.using(block=True).run("patient", "b") == "b"
            assert [each async for each in pool.map("patient", range(300))] == list(range(300))
            assert [each async for each in pool.using(block=True).map("patient", iter(range(9)))] == list(range(9))
            assert [each async for each in pool.using(block=True).map("patient", iter(()))] == []
            with pytest.raises(UsageError, match="submit_when_room"):
                pool.using(block=True).submit("patient", 1)

    asyncio.run(main())

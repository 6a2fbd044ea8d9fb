"""The calls of a map, without a connection: what is sent, and when a result may be taken without a look at that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from poolmgr.client.batches import IN_FLIGHT, Batches
from poolmgr.client.calling import Options
from poolmgr.client.commands import Question
from poolmgr.client.pending import Pending
from poolmgr.client.protocol import Protocol
from poolmgr.client.together import Submit
from poolmgr.errors import TaskFailed
from poolmgr.wire.framing import encode
from poolmgr.wire.messages import ACCEPTED, COMPLETED_MANY, FAILED, REFUSED
from poolmgr.wire.values import pack

CHUNK = 128


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch ends because this machine is slow."""
    monkeypatch.setattr("poolmgr.client.batches._BATCH_S", 3600.0)


class Link:
    """A connection whose daemon says what a test has it say."""

    def __init__(self) -> None:
        self.protocol = Protocol()
        self.sent: list[Pending[Any]] = []

    def submit_all(self, batch: list[Submit], waited: bool) -> None:
        self.protocol.submit_all(batch, waited)
        self.sent += [each[0] for each in batch]
        self.protocol.receive(encode((ACCEPTED, len(self.sent))))

    def complete(self, some: Iterable[Pending[Any]]) -> None:
        """Each with its number as the result."""
        done = list(some)
        results = [pack(each.number) for each in done]
        self.protocol.receive(encode((COMPLETED_MANY, [each.key for each in done], results)))

    def refuse(self, pending: Pending[Any]) -> None:
        self.protocol.receive(encode((REFUSED, pending.key, "queue_full", "full")))

    def fail(self, pending: Pending[Any]) -> None:
        self.protocol.receive(encode((FAILED, pending.key, "dead", "task_failed", pack({"message": "no"}))))

    def put(self, question: Question[int]) -> Pending[Any]:
        return Pending()

    def leave(self, word: Question[None]) -> None:
        raise AssertionError("there is no room to give back")


def full(count: int = 2 * IN_FLIGHT, **options: Any) -> tuple[Link, Batches[int]]:
    """A map of which so many calls are under way that no more may be sent."""
    link = Link()
    batches: Batches[int] = Batches((range(count),), "t", Options(options), CHUNK, Pending)
    while batches.send(link):
        pass
    return link, batches


def test_a_result_may_be_taken_while_so_many_are_under_way_that_no_more_may_be_sent() -> None:
    link, batches = full()
    assert len(link.sent) == IN_FLIGHT
    before = batches.next_is_there
    link.complete(link.sent[: 2 * CHUNK])
    assert (before, batches.next_is_there) == (False, True)
    taken = 0
    while batches.next_is_there:
        taken += 1
        assert batches.take() == taken
    assert taken == CHUNK, "as many as make room for the next batch"
    assert batches.send(link)
    assert len(link.sent) == IN_FLIGHT + CHUNK
    assert batches.next_is_there


def test_all_may_be_taken_where_nothing_is_left_to_send() -> None:
    link, batches = full(count=3)
    link.complete(link.sent)
    found = []
    while batches.next_is_there:
        found.append(batches.take())
    assert found == [1, 2, 3]


def _by_refusing_the_last(link: Link) -> None:
    link.refuse(link.sent[-1])


def _by_refusing_the_first(link: Link) -> None:
    link.refuse(link.sent[0])


def _by_failing_the_first(link: Link) -> None:
    link.fail(link.sent[0])


@pytest.mark.parametrize("spoil", [_by_refusing_the_last, _by_refusing_the_first, _by_failing_the_first])
def test_what_went_wrong_is_looked_at_first(spoil: Callable[[Link], None]) -> None:
    link, batches = full()
    spoil(link)
    link.complete(link.sent[:2])
    assert not batches.next_is_there


def test_a_failure_is_raised_where_it_is_taken() -> None:
    link, batches = full()
    link.fail(link.sent[0])
    with pytest.raises(TaskFailed, match="no"):
        batches.take()


def test_whoever_asks_for_room_looks_each_time_whether_there_is_some() -> None:
    link, batches = full()
    link.refuse(link.sent[-1])
    link.complete(link.sent[:1])
    assert not batches.send(link)
    assert batches.wants_room
    assert not batches.next_is_there
    assert batches.take() == 1

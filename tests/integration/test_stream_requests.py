"""The request "chunks", put by hand: what a client in any language may ask, and what it may not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from poolmgr import Client
from poolmgr.client.commands import Question
from poolmgr.client.pending import Pending
from poolmgr.core.streams import READERS_MOST
from poolmgr.errors import BadOption, ChunksDropped, NotFound
from poolmgr.wire.values import unpack
from scripts.proofs.pool import Pool, until

Start = Callable[..., Pool]


@pytest.fixture
def pool(start_pool: Start) -> Pool:
    return start_pool(app="streaming")


@pytest.fixture
def client(pool: Pool) -> Iterator[Client]:
    with pool.client() as client:
        yield client


def ask(client: Client, task_id: str, **arguments: Any) -> Any:
    """The answer, with chunks that are read."""
    question = Question("chunks", {"id": bytes.fromhex(task_id), **arguments}, lambda value: value)
    answer = client._redial.live().ask(question, 20.0)
    return answer and {**answer, "chunks": [unpack(each) for each in answer["chunks"]]}


def test_it_answers_with_at_most_ten_and_says_where_to_go_on(client: Client) -> None:
    future = client.submit("told_in_between", 25)
    future.result(timeout=10)
    assert ask(client, future.id) == {"chunks": list(range(10)), "next": 10, "ended": False}
    assert ask(client, future.id, offset=10, limit=3) == {"chunks": [10, 11, 12], "next": 13, "ended": False}
    assert ask(client, future.id, offset=20, limit=99) == {"chunks": list(range(20, 25)), "next": 25, "ended": True}
    assert ask(client, future.id, offset=25) == {"chunks": [], "next": 25, "ended": True}
    assert ask(client, future.id, offset=1000) == {"chunks": [], "next": 1000, "ended": True}


def test_an_answer_is_a_megabyte_but_for_its_last_chunk(client: Client) -> None:
    future = client.submit("of_size", *[600_000] * 5)
    future.result(timeout=10)
    assert [len(each) for each in ask(client, future.id)["chunks"]] == [600_000] * 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"offset": -1}, {"offset": "0"}, {"offset": True}, {"offset": 1 << 63}, {"reader": 1.5}, {"limit": 0},
        {"detach": 1},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(client: Client, arguments: dict[str, Any]) -> None:
    future = client.submit("told_in_between", 1)
    with pytest.raises(BadOption):
        ask(client, future.id, **arguments)


def test_what_is_not_known_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        ask(client, "0" * 32)
    assert ask(client, "0" * 32, detach=True) is None


def test_detaching_answers_a_question_that_waits(pool: Pool, client: Client) -> None:
    with pool.client() as blocker, ThreadPoolExecutor(1) as thread:
        running = [blocker.submit("cleans_up", str(pool.state / f"ended-{n}")) for n in range(2)]
        until(lambda: all(worker.current_task for worker in client.workers()), "both workers are busy")
        waiting = client.submit("told_in_between", 3)
        question = thread.submit(ask, client, waiting.id, reader=7)
        until(lambda: client.metrics()["streams"]["readers"] == 1, "it is asked")
        assert ask(client, waiting.id, reader=7, detach=True) is None
        assert question.result(10) == {"chunks": [], "next": 0, "ended": False}
        for future in running:
            client.cancel(future.id, kill=True)
        assert waiting.result(timeout=10) is None


def put(client: Client, task_id: str, **arguments: Any) -> Pending[Any]:
    """Ask, and wait for nothing."""
    question = Question("chunks", {"id": bytes.fromhex(task_id), **arguments}, lambda value: value)
    return client._redial.live().put(question)


def answered(client: Client, question: Pending[Any]) -> Any:
    assert client._redial.live().wait(lambda: question.outcome is not None, 10)
    answer = question.value()
    return {**answer, "chunks": [unpack(each) for each in answer["chunks"]]}


@pytest.mark.parametrize("durable", [False, True])
def test_a_question_ends_the_one_before_it(client: Client, tmp_path: Path, durable: bool) -> None:
    os.mkfifo(gate := str(tmp_path / "gate"))
    task = client.using(durable=durable).submit("texts", 1, 0, gate, 0)
    until(lambda: task.progress is not None, "it stands at its gate")
    other = put(client, task.id, reader=8)
    asked = [put(client, task.id, reader=7) for _ in range(5)]
    nothing = {"chunks": [], "next": 0, "ended": False}
    assert [answered(client, each) for each in asked[:-1]] == [nothing] * 4
    open(gate, "w").close()
    assert [answered(client, each)["chunks"] for each in (asked[-1], other)] == [["text 0"]] * 2


def test_a_reader_may_ask_again_as_often_as_it_likes(client: Client, tmp_path: Path) -> None:
    os.mkfifo(gate := str(tmp_path / "gate"))
    task = client.submit("texts", 1, 0, gate, 0)
    until(lambda: task.progress is not None, "it stands at its gate")
    asked = put(client, task.id)
    for _ in range(READERS_MOST + 1):
        before, asked = asked, put(client, task.id)
        assert answered(client, before)["chunks"] == []
    open(gate, "w").close()
    assert answered(client, asked)["chunks"] == ["text 0"]


def test_a_call_s_last_chunk_goes_to_the_question_that_is_not_given_up(client: Client, tmp_path: Path) -> None:
    os.mkfifo(gate := str(tmp_path / "gate"))
    task = client.using(durable=False).submit("texts", 1, 0, gate, 0)
    until(lambda: task.progress is not None, "it stands at its gate")
    given_up, last = put(client, task.id), put(client, task.id)
    assert answered(client, given_up) == {"chunks": [], "next": 0, "ended": False}
    open(gate, "w").close()
    assert answered(client, last)["chunks"] == ["text 0"]


def test_a_connection_may_ask_so_much_at_a_time(pool: Pool, client: Client) -> None:
    running = [client.submit("cleans_up", str(pool.state / f"ended-{n}")) for n in range(2)]
    waiting = client.submit("told_in_between", 3)
    until(lambda: all(worker.current_task for worker in client.workers()), "both workers are busy")
    link = client._redial.live()
    with pool.client() as other:
        asked = [Pending[Any]() for _ in range(READERS_MOST + 1)]
        for number, each in enumerate(asked):
            link._transmit(link.protocol.request, each, "chunks", {"id": waiting.key, "reader": number})
        assert link.wait(lambda: asked[-1].outcome is not None, 10)
        with pytest.raises(BadOption, match="1000 streams at a time"):
            asked[-1].value()
        assert other.metrics()["streams"]["readers"] == READERS_MOST
        for future in running:
            other.cancel(future.id, kill=True)
        assert link.wait(lambda: all(each.outcome is not None for each in asked), 20)


def test_a_call_s_chunks_go_as_they_are_passed(client: Client) -> None:
    call = client.using(durable=False).submit("told_in_between", 30)
    until(lambda: client.metrics()["streams"]["waiting_for_reader"] == 1, "it waits")
    assert ask(client, call.id)["chunks"] == list(range(10))
    answer = ask(client, call.id, offset=4)
    assert answer["chunks"][:6] == list(range(4, 10))
    with pytest.raises(ChunksDropped, match="the first that is has the number 4"):
        ask(client, call.id, offset=3, reader=1)
    while not answer["ended"]:
        answer = ask(client, call.id, offset=answer["next"])
    assert call.result(timeout=10) is None
    assert client.metrics()["streams"]["held_bytes"] == 0

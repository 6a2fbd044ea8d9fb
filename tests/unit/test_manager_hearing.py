"""What a worker says is believed only once its shape was checked."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from poolmgr.manager.hearing import result_of, understood
from poolmgr.wire.messages import (
    BROKEN,
    DONE,
    MESSAGE_LIMIT,
    PROTOCOL_VERSION,
    RAISED,
    READY,
    RECALLED,
    REPORT,
    WORN,
)
from poolmgr.worker.context import Retry

NOW = 100.0
FAILURE = msgpack.packb({"type": "ValueError", "message": "no", "traceback": ""})


def test_what_an_honest_worker_says() -> None:
    assert result_of([DONE, 7, 99.0, 99.5, b"x"], NOW) == (7, 99.0, 99.5, b"x")
    kind, fence, _, _, failure = understood([RAISED, 7, 99.0, 99.5, "task_failed", ["ValueError"], FAILURE, 2], NOW)
    assert (kind, fence, failure.type, failure.retry_delay_s) == (RAISED, 7, "ValueError", 2.0)
    assert understood([REPORT, 7, 1, "half"], NOW) == (REPORT, 7, 1.0, "half")
    assert understood([RECALLED, [1, 2]], NOW) == (RECALLED, [1, 2])
    assert understood([READY, PROTOCOL_VERSION, 1, ["gpu"]], NOW) == (READY, frozenset({"gpu"}), False, False, False)
    for number, what in enumerate(("files", "streams", "many")):
        kind, _, *takes = understood([READY, PROTOCOL_VERSION, 1, [], {what: True}], NOW)
        assert (kind, takes) == (READY, [each == number for each in range(3)])
    assert understood([WORN, 7, "a thread was left"], NOW) == (WORN, 7, "a thread was left")
    assert understood([BROKEN, "hook"], NOW) == (BROKEN, "hook")


@pytest.mark.parametrize(
    "message",
    [
        [DONE, 7, 99.0, 99.5],
        [DONE, "7", 99.0, 99.5, b"x"],
        [DONE, 7, 99.5, 99.0, b"x"],
        [DONE, 7, float("nan"), 99.5, b"x"],
        [DONE, 7, 99.0, float("inf"), b"x"],
        [DONE, 7, 99.0, 99.5, "x"],
        [RAISED, 7, 99.0, 99.5, "task_failed", [], FAILURE, "5"],
        [RAISED, 7, 99.0, 99.5, "task_failed", [], FAILURE, -1.0],
        [RAISED, 7, 99.0, 99.5, "task_failed", [], FAILURE, float("nan")],
        [RAISED, 7, 99.0, 99.5, "task_failed", [], msgpack.packb([1]), None],
        [RAISED, 7, 99.0, 99.5, "task_failed", 5, FAILURE, None],
        [REPORT, 7, [], ""],
        [REPORT, 7, 0.5, b"x" * 100],
        [RAISED, 7, 99.0, 99.5, "task_failed", [], msgpack.packb({"message": b"x"}), None],
        [RECALLED, 5],
        [RECALLED, [61, 7, 99.0, 99.5, b"x"]],
        [READY, PROTOCOL_VERSION, 1, 5],
        [READY, PROTOCOL_VERSION + 1, 1, []],
        [WORN, "7", "a thread was left"],
        [WORN, 7],
        [BROKEN],
        [99],
    ],
)
def test_what_it_cannot_have_meant_is_refused_whole(message: list[Any]) -> None:
    with pytest.raises(Exception, match=r"."):
        (result_of if message[0] == DONE else understood)(message, NOW)


def test_what_is_passed_on_to_clients_is_cut() -> None:
    assert len(understood([REPORT, 7, 1, "x" * 10**6], NOW)[3]) == MESSAGE_LIMIT
    packed = msgpack.packb({"type": "x" * 10**6, "message": "x" * 10**6, "traceback": "x" * 10**6})
    failure = understood([RAISED, 7, 99.0, 99.5, "c" * 10**6, ["t" * 10**6] * 10**3, packed, None], NOW)[4]
    assert sum(map(len, failure.packed().split())) + sum(map(len, failure.types)) < 512 * 1024


@pytest.mark.parametrize("delay_s", ["5", -1, float("nan"), float("inf"), True])
def test_a_retry_takes_seconds(delay_s: Any) -> None:
    with pytest.raises(ValueError, match="takes seconds"):
        Retry(delay_s=delay_s)

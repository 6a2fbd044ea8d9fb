"""What goes to a worker of many tasks that are to be started."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest

from poolmgr.core import effects as do
from poolmgr.manager.performer import Performer
from poolmgr.manager.shell import Shell
from poolmgr.parcels.memfds import Memfds
from poolmgr.payload import Payload
from poolmgr.wire.framing import Decoder
from poolmgr.wire.messages import START, START_MANY


class Process:
    """Stands for a ``WorkerProcess``: keeps what it is told."""

    def __init__(self, log: list[Any], *, takes_many: bool) -> None:
        self.incarnation = 1
        self.takes_many = takes_many
        self.takes_streams = False
        self.started: deque[tuple[int, bytes, str]] = deque()
        self.passed_on: list[int] = []
        self._log = log
        self._out = b""

    def queue(self, message: bytes) -> None:
        self._out += message

    def queue_parts(self, parts: list[bytes]) -> None:
        self._out += b"".join(parts)

    def pass_on(self, fence: int, payload: Payload) -> bytes | int:
        self.passed_on.append(fence)
        return len(payload)

    def flush(self) -> None:
        self._log += Decoder().feed(self._out)
        self._out = b""


def _performer(process: Process) -> Performer:
    watch = SimpleNamespace(started=lambda: None)
    shell = SimpleNamespace(
        processes={"worker-0": process},
        ports={},
        worker_watch=watch,
        outbox=SimpleNamespace(committed=0),
    )
    return Performer(cast(Shell, shell), cast(Any, None), lambda reloaded: None)


def _many(payloads: list[Any], incarnation: int = 1) -> do.StartMany:
    ids = [bytes([number]) * 16 for number in range(len(payloads))]
    return do.StartMany("worker-0", incarnation, 7, ids, "echo", payloads, 5.0, None)


def _performed(effect: do.StartMany, *, takes_many: bool = True) -> tuple[list[Any], Process]:
    log: list[Any] = []
    process = Process(log, takes_many=takes_many)
    performer = _performer(process)
    performer.perform([effect])
    performer.flush()
    return log, process


def test_many_tasks_are_one_message() -> None:
    log, process = _performed(_many([b"a", b"b", b"c"]))
    ids = [bytes([number]) * 16 for number in range(3)]
    assert log == [[START_MANY, 7, ids, "echo", [b"a", b"b", b"c"], 5.0, None]]
    assert [*process.started] == [(7 + number, id, "echo") for number, id in enumerate(ids)]


@pytest.mark.parametrize(
    ("payloads", "takes_many"),
    [([b"a", b"b"], False), ([bytes(30_000)] * 3, True), ([b"a", bytes(70_000)], True)],
    ids=["a worker that does not understand it", "together they are large", "one is large"],
)
def test_where_they_may_not_be_each_is_by_itself(payloads: list[bytes], takes_many: bool) -> None:
    log, process = _performed(_many(payloads), takes_many=takes_many)
    assert log == [
        [START, 7 + number, bytes([number]) * 16, 1, "echo", payload, 5.0, None]
        for number, payload in enumerate(payloads)
    ]
    assert [fence for fence, _, _ in process.started] == [7 + number for number in range(len(payloads))]


def test_one_in_a_file_is_passed_on_with_its_file() -> None:
    parcel = Memfds(1, 1 << 20, 0).write([bytes(200_000)])
    assert parcel is not None
    log, process = _performed(_many([b"a", parcel]))
    assert [message[0] for message in log] == [START, START]
    assert process.passed_on == [8]
    assert log[1][5] == 200_000


def test_a_process_that_has_gone_is_sent_nothing() -> None:
    log, process = _performed(_many([b"a", b"b"], incarnation=2))
    assert (log, [*process.started]) == ([], [])

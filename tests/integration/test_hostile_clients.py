"""Clients that break the rules. Each gets an error with a code, if it listens, and hurts itself alone."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest

from poolmgr import Client
from poolmgr.errors import BadOption, TaskCancelled, VersionMismatch
from poolmgr.manager import procfs
from poolmgr.wire.messages import (
    COMPLETED,
    ERROR,
    FRAME_LIMIT,
    HELLO,
    PROTOCOL_VERSION,
    REFUSAL,
    REFUSED,
    REQUEST,
    SUBMIT,
    SUBMIT_MANY,
    WELCOME,
)
from scripts.proofs.pool import Pool, until
from tests.integration.conftest import Gate
from tests.integration.raw import CALL, HELLO_THERE, Raw, submit


@pytest.fixture
def raw(shared_pool: Pool) -> Iterator[Raw]:
    raw = Raw(shared_pool.socket)
    yield raw
    raw.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xc1" * 100,
        b"\xff" * 100,
        msgpack.packb({"not": "an array"}),
        msgpack.packb([]),
        msgpack.packb(["HELLO", 1]),
        msgpack.packb([HELLO]),
        msgpack.packb([HELLO, PROTOCOL_VERSION, "worker", {}]),
        msgpack.packb([SUBMIT, b"x"]),
        HELLO_THERE + b"\xc1",
        HELLO_THERE + HELLO_THERE,
        HELLO_THERE + msgpack.packb([77, "unknown"]),
        HELLO_THERE + msgpack.packb([SUBMIT, b"short id", "add", b"", None, True]),
        HELLO_THERE + msgpack.packb([SUBMIT, bytes(16), "add"]),
        HELLO_THERE + msgpack.packb([SUBMIT, bytes(16), 7, b"", None, True]),
        HELLO_THERE + msgpack.packb([SUBMIT_MANY, [bytes(16)], "add"]),
        HELLO_THERE + msgpack.packb([SUBMIT_MANY, bytes(16), "add", b"", None, True]),
        HELLO_THERE + msgpack.packb([SUBMIT_MANY, [], "add", [], None, True]),
        HELLO_THERE + msgpack.packb([SUBMIT_MANY, [bytes(16)] * 2, "add", [CALL], None, True]),
        HELLO_THERE + msgpack.packb([SUBMIT_MANY, [bytes(15), bytes(16)], "add", [CALL] * 2, None, True]),
        HELLO_THERE + msgpack.packb([SUBMIT_MANY, [bytes(16)], "add", ["text"], None, True]),
        HELLO_THERE + msgpack.packb([SUBMIT_MANY, [bytes(16)], 7, [CALL], None, True]),
        HELLO_THERE + msgpack.packb([REQUEST, "one", "status", {}]),
        HELLO_THERE + b"\xdd\xff\xff\xff\xff",  # an array of 4 billion elements
    ],
)
def test_garbage_is_answered_with_an_error_and_the_end(client: Client, raw: Raw, garbage: bytes) -> None:
    raw.say(garbage)
    heard = []
    while (message := raw.hear()) is not None:
        heard.append(message)
    assert [message[0] for message in heard] in ([ERROR], [WELCOME, ERROR])
    _, code, text = heard[-1]
    assert code == "protocol"
    assert text
    assert client.run("add", 1, 2) == 3


@pytest.fixture
def lingering() -> Iterator[int]:
    """A descriptor whose close waits for 8 seconds, for whoever closes it last."""
    with socket.socket() as listening, socket.socket() as sock:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        sock.connect(listening.getsockname())
        sock.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                sock.send(bytes(65536))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 8))
        yield sock.detach()
        # And ``listening`` ends, with what nobody has accepted: so does the wait.


@pytest.mark.parametrize("how", ["without files", "beside others", "left unread"])
def test_a_descriptor_whose_close_waits_makes_nobody_else_wait(
    shared_pool: Pool, client: Client, raw: Raw, lingering: int, how: str
) -> None:
    raw.say(HELLO_THERE)
    raw.hear()
    if how != "without files":
        raw.say(msgpack.packb([REQUEST, 1, "files", {}]))
        raw.hear()
    try:
        if how == "left unread":
            os.kill(shared_pool.pid, signal.SIGSTOP)
            raw.say(b"\xc1")  # it is hung up on, with what follows
        socket.send_fds(raw.sock, [msgpack.packb([REQUEST, 2, "health", {}])], [*[0] * 100, lingering])
    except PermissionError:
        assert how == "without files"
    finally:
        os.kill(shared_pool.pid, signal.SIGCONT)
        os.close(lingering) if how != "without files" else threading.Thread(target=os.close, args=(lingering,)).start()
    begun = time.monotonic()
    for _ in range(10):
        assert client.run("add", 1, 2) == 3
        time.sleep(0.02)
    assert time.monotonic() - begun < 4


def test_a_client_of_another_version_is_told_so(client: Client, raw: Raw) -> None:
    raw.say(msgpack.packb([HELLO, PROTOCOL_VERSION + 1, "client", {}, "and more"]))
    message = raw.hear()
    assert message is not None
    assert message[:2] == [ERROR, "version_mismatch"]
    assert f"speaks protocol {PROTOCOL_VERSION}" in message[2]
    assert raw.hear() is None


def test_a_daemon_of_another_version_is_recognised(tmp_path: Path) -> None:
    path = str(tmp_path / "p.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        if not (pid := os.fork()):
            try:
                peer, _ = listening.accept()
                peer.recv(4096)
                peer.sendall(msgpack.packb([WELCOME, PROTOCOL_VERSION + 1, {"pid": 1}]))
                peer.recv(4096)
            finally:
                os._exit(0)
    try:
        with pytest.raises(VersionMismatch, match="upgrade the older one, then restart it"):
            Client(path)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_wrong_message_costs_only_itself(raw: Raw) -> None:
    raw.say(HELLO_THERE + submit(1, "no_such_task") + submit(2) + msgpack.packb([REQUEST, 1, "explode", {}]))
    heard: dict[int, list[Any]] = {}
    while len(heard) < 3:
        message = raw.hear()
        assert message is not None
        if message[0] in (REFUSED, COMPLETED, REFUSAL):
            heard[message[0]] = message
    assert heard[REFUSED][1:3] == [(1).to_bytes(16, "big"), "unknown_task"]
    assert heard[COMPLETED][1] == (2).to_bytes(16, "big")
    assert heard[REFUSAL][1:3] == [1, "usage"]


def _ends(raw: Raw, count: int) -> tuple[int, dict[bytes, Any]]:
    """How many submits are accepted once ``count`` have ended; and the result or the refusal's code, by id."""
    accepted, ends = 0, dict[bytes, Any]()
    while len(ends) < count or accepted < count:
        message = raw.hear()
        assert message is not None
        match message:
            case [20, accepted]:
                pass
            case [21, id, code, _]:
                ends[id] = code
            case [22, id, payload]:
                ends[id] = msgpack.unpackb(payload)
            case [29, ids, payloads]:
                ends.update(zip(ids, map(msgpack.unpackb, payloads), strict=True))
    return accepted, ends


@pytest.mark.parametrize("order", [[1, 2, 3, 4, 5, 6], [2, 1, 3, 4, 6, 5]])
@pytest.mark.parametrize("takes_many", [False, True])
@pytest.mark.parametrize("in_one", [False, True])
def test_many_submits_in_one_message_are_as_good_as_many_messages(
    raw: Raw, order: list[int], takes_many: bool, in_one: bool
) -> None:
    raw.say(msgpack.packb([HELLO, PROTOCOL_VERSION, "client", {"many": takes_many}]))
    ids = [number.to_bytes(16, "big") for number in order]
    if in_one:
        payloads = [msgpack.packb([[number, 1], {}]) for number in order]
        raw.say(msgpack.packb([SUBMIT_MANY, ids, "add", payloads, CALL, True]))
    else:
        raw.say(b"".join([submit(number, "add", (number, 1)) for number in order]))
    assert _ends(raw, 6) == (6, {id: number + 1 for id, number in zip(ids, order, strict=True)})


def test_of_many_each_is_refused_by_itself(raw: Raw) -> None:
    ids = [number.to_bytes(16, "big") for number in range(1, 4)]
    wrong = [
        msgpack.packb([SUBMIT_MANY, ids[:2], "no_such_task", [b"", b""], CALL, True]),
        msgpack.packb([SUBMIT_MANY, ids[2:], "add", [b""], b"\xc1", True]),
    ]
    raw.say(HELLO_THERE + b"".join(wrong) + submit(4))
    accepted, ends = _ends(raw, 4)
    assert accepted == 4
    assert [ends[id] for id in ids] == ["unknown_task", "unknown_task", "bad_option"]


def test_wrong_options_and_payloads_are_refused_one_by_one(raw: Raw) -> None:
    raw.say(HELLO_THERE)
    for number, options in enumerate([b"\xc1", msgpack.packb([1]), msgpack.packb({"priority": 101}), "text", 7], 1):
        raw.say(msgpack.packb([SUBMIT, number.to_bytes(16, "big"), "add", b"", options, True]))
    refused: dict[bytes, str] = {}
    while len(refused) < 5:
        message = raw.hear()
        assert message is not None
        if message[0] == REFUSED:
            refused[message[1]] = message[2]
    assert set(refused.values()) == {"bad_option"}


@pytest.mark.parametrize("part", [0, 1, 5, 40])
def test_half_a_frame_and_gone(client: Client, shared_pool: Pool, part: int) -> None:
    for _ in range(10):
        raw = Raw(shared_pool.socket)
        raw.say(HELLO_THERE)
        raw.say(submit(1)[:part])
        raw.close()
    assert client.run("add", 1, 2) == 3


def test_a_frame_over_the_limit_is_refused_before_it_has_come(raw: Raw) -> None:
    raw.say(HELLO_THERE)
    head = b"\x96" + msgpack.packb(SUBMIT) + msgpack.packb(bytes(16)) + msgpack.packb("add")
    raw.say(head + b"\xc6" + (FRAME_LIMIT + 1).to_bytes(4, "big"))
    chunk = bytes(1 << 20)
    sent = 0
    try:
        while sent < 2 * FRAME_LIMIT:
            sent += raw.sock.send(chunk)
    except OSError:
        pass
    assert sent < FRAME_LIMIT + (4 << 20)


def test_a_client_that_never_reads_is_not_read_from_and_hurts_nobody(start_pool: Callable[..., Pool]) -> None:
    """It asks for 1 MB a time. The daemon soon stops to read from it, so that what it keeps for it is bounded."""
    pool = start_pool()
    before_mb = procfs.resident_mb(pool.pid)
    raw = Raw(pool.socket)
    raw.say(HELLO_THERE)
    raw.sock.settimeout(0.5)  # that long nothing is taken: it has given up reading
    asked = 0
    try:
        while asked < 2000:
            asked += 1
            raw.say(submit(asked, "zeros", (1_000_000,)))
    except (TimeoutError, ConnectionError):
        pass  # it is not read from any more; or was cut off, where so much had been read that it owes too much
    with pool.client() as client:
        assert list(client.map("add", range(100), range(100))) == [2 * number for number in range(100)]
        until(lambda: client.metrics()["queue"]["depth"] == 0, "all that was read has been run", 30)
        assert procfs.resident_mb(pool.pid) - before_mb < 400
    raw.close()
    with pool.client() as client:
        assert client.run("add", 1, 2) == 3


def test_a_client_that_is_killed_takes_its_waiting_calls_along(lone: Client, lone_pool: Pool, gate: Gate) -> None:
    before = lone.metrics()["tasks"]
    raw = Raw(lone_pool.socket)
    raw.say(HELLO_THERE + submit(1, "hold", (gate.path, "begun")))
    gate.begun()
    raw.say(b"".join(submit(number) for number in range(2, 102)))
    until(lambda: lone.metrics()["queue"]["depth"] == 100, "all calls are queued")
    durable = lone.submit("add", 20, 22)
    lone.flush()
    raw.close()
    until(lambda: lone.metrics()["queue"]["depth"] == 1, "its calls are no longer queued")
    gate.open()
    assert durable.result(timeout=10) == 42
    after = lone.metrics()["tasks"]
    assert after["cancelled"] - before["cancelled"] == 100
    assert after["completed"] - before["completed"] == 2


def test_a_closed_clients_calls_are_cancelled_and_its_durable_tasks_run(shared_pool: Pool, gate: Gate) -> None:
    with shared_pool.client() as client:
        client.pause("add")
        with shared_pool.client() as leaving:
            call = leaving.using(durable=False).submit("add", 1, 2)
            durable = leaving.submit("add", 3, 4)
        with pytest.raises(TaskCancelled):
            call.result(timeout=10)
        client.resume("add")
        assert client.result(durable.id, timeout=10) == 7


def test_a_name_of_a_million_characters_is_told_at_once(client: Client, raw: Raw) -> None:
    raw.say(HELLO_THERE + submit(1, "x" * 10_000_000))
    _, ends = _ends(raw, 1)
    assert ends == {(1).to_bytes(16, "big"): "unknown_task"}


def test_options_are_no_place_for_data(client: Client) -> None:
    with pytest.raises(BadOption, match="16,384 are allowed"):
        client.using(affinity="x" * 20_000).run("add", 1, 2)
    assert client.using(affinity="x" * 10_000).run("add", 1, 2) == 3

"""A client's side of payloads in files, without a daemon: whatever becomes of a file, everybody has an outcome."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import warnings
from contextlib import suppress
from typing import Any

import pytest

from poolmgr.client.files import Files
from poolmgr.client.outgoing import Scattered, packed, submission
from poolmgr.client.pending import Pending
from poolmgr.client.protocol import Protocol
from poolmgr.client.shared_socket import SharedSocket
from poolmgr.errors import ConnectionLost, NotFound, ProtocolError, TaskLost
from poolmgr.parcels.parcel import PARCEL_BYTES, Parcel
from poolmgr.wire.framing import encode
from poolmgr.wire.messages import ACCEPTED, COMPLETED, PROTOCOL_VERSION, REFUSAL, RESPONSE, SUBMIT, WELCOME
from poolmgr.wire.values import pack, pack_call
from tests.unit.test_client_resume import completed, submit, watched

LARGE = pack(b"x" * PARCEL_BYTES)


@pytest.fixture(autouse=True)
def plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other test has had too few descriptors."""
    monkeypatch.setattr(Files, "_scarce_until", 0.0)


def welcome(protocol: Protocol) -> None:
    protocol.receive(encode((WELCOME, PROTOCOL_VERSION, {"files": True})))


@pytest.fixture
def protocol() -> Protocol:
    """Files are granted."""
    protocol = Protocol(60)
    welcome(protocol)
    pending, command, arguments = protocol.files.ask()
    protocol.request(pending, command, arguments)
    protocol.receive(encode((RESPONSE, pending.number, True)))
    assert protocol.files.granted
    return protocol


def memfd(content: bytes) -> int:
    fd = os.memfd_create("payload", os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def test_a_file_that_was_dropped_is_an_outage_and_the_result_comes_on_the_next_connection(protocol: Protocol) -> None:
    first, second, call = submit(protocol), submit(protocol), submit(protocol, durable=False)
    protocol.receive(encode((ACCEPTED, 3)))
    protocol.files.came([], dropped=True)
    protocol.receive(completed(second.key, "small") + encode((COMPLETED, first.key, PARCEL_BYTES)))
    assert second.value() == "small"
    assert isinstance(protocol.down, ConnectionLost)
    assert protocol.lost is None
    assert isinstance(call.outcome, TaskLost)
    assert first.outcome is None
    assert watched(protocol.resume("")) == [first.key]
    welcome(protocol)
    protocol.receive(encode((COMPLETED, first.key, LARGE)))
    assert first.value() == b"x" * PARCEL_BYTES
    assert not protocol.files.due  # the next would be dropped as well


def test_a_later_file_is_not_taken_for_one_that_was_dropped(protocol: Protocol) -> None:
    first, second, third = submit(protocol), submit(protocol), submit(protocol)
    protocol.receive(encode((ACCEPTED, 3)))
    protocol.files.came([memfd(pack("its own"))])
    protocol.files.came([], dropped=True)
    protocol.files.came([late := memfd(pack("another's"))])
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(late)
    size = len(pack("its own"))
    protocol.receive(b"".join(encode((COMPLETED, each.key, size)) for each in (first, second, third)))
    assert first.value() == "its own"
    assert second.outcome is third.outcome is None
    assert sorted(watched(protocol.resume(""))) == sorted([second.key, third.key])


def test_a_daemon_that_sends_no_file_is_not_understood_and_everybody_is_told(protocol: Protocol) -> None:
    first, second = submit(protocol), submit(protocol)
    protocol.receive(encode((COMPLETED, first.key, PARCEL_BYTES)))
    assert isinstance(protocol.lost, ProtocolError)
    assert isinstance(first.outcome, ConnectionLost)
    assert isinstance(second.outcome, ConnectionLost)


def test_an_answer_that_cannot_be_read_leaves_nobody_without_an_outcome() -> None:
    protocol = Protocol(60)
    task = submit(protocol)
    protocol.receive(encode((ACCEPTED, 1)))
    protocol.interrupt(ConnectionLost("it broke"))
    protocol.resume("")
    protocol.receive(encode((REFUSAL, protocol._requested)))
    assert isinstance(protocol.lost, ProtocolError)
    assert isinstance(task.outcome, ConnectionLost)
    assert not isinstance(task.outcome, NotFound)


# ------------------------------------------------------------------------------------------ forks


def payload_files() -> int:
    """How many descriptors of payloads this process holds."""
    found = 0
    for each in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found += "poolmgr-payload" in os.readlink(f"/proc/self/fd/{each}")
    return found


def submit_large(shared: SharedSocket) -> Pending[Any]:
    pending: Pending[Any] = Pending(durable=True)
    payload = packed((b"x" * PARCEL_BYTES,), {}, shared.protocol.files)
    assert isinstance(payload, Parcel)
    with shared.lock:
        shared._outbox.send(shared.protocol.submit(pending, "t", payload, None))
    return pending


def test_a_forked_child_holds_nothing_of_what_its_parent_has_under_way(protocol: Protocol) -> None:
    shared, theirs = connection()
    shared.protocol = protocol
    before = payload_files()
    waiting = [submit_large(shared) for _ in range(3)]
    shared._outbox.send(b"x" * (4 << 20))  # the socket is full
    waiting += [submit_large(shared) for _ in range(3)]
    assert shared._outbox.unsent
    assert payload_files() >= before + 12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks while there are threads
        child = os.fork()
    if not child:
        os._exit(0 if payload_files() <= before and all(each.outcome for each in waiting) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert payload_files() >= before + 12
    shared.close(ConnectionLost("the test is over"))
    theirs.close()


def test_a_lost_connection_holds_nothing_either(protocol: Protocol) -> None:
    shared, theirs = connection()
    shared.protocol = protocol
    before = payload_files()
    submit_large(shared)
    theirs.close()
    shared.close(ConnectionLost("closed"))
    assert payload_files() <= before
    assert shared.protocol.window.room


# ------------------------------------------------------------------------------------------ bursts


def test_large_bytes_are_sent_from_where_they_are_and_what_may_change_is_copied() -> None:
    files = Protocol(60).files
    large, changing = bytes(50_000), bytearray(50_000)
    payload = packed((large, 1), {"a": 2}, files)
    assert isinstance(payload, Scattered)
    assert any(part is large for part in payload.parts)
    assert payload.content() == pack_call((large, 1), {"a": 2})
    assert len(payload) == len(payload.content())
    message = submission((bytes(16), "name", payload, None), encode, files)
    assert isinstance(message, list)
    assert any(part is large for part in message)
    assert b"".join(message) == encode((SUBMIT, bytes(16), "name", payload.content(), None, True))  # type: ignore[arg-type]
    for each in (changing, memoryview(changing), [large, changing]):
        before = pack_call((each,), {})
        kept = packed((each,), {}, files)
        changing[:] = b"x" * len(changing)
        assert kept == before
        changing[:] = bytes(len(changing))


def test_a_burst_is_given_back_when_nothing_is_under_way() -> None:
    files = Files()
    before = payload_files()
    parcels = [files.write([b"x" * PARCEL_BYTES]) for _ in range(100)]
    assert payload_files() == before + 200
    parcels.clear()
    files.rest()
    assert 0 < payload_files() - before <= 64
    large = [files.write([bytes(20 << 20)]) for _ in range(8)]
    large.clear()
    files.rest()
    assert sum(each.size for each in files._memfds._made) <= 128 << 20
    del files
    assert payload_files() == before


def test_what_is_not_read_yet_is_not_given_up_where_there_was_no_burst() -> None:
    files = Files()
    parcel = files.write([b"x" * PARCEL_BYTES])
    for _ in range(100):
        files.rest()
    assert len(files._memfds) == 1
    assert parcel is not None


def test_there_are_no_more_files_than_may_be() -> None:
    files = Files()
    parcels = [files.write([b"x" * PARCEL_BYTES]) for _ in range(130)]
    assert parcels[127] is not None
    assert parcels[128:] == [None, None]


# ------------------------------------------------------------------------------------------ waiting


def connection() -> tuple[SharedSocket, socket.socket]:
    ours, theirs = socket.socketpair()
    return SharedSocket(ours), theirs


def test_nobody_waits_on_a_connection_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolmgr.client.shared_socket._LAST_WORD_S", 0.05)
    shared, theirs = connection()
    shared.close(ConnectionLost("closed"))
    assert shared.wait(lambda: False) is False
    theirs.close()


def test_what_another_thread_is_about_to_settle_is_waited_for() -> None:
    shared, theirs = connection()
    settled: list[int] = []
    shared.close(ConnectionLost("closed"))
    threading.Timer(0.1, settled.append, [1]).start()
    assert shared.wait(lambda: bool(settled)) is True
    theirs.close()


@pytest.mark.parametrize("heard", [[], [(Pending(), ConnectionLost("another's"))]])
def test_a_deadline_holds_however_much_there_is_to_read(monkeypatch: pytest.MonkeyPatch, heard: list[Any]) -> None:
    shared, theirs = connection()
    monkeypatch.setattr(shared, "_read", lambda deadline: heard)
    assert shared.wait(lambda: False, 0.1) is False
    shared.close(ConnectionLost("the test is over"))
    theirs.close()

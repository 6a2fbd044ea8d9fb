"""The connection without I/O: messages in, outcomes out."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from poolmgr.client.outgoing import Outgoing
from poolmgr.client.pending import Outcome, Pending
from poolmgr.client.protocol import Protocol
from poolmgr.client.together import SMALL_BYTES
from poolmgr.client.window import WINDOW_BYTES
from poolmgr.errors import (
    BadValue,
    ConnectionLost,
    NotFound,
    PayloadTooLarge,
    PoolError,
    ProtocolError,
    QueueFull,
    ShuttingDown,
    TaskCancelled,
    TaskFailed,
    TaskLost,
    TaskTimeout,
    VersionMismatch,
)
from poolmgr.model import Event
from poolmgr.wire.framing import ENVELOPE, Decoder, encode
from poolmgr.wire.messages import (
    ACCEPTED,
    COMPLETED,
    COMPLETED_MANY,
    ERROR,
    EVENT,
    FAILED,
    HELLO,
    PROTOCOL_VERSION,
    REFUSAL,
    REFUSED,
    REQUEST,
    RESPONSE,
    SAME,
    SUBMIT,
    SUBMIT_MANY,
    WELCOME,
)
from poolmgr.wire.values import pack, pack_call
from tests.unit.client_questions import plain

CALL = pack_call(("a.png",), {})


class Observed(Pending[Any]):
    observed = True

    def settle(self, outcome: Outcome) -> None:
        raise AssertionError("the shell does this")


def sent(data: Outgoing) -> list[Any]:
    (message,) = Decoder(ENVELOPE).feed(plain(data))
    return message


def submit(protocol: Protocol, *, durable: bool = True, payload: bytes = CALL) -> Pending[Any]:
    pending: Pending[Any] = Pending(durable)
    protocol.submit(pending, "thumbnail", payload, None)
    return pending


def failed(pending: Pending[Any], state: str = "dead", code: str = "task_failed", **told: str) -> bytes:
    return encode((FAILED, pending.key, state, code, pack(told)))


def raised(pending: Pending[Any]) -> BaseException:
    with pytest.raises(PoolError) as caught:
        pending.value()
    return caught.value


def test_says_hello_as_a_client_of_its_version() -> None:
    kind, version, role, info = sent(Protocol().hello("me"))
    assert (kind, version, role, info["name"]) == (HELLO, PROTOCOL_VERSION, "client", "me")


def test_is_welcomed_with_what_the_daemon_says_of_itself() -> None:
    protocol = Protocol()
    protocol.receive(encode((WELCOME, PROTOCOL_VERSION, {"pid": 7, "epoch": 3}, "an element of a newer version")))
    assert protocol.welcome == {"pid": 7, "epoch": 3}


def test_refuses_a_daemon_of_another_version() -> None:
    protocol = Protocol()
    protocol.receive(encode((WELCOME, PROTOCOL_VERSION + 1, {})))
    assert isinstance(protocol.lost, VersionMismatch)


def test_is_told_of_the_version_by_a_daemon_that_refuses_it() -> None:
    protocol = Protocol()
    protocol.receive(encode((ERROR, "version_mismatch", "I speak 2")))
    assert isinstance(protocol.lost, VersionMismatch)


def test_a_submit_carries_what_the_task_needs() -> None:
    pending: Pending[Any] = Pending(True)
    message = sent(Protocol().submit(pending, "thumbnail", CALL, b"\x80"))
    assert message == [SUBMIT, pending.key, "thumbnail", CALL, b"\x80", True]
    assert pending.number == 1


def test_ids_are_16_bytes_and_differ_within_and_between_connections() -> None:
    keys = [submit(protocol).key for protocol in (Protocol(), Protocol(), Protocol()) for _ in range(1000)]
    assert {len(key) for key in keys} == {16}
    assert len(set(keys)) == 3000
    assert keys[:1000] == sorted(keys[:1000])


def test_a_result_is_decoded_when_it_is_asked_for() -> None:
    protocol = Protocol()
    pending = submit(protocol)
    assert protocol.receive(encode((COMPLETED, pending.key, pack({"size": (1, 2)})))) == []
    value = pending.value()
    assert value == {"size": (1, 2)}
    assert pending.value() is value


def test_a_failure_has_its_class_its_text_and_its_traceback() -> None:
    protocol = Protocol()
    pending = submit(protocol)
    protocol.receive(failed(pending, type="ValueError", message="no", traceback="Traceback ..."))
    error = raised(pending)
    assert type(error) is TaskFailed
    assert (error.type, error.message, error.traceback) == ("ValueError", "no", "Traceback ...")
    assert error.task_id == pending.id == pending.key.hex()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("code", "kind"), [("timeout", TaskTimeout), ("cancelled", TaskCancelled), ("of_a_newer_daemon", TaskFailed)]
)
def test_the_code_of_a_failure_names_its_class(code: str, kind: type[TaskFailed]) -> None:
    protocol = Protocol()
    pending = submit(protocol)
    protocol.receive(failed(pending, code=code))
    assert type(raised(pending)) is kind


def test_a_refused_submit_raises_what_the_daemon_said() -> None:
    protocol = Protocol()
    pending = submit(protocol)
    protocol.receive(encode((REFUSED, pending.key, "queue_full", "10 wait")) + encode((ACCEPTED, 1)))
    assert isinstance(raised(pending), QueueFull)
    assert protocol.window.acknowledged == 1


def test_a_submit_that_its_key_found_to_be_another_has_the_id_of_that() -> None:
    protocol = Protocol()
    pending = submit(protocol)
    first = bytes(range(16))
    protocol.receive(encode((SAME, pending.key, first)) + encode((COMPLETED, pending.key, pack(1))))
    assert pending.id == first.hex()
    assert pending.value() == 1


def test_the_observed_are_left_to_the_shell() -> None:
    protocol = Protocol()
    observed = Observed()
    protocol.submit(observed, "thumbnail", CALL, None)
    message = [COMPLETED, observed.key, pack(1)]
    assert protocol.receive(encode(message)) == [(observed, message)]
    assert observed.outcome is None


def test_the_window_is_full_until_the_daemon_has_answered() -> None:
    protocol = Protocol()
    protocol.receive(encode((WELCOME, PROTOCOL_VERSION, {"window": 3})))
    rooms = []
    for _ in range(3):
        rooms.append(protocol.window.room)
        submit(protocol)
    rooms.append(protocol.window.room)
    protocol.receive(encode((ACCEPTED, 2)))
    assert [*rooms, protocol.window.room] == [True, True, True, False, True]


def test_the_window_is_full_of_bytes_too() -> None:
    protocol = Protocol()
    submit(protocol, payload=bytes(WINDOW_BYTES - 1000))
    rooms = [protocol.window.room]
    submit(protocol, payload=bytes(1000))
    rooms.append(protocol.window.room)
    protocol.receive(encode((ACCEPTED, 1)))
    assert [*rooms, protocol.window.room] == [True, False, True]


def test_many_in_one_message_fill_the_window_with_their_bytes() -> None:
    protocol = Protocol()
    count = WINDOW_BYTES // SMALL_BYTES
    protocol.submit_all([(Pending(), "t", bytes(SMALL_BYTES), None) for _ in range(count - 1)])
    rooms = [protocol.window.room]
    protocol.submit_all([(Pending(), "t", bytes(SMALL_BYTES // 2), None) for _ in range(2)])
    rooms.append(protocol.window.room)
    protocol.receive(encode((ACCEPTED, 1)))
    assert [*rooms, protocol.window.room] == [True, False, True]


def test_a_lost_connection_has_room_so_that_nobody_waits_for_it() -> None:
    protocol = Protocol()
    submit(protocol, payload=bytes(WINDOW_BYTES))
    protocol.lose(ConnectionLost("gone"))
    assert protocol.window.room


def test_arguments_over_the_daemons_limit_are_refused_and_leave_no_trace() -> None:
    protocol = Protocol()
    protocol.receive(encode((WELCOME, PROTOCOL_VERSION, {"payload_limit": 100})))
    with pytest.raises(PayloadTooLarge, match="thumbnail"):
        submit(protocol, payload=bytes(101))
    assert protocol.window.submitted == 0
    assert submit(protocol).number == 1


def test_what_cannot_be_sent_of_many_has_its_reason_and_the_others_go() -> None:
    protocol = Protocol()
    protocol.receive(encode((WELCOME, PROTOCOL_VERSION, {"payload_limit": 100})))
    pendings: list[Pending[Any]] = [Pending() for _ in range(3)]
    payloads = [CALL, bytes(101), CALL]
    data = protocol.submit_all([(each, "t", payload, None) for each, payload in zip(pendings, payloads, strict=True)])
    assert [message[1] for message in Decoder(ENVELOPE).feed(plain(data))] == [pendings[0].key, pendings[2].key]
    assert isinstance(raised(pendings[1]), PayloadTooLarge)


def test_many_alike_go_in_one_message_and_count_each_by_itself() -> None:
    protocol = Protocol()
    pendings: list[Pending[Any]] = [Pending() for _ in range(5)]
    names = ["t", "t", "t", "u", "t"]
    data = protocol.submit_all([(each, name, CALL, None) for each, name in zip(pendings, names, strict=True)])
    keys = [each.key for each in pendings]
    assert Decoder(ENVELOPE).feed(plain(data)) == [
        [SUBMIT_MANY, keys[:3], "t", [CALL] * 3, None, True, False],
        [SUBMIT, keys[3], "u", CALL, None, True],
        [SUBMIT, keys[4], "t", CALL, None, True],
    ]
    assert keys == sorted(set(keys))
    assert [each.number for each in pendings] == [1, 2, 3, 4, 5]
    protocol.receive(encode((ACCEPTED, 4)) + encode((COMPLETED_MANY, [*keys[1:4], bytes(16)], [pack(7)] * 4)))
    assert protocol.window.acknowledged == 4
    assert [each.outcome is None for each in pendings] == [True, False, False, False, True]
    assert [each.value() for each in pendings[1:4]] == [7, 7, 7]


def test_results_without_their_ids_end_the_connection() -> None:
    protocol = Protocol()
    pending = submit(protocol)
    protocol.receive(encode((COMPLETED_MANY, [pending.key], [])))
    assert isinstance(protocol.lost, ProtocolError)
    assert pending.outcome is not None


def test_a_request_has_a_number_and_gets_its_own_answer() -> None:
    protocol = Protocol()
    first, second = Pending[Any](), Pending[Any]()
    assert sent(protocol.request(first, "health", {})) == [REQUEST, 1, "health", {}]
    assert sent(protocol.request(second, "task", {"id": b"x"})) == [REQUEST, 2, "task", {"id": b"x"}]
    protocol.receive(encode((REFUSAL, 2, "not_found", "no such task")) + encode((RESPONSE, 1, {"status": "healthy"})))
    assert first.value() == {"status": "healthy"}
    assert isinstance(raised(second), NotFound)


def test_an_argument_that_no_message_can_carry_does_no_harm() -> None:
    protocol = Protocol()
    with pytest.raises(BadValue):
        protocol.request(Pending(), "tasks", {"limit": 2**70})
    answer = Pending[Any]()
    protocol.request(answer, "health", {})
    assert answer.number == 1


def test_events_are_kept_in_their_order() -> None:
    protocol = Protocol()
    protocol.receive(encode((EVENT, "task-started", 1.5, {"task": "a"})) + encode((EVENT, "pool-shutdown", 2, {})))
    assert list(protocol.events) == [Event("task-started", 1.5, {"task": "a"}), Event("pool-shutdown", 2.0, {})]


def test_two_who_wait_for_one_task_share_its_end() -> None:
    protocol = Protocol()
    submitted = submit(protocol)
    assert protocol.watch(submitted.key, Pending()) is submitted
    watcher = Pending[Any]()
    assert protocol.watch(b"k" * 16, watcher) is watcher
    assert protocol.watch(b"k" * 16, Pending()) is watcher
    protocol.receive(encode((COMPLETED, b"k" * 16, pack(5))))
    assert watcher.value() == 5


def test_a_refused_watch_is_the_end_for_all_who_wait() -> None:
    protocol = Protocol()
    watcher = Pending[Any]()
    protocol.watch(b"k" * 16, watcher)
    protocol.refuse(watcher, NotFound("no such task"))
    assert isinstance(raised(watcher), NotFound)
    assert protocol.watch(b"k" * 16, other := Pending[Any]()) is other


def test_what_nobody_waits_for_is_ignored() -> None:
    protocol = Protocol()
    pending = submit(protocol)
    protocol.forget([pending.key])
    protocol.receive(encode((COMPLETED, pending.key, pack(1))) + encode((RESPONSE, 99, None)))
    assert pending.outcome is None
    assert protocol.lost is None


@pytest.mark.parametrize(
    ("durable", "accepted", "closed", "kind", "text"),
    [
        (True, True, False, ConnectionLost, "is safe"),
        (True, False, False, ConnectionLost, "was not acknowledged"),
        (True, True, True, ConnectionLost, "is safe"),
        (False, True, False, TaskLost, "unknown"),
        (False, True, True, TaskCancelled, "end with it"),
    ],
)
def test_a_lost_connection_says_what_became_of_each_task(
    durable: bool, accepted: bool, closed: bool, kind: type[PoolError], text: str
) -> None:
    protocol = Protocol()
    pending = submit(protocol, durable=durable)
    if accepted:
        protocol.receive(encode((ACCEPTED, 1)))
    protocol.lose(ConnectionLost("the daemon has gone"), closed=closed)
    error = raised(pending)
    assert type(error) is kind
    assert text in str(error)
    assert "the daemon has gone" in str(error)


def test_a_lost_connection_answers_requests_and_takes_nothing_more() -> None:
    protocol = Protocol()
    answer = Pending[Any]()
    protocol.request(answer, "health", {})
    observed = Observed()
    protocol.submit(observed, "thumbnail", CALL, None)
    cause = ConnectionLost("gone")
    ((told, outcome),) = protocol.lose(cause)
    assert told is observed
    assert isinstance(outcome, PoolError)
    assert raised(answer) is cause
    assert protocol.lose(ShuttingDown("too late")) == []
    assert protocol.lost is cause
    for attempt in (lambda: submit(protocol), lambda: protocol.request(Pending(), "health", {})):
        with pytest.raises(ConnectionLost):
            attempt()


def test_the_daemons_last_word_is_the_reason() -> None:
    protocol = Protocol()
    done, undone = submit(protocol), submit(protocol, durable=False)
    protocol.receive(encode((COMPLETED, done.key, pack(1))) + encode((ERROR, "shutting_down", "I stop")))
    assert done.value() == 1
    assert isinstance(protocol.lost, ShuttingDown)
    assert "I stop" in str(raised(undone))


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        encode(5),
        encode([]),
        encode((250,)),
        encode((COMPLETED,)),
        encode((ACCEPTED, 7)),
        encode((ACCEPTED, "x")),
        encode((WELCOME, PROTOCOL_VERSION, None)),
        encode((COMPLETED, {}, b"")),
        encode((EVENT, "x", {}, {})),
    ],
)
def test_garbage_ends_the_connection_and_everything_on_it(data: bytes) -> None:
    protocol = Protocol()
    first, second = submit(protocol), submit(protocol)
    protocol.receive(encode((COMPLETED, first.key, pack(1))) + data)
    assert first.value() == 1
    assert isinstance(protocol.lost, ProtocolError)
    assert isinstance(raised(second), ConnectionLost)


@pytest.mark.parametrize(
    "message",
    [(COMPLETED, b"\xc1"), (COMPLETED,), (FAILED, "dead", "timeout"), (FAILED, "dead", "timeout", b"\xc1"), (REFUSED,)],
)
def test_an_end_that_cannot_be_read_is_the_error_of_that_task_alone(message: tuple[Any, ...]) -> None:
    protocol = Protocol()
    pending, other = submit(protocol), submit(protocol)
    protocol.receive(encode((message[0], pending.key, *message[1:])) + encode((COMPLETED, other.key, pack(2))))
    assert isinstance(raised(pending), ProtocolError | BadValue)
    assert other.value() == 2


def test_messages_may_come_in_any_pieces() -> None:
    protocol = Protocol()
    pending = submit(protocol)
    for byte in encode((ACCEPTED, 1)) + encode((COMPLETED, pending.key, pack("x" * 1000))):
        protocol.receive(bytes([byte]))
    assert pending.value() == "x" * 1000

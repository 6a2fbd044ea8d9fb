"""What is resumed on another connection, without I/O: with a daemon that has each task once, whatever breaks when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from poolmgr.client.outgoing import Outgoing
from poolmgr.client.pending import Pending
from poolmgr.client.protocol import Protocol
from poolmgr.client.resume import Outage
from poolmgr.errors import (
    ConnectionLost,
    IdConflict,
    NotAllowed,
    NotFound,
    NotRunning,
    OutcomeUnknown,
    PoolError,
    ProtocolError,
    TaskLost,
)
from poolmgr.wire.framing import ENVELOPE, Decoder, encode
from poolmgr.wire.messages import (
    ACCEPTED,
    COMPLETED,
    HELLO,
    PROGRESS,
    REFUSAL,
    REFUSED,
    REQUEST,
    RESPONSE,
    SAME,
    SUBMIT,
)
from poolmgr.wire.values import pack, pack_call
from tests.unit.client_questions import plain

BROKE = ConnectionLost("it broke")
CALL = pack_call((), {})


def submit(protocol: Protocol, *, durable: bool = True, name: str = "t") -> Pending[Any]:
    pending: Pending[Any] = Pending(durable)
    protocol.submit(pending, name, CALL, None)
    return pending


def sent(data: Outgoing, kind: int) -> list[list[Any]]:
    return [message for message in Decoder(ENVELOPE).feed(plain(data)) if message[0] == kind]


def ids(messages: list[list[Any]]) -> list[bytes]:
    return [message[1] for message in messages]


def watched(data: Outgoing) -> list[bytes]:
    return [message[3]["id"] for message in sent(data, REQUEST) if message[2] == "watch"]


def completed(key: bytes, value: object = 1) -> bytes:
    return encode((COMPLETED, key, pack(value)))


def raised(pending: Pending[Any]) -> BaseException:
    with pytest.raises(PoolError) as caught:
        pending.value()
    return caught.value


def test_what_was_not_acknowledged_is_sent_again_as_it_was_and_the_rest_is_watched() -> None:
    protocol = Protocol(60)
    first, second, third = (submit(protocol, name=name) for name in "abc")
    protocol.receive(encode((ACCEPTED, 1)))
    protocol.interrupt(BROKE)
    assert (protocol.down, protocol.lost) == (BROKE, None)
    data = protocol.resume("me")
    assert Decoder(ENVELOPE).feed(plain(data))[0][0] == HELLO
    assert sent(data, SUBMIT) == [
        [SUBMIT, second.key, "b", CALL, None, True],
        [SUBMIT, third.key, "c", CALL, None, True],
    ]
    assert watched(data) == [first.key]
    assert protocol.down is None
    protocol.receive(
        encode((ACCEPTED, 2)) + completed(third.key, 3) + completed(first.key, 1) + completed(second.key, 2)
    )
    assert [first.value(), second.value(), third.value()] == [1, 2, 3]
    assert protocol.window.unanswered == 0


def test_what_has_ended_is_neither_sent_again_nor_watched() -> None:
    protocol = Protocol(60)
    done, undone = submit(protocol), submit(protocol)
    protocol.receive(completed(done.key, "it"))  # its acknowledgement has not come
    protocol.interrupt(BROKE)
    data = protocol.resume("")
    assert (ids(sent(data, SUBMIT)), watched(data)) == ([undone.key], [])
    assert done.value() == "it"
    protocol.receive(encode((ACCEPTED, 1)))
    assert protocol.window.unanswered == 0


def test_calls_and_requests_fail_and_are_never_sent_again() -> None:
    protocol = Protocol(60)
    call, kept, later = submit(protocol, durable=False), submit(protocol), submit(protocol, durable=False)
    answer = Pending[Any]()
    protocol.request(answer, "status", {})
    protocol.interrupt(BROKE)
    for lost in (call, later):
        assert isinstance(raised(lost), TaskLost)
    assert raised(answer) is BROKE
    data = protocol.resume("")
    assert ids(sent(data, SUBMIT)) == [kept.key]
    assert sent(data, REQUEST) == []
    protocol.receive(encode((ACCEPTED, 1)))
    assert protocol.window.acknowledged == 3
    assert all(lost.number > 3 for lost in (call, later)), "nobody takes them for acknowledged"


def test_a_connection_with_calls_alone_is_lost() -> None:
    protocol = Protocol(60)
    call = submit(protocol, durable=False)
    protocol.interrupt(BROKE)
    assert protocol.lost is BROKE
    assert isinstance(raised(call), TaskLost)


@pytest.mark.parametrize("cause", [ProtocolError("garbage"), NotAllowed("you may not")])
def test_sides_that_do_not_understand_each_other_are_not_brought_together_again(cause: PoolError) -> None:
    protocol = Protocol(60)
    pending = submit(protocol)
    protocol.interrupt(cause)
    assert protocol.lost is cause
    assert isinstance(raised(pending), ConnectionLost)


def test_nothing_is_resumed_where_that_is_not_wanted() -> None:
    protocol = Protocol(0)
    pending = submit(protocol)
    protocol.interrupt(BROKE)
    assert protocol.lost is BROKE
    assert isinstance(raised(pending), ConnectionLost)


@pytest.mark.parametrize(("code", "kind"), [("id_conflict", IdConflict), ("outcome_unknown", OutcomeUnknown)])
def test_a_refused_resend_is_told(code: str, kind: type[PoolError]) -> None:
    protocol = Protocol(60)
    pending = submit(protocol)
    protocol.interrupt(BROKE)
    protocol.resume("")
    protocol.receive(encode((REFUSED, pending.key, code, "no")) + encode((ACCEPTED, 1)))
    assert type(raised(pending)) is kind


def test_a_resend_that_is_said_to_be_itself_ends_as_itself() -> None:
    protocol = Protocol(60)
    pending = submit(protocol)
    protocol.interrupt(BROKE)
    protocol.resume("")
    protocol.receive(encode((SAME, pending.key, pending.key)) + encode((ACCEPTED, 1)))
    protocol.interrupt(BROKE)
    assert watched(protocol.resume("")) == [pending.key]
    protocol.receive(completed(pending.key))
    assert pending.value() == 1


@pytest.mark.parametrize(("code", "kind"), [("not_found", NotFound), ("store_unavailable", PoolError)])
def test_a_task_that_the_daemon_does_not_know_any_more_is_a_clear_error(code: str, kind: type[PoolError]) -> None:
    protocol = Protocol(60)
    pending = submit(protocol)
    protocol.receive(encode((ACCEPTED, 1)))
    protocol.interrupt(BROKE)
    (asked,) = sent(protocol.resume(""), REQUEST)
    protocol.receive(encode((REFUSAL, asked[1], code, "no such task")))
    error = raised(pending)
    assert isinstance(error, kind)
    if kind is NotFound:
        assert pending.id in str(error)
        assert "result_ttl_s" in str(error)


def test_tasks_that_their_key_found_to_be_one_are_watched_as_that_one() -> None:
    class Observed(Pending[Any]):
        observed = True

        def progressed(self, fraction: float, message: str) -> None:
            self.key = b"told"

    protocol = Protocol(60)
    first, same, also = submit(protocol), submit(protocol), Observed(True)
    protocol.submit(also, "t", CALL, None)
    protocol.receive(b"".join(encode((SAME, each.key, first.key)) for each in (same, also)) + encode((ACCEPTED, 3)))
    for _ in range(2):
        protocol.interrupt(BROKE)
        assert watched(protocol.resume("")) == [first.key]
    assert protocol.watch(first.key, Pending()) is first
    protocol.receive(encode((PROGRESS, first.key, 0.5, "half")))
    assert also.key == b"told"
    told = dict(protocol.receive(completed(first.key, 7)))
    assert also in told
    assert (first.value(), same.value()) == (7, 7)


def test_one_that_its_key_found_to_be_a_task_of_somebody_else_is_watched_as_that() -> None:
    protocol = Protocol(60)
    pending, first = submit(protocol), b"f" * 16
    protocol.receive(encode((SAME, pending.key, first)) + encode((ACCEPTED, 1)))
    protocol.interrupt(BROKE)
    assert watched(protocol.resume("")) == [first]
    protocol.receive(completed(first))
    assert pending.value() == 1


def test_the_daemon_is_not_asked_for_everything_at_once() -> None:
    protocol = Protocol(60)
    tasks = [submit(protocol) for _ in range(2500)]
    protocol.receive(encode((ACCEPTED, 2500)))
    protocol.interrupt(BROKE)
    data, asked = protocol.resume(""), []
    while messages := sent(data, REQUEST):
        assert len(messages) <= 1000
        asked += [message[3]["id"] for message in messages]
        protocol.receive(b"".join(encode((RESPONSE, message[1], None)) for message in messages))
        data = protocol.watch_more()
    assert asked == [task.key for task in tasks]


def test_what_nobody_waits_for_any_longer_is_not_resumed() -> None:
    protocol = Protocol(60)
    kept, abandoned = submit(protocol), submit(protocol)
    protocol.interrupt(BROKE)
    protocol.forget([abandoned.key])
    assert ids(sent(protocol.resume(""), SUBMIT)) == [kept.key]
    protocol.receive(encode((ACCEPTED, 1)))
    assert protocol.window.unanswered == 0


def test_the_window_takes_nothing_while_the_connection_is_down() -> None:
    protocol = Protocol(60)
    submit(protocol)
    protocol.interrupt(BROKE)
    assert not protocol.window.room
    with pytest.raises(ConnectionLost):
        submit(protocol)
    protocol.resume("")
    assert protocol.window.room


def test_it_is_the_same_outage_until_all_is_resumed() -> None:
    protocol = Protocol(60)
    submit(protocol)
    protocol.interrupt(BROKE)
    outage = protocol.outage
    protocol.resume("")
    protocol.interrupt(BROKE)
    assert protocol.outage is outage
    protocol.resume("")
    protocol.receive(encode((ACCEPTED, 1)))
    protocol.interrupt(BROKE)
    assert protocol.outage is not outage


def test_dialling_is_given_up_when_patience_ends_or_nothing_is_to_be_hoped_for() -> None:
    outage = Outage(100.0, 2.0)
    now, pauses = 100.0, []
    while outage.failed(NotRunning("no daemon"), now):
        pauses.append(outage.due - now)
        now = outage.due
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 0.45])
    assert now == 102.0
    assert not Outage(100.0, 2.0).failed(NotAllowed("another user's"), 100.0)
    outage = Outage(0.0, 1000.0)
    for _ in range(30):
        assert outage.failed(NotRunning("no daemon"), 5.0)
    assert outage.due == 6.0


def test_what_is_given_up_says_what_is_safe_and_why() -> None:
    protocol = Protocol(1e-9)
    acknowledged, other = submit(protocol), submit(protocol)
    protocol.receive(encode((ACCEPTED, 1)))
    protocol.interrupt(BROKE)
    protocol.unreachable(NotRunning("no daemon answers"))
    for pending, text in ((acknowledged, "is safe"), (other, "was not acknowledged")):
        error = raised(pending)
        assert isinstance(error, ConnectionLost)
        for each in ("it broke", "no daemon answers", text):
            assert each in str(error)


class Conversation(RuleBasedStateMachine):
    """A client and a daemon over connections that break at any message. The daemon knows tasks by their ids."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol = Protocol(1e9)
        self.to_daemon: list[list[Any]] = []
        self.to_client: list[bytes] = []
        self.tasks: dict[bytes, list[Any]] = {}  # what the daemon has, durably: the submit of each
        self.ended: set[bytes] = set()
        self.watching: set[bytes] = set()
        self.counted = 0
        self.futures: list[Pending[Any]] = []
        self.calls: list[Pending[Any]] = []
        self.flushed: list[tuple[int, list[Pending[Any]]]] = []  # what a flush waits for
        self.acknowledged: set[bytes] = set()

    def _say(self, data: Outgoing) -> None:
        self.to_daemon += Decoder(ENVELOPE).feed(plain(data))

    @property
    def is_down(self) -> bool:
        return self.protocol.down is not None

    @precondition(lambda self: not self.is_down)
    @rule(durable=st.booleans())
    def submits(self, durable: bool) -> None:
        pending: Pending[Any] = Pending(durable)
        self._say(self.protocol.submit(pending, f"t{len(self.futures)}", CALL, None))
        (self.futures if durable else self.calls).append(pending)

    @rule()
    def flushes(self) -> None:
        self.flushed.append((self.protocol.window.submitted, list(self.futures)))

    @precondition(lambda self: self.to_daemon)
    @rule()
    def daemon_reads(self) -> None:
        message = self.to_daemon.pop(0)
        if message[0] == SUBMIT:
            self.counted += 1
            assert self.tasks.setdefault(message[1], message) == message, "the same id, the same content"
            self._watch(message[1])
        elif message[0] == REQUEST:
            self.to_client.append(encode((RESPONSE, message[1], None)))
            self._watch(message[3]["id"])

    def _watch(self, key: bytes) -> None:
        if key in self.ended:
            self.to_client.append(completed(key, key))
        self.watching.add(key)

    @rule()
    def daemon_acknowledges(self) -> None:
        self.to_client.append(encode((ACCEPTED, self.counted)))

    @precondition(lambda self: len(self.tasks) > len(self.ended))
    @rule(data=st.data())
    def task_ends(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.tasks.keys() - self.ended)))
        self.ended.add(key)
        if key in self.watching:
            self.to_client.append(completed(key, key))

    @precondition(lambda self: self.to_client and not self.is_down)
    @rule()
    def client_reads(self) -> None:
        self.protocol.receive(self.to_client.pop(0))
        if not self.is_down:
            self._say(self.protocol.watch_more())

    @precondition(lambda self: not self.is_down and self.protocol.unended)
    @rule()
    def breaks(self) -> None:
        self.protocol.interrupt(BROKE)
        if self.protocol.lost is not None:  # there were calls alone: a client takes another connection
            assert all(each.outcome is not None for each in (*self.futures, *self.calls))
            self.protocol = Protocol(1e9)
            self.flushed.clear()
        self.to_daemon.clear()
        self.to_client.clear()
        self.watching.clear()
        self.counted = 0

    @precondition(lambda self: self.is_down)
    @rule()
    def resumes(self) -> None:
        data = self.protocol.resume("")
        assert set(ids(sent(data, SUBMIT))) <= {each.key for each in self.futures if each.outcome is None}
        self._say(data)

    @invariant()
    def nothing_is_taken_for_acknowledged_that_the_daemon_has_not(self) -> None:
        window = self.protocol.window
        for pending in self.protocol.unended:
            if pending.durable and pending.number <= window.acknowledged:
                assert pending.key in self.tasks
        for count, futures in self.flushed:
            if window.acknowledged >= count:
                assert all(each.key in self.tasks for each in futures)

    @invariant()
    def every_outcome_is_the_tasks_own(self) -> None:
        for pending in self.futures:
            if pending.outcome is not None:
                assert pending.value() == pending.key
        for call in self.calls:
            if call.outcome is not None:
                assert isinstance(call.outcome, TaskLost) or call.value() == call.key

    def teardown(self) -> None:
        """The daemon stays, and everything ends."""
        if self.is_down:
            self.resumes()
        for _ in range(4):
            while self.to_daemon:
                self.daemon_reads()
            for key in self.tasks.keys() - self.ended:
                self.ended.add(key)
                self.to_client.append(completed(key, key))
            self.daemon_acknowledges()
            while self.to_client:
                self.client_reads()
        assert self.protocol.lost is None
        assert all(each.outcome is not None for each in self.futures)
        assert self.protocol.window.unanswered == 0
        self.every_outcome_is_the_tasks_own()


Conversation.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
test_no_order_of_losses_loses_anything = Conversation.TestCase

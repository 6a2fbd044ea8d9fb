"""A client that remembers: what it has sent, what was acknowledged, and each end that it was told.

It speaks the protocol itself, so that it knows to the message what it was promised before a connection broke. One
witness outlives many daemons: to each it connects anew, asks for the ends of all that it has been promised, and sends
what was not acknowledged once more, under its old id.
"""

from __future__ import annotations

import os
import random
import select
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack

from poolmgr.model import new_task_id
from poolmgr.wire.framing import ANSWER, Decoder, encode
from poolmgr.wire.messages import (
    ACCEPTED,
    COMPLETED,
    FAILED,
    HELLO,
    PROTOCOL_VERSION,
    REFUSAL,
    REFUSED,
    REQUEST,
    SUBMIT,
)
from poolmgr.wire.values import pack, pack_call
from scripts.proofs.marks import result

IN_FLIGHT: Final = 60  # tasks of one witness that have not ended
_LOOK_S: Final = 0.02

# How often each kind is drawn, its options, and the arguments of ``marks.work`` behind the number.
KINDS: Final[dict[str, tuple[int, dict[str, Any], tuple[float, int, int, bytes]]]] = {
    "short": (50, {}, (0.0, 0, 16, b"")),
    "long": (5, {}, (0.03, 0, 16, b"")),
    "failing once": (8, {}, (0.0, 1, 16, b"")),
    "failing always": (4, {"max_retries": 1}, (0.0, 1_000_000, 16, b"")),
    "delayed": (8, {"delay_s": 0.3}, (0.0, 0, 16, b"")),
    "once": (6, {"restartable": False}, (0.002, 0, 16, b"")),
    "cancelled": (6, {"delay_s": 0.1}, (0.0, 0, 16, b"")),
    "fleeting": (6, {"result_ttl_s": 0.1}, (0.0, 0, 16, b"")),
    "middling": (3, {}, (0.0, 0, 5_000, bytes(5_000))),
    "large": (4, {}, (0.0, 0, 100_000, bytes(100_000))),
}


@dataclass(slots=True, eq=False)
class Sent:
    """One task, from what was asked for to what came of it."""

    id: bytes
    kind: str
    message: bytes  # the SUBMIT
    result: bytes  # the payload, where it completes
    acknowledged: bool = False
    end: tuple[str, bytes] | None = None  # the state, and the outcome
    ended_at_mark: int = 0  # the size of the file of marks when the end was told
    gone: bool = False  # the daemon does not know it, and is right: the result has outlived its time


class Witness:
    """One client, through all of its connections.

    Args:
        path: of the socket.
        marks: the file in which handlers leave their marks.
        seed: of what it sends, and when.
    """

    def __init__(self, path: Path, marks: Path, seed: str) -> None:
        self.sent: dict[bytes, Sent] = {}
        self.wrong: Counter[str] = Counter()  # what must not be, as soon as it was told
        self.refused: Counter[str] = Counter()  # refusals of submits, by their codes
        self._path = path
        self._marks = marks
        self._chance = random.Random(seed)
        self._numbers: Iterator[int] = iter(range(self._chance.randrange(1 << 40), 1 << 62))
        self._unfinished: dict[bytes, Sent] = {}
        self._order: list[Sent] = []  # of this connection's submits
        self._accepted = 0
        self._asked: dict[int, tuple[str, Sent]] = {}  # by the number of the request
        self._requests = 0
        self._to_send = 0
        self._sock: socket.socket  # the thread's
        self._thread: threading.Thread | None = None
        self._leave = threading.Event()

    # ------------------------------------------------------------------------------------------ one connection

    def connect(self, to_send: int) -> None:
        """Talk to the daemon from a thread, until the connection ends or ``leave``; send so many new tasks."""
        self._order, self._accepted, self._asked = [], 0, {}
        self._to_send = to_send
        self._leave.clear()
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Close the connection, if it is not broken yet."""
        self._leave.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def satisfied(self) -> bool:
        """It has sent all that it was to send, and knows the end of each."""
        return not self._to_send and not self._unfinished

    def _talk(self) -> None:
        decoder = Decoder(ANSWER)
        with socket.socket(socket.AF_UNIX) as sock:
            self._sock = sock
            try:
                sock.connect(str(self._path))
                self._greet()
                while not self._leave.is_set():
                    if select.select([sock], [], [], _LOOK_S)[0]:
                        data = sock.recv(1 << 18)
                        if not data:
                            return
                        for message in decoder.feed(data):
                            self._take(message)
                    self._send_more()
            except (ConnectionError, FileNotFoundError):
                pass  # it was killed; what it had said before, has been read

    def _greet(self) -> None:
        hello = encode((HELLO, PROTOCOL_VERSION, "client", {"name": "witness", "pid": os.getpid()}))
        self._sock.sendall(hello)
        for sent in list(self._unfinished.values()):
            if sent.acknowledged:
                self._ask("watch", sent)
            else:
                self._submit(sent)

    def _ask(self, command: str, sent: Sent, **more: Any) -> None:
        self._requests += 1
        self._asked[self._requests] = (command, sent)
        self._sock.sendall(encode((REQUEST, self._requests, command, {"id": sent.id, **more})))

    def _submit(self, sent: Sent) -> None:
        self._order.append(sent)
        self._sock.sendall(sent.message)
        if sent.kind == "cancelled":
            self._ask("cancel", sent, kill=False)

    def _send_more(self) -> None:
        for _ in range(min(self._chance.randrange(1, 20), self._to_send, IN_FLIGHT - len(self._unfinished))):
            self._to_send -= 1
            sent = self._draw()
            self.sent[sent.id] = self._unfinished[sent.id] = sent
            self._submit(sent)

    def _draw(self) -> Sent:
        (kind,) = self._chance.choices(list(KINDS), [weight for weight, _, _ in KINDS.values()])
        _, options, (seconds, failures, size, padding) = KINDS[kind]
        number, id = next(self._numbers), new_task_id()
        payload = pack_call((number, seconds, failures, size, padding), {})
        message = encode((SUBMIT, id, "work", payload, msgpack.packb(options), True))
        return Sent(id, kind, message, pack(result(number, size)))

    # ------------------------------------------------------------------------------------------ what it is told

    def _take(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == ACCEPTED:
            for sent in self._order[self._accepted : message[1]]:
                sent.acknowledged = True
            self._accepted = message[1]
        elif kind == REFUSED:
            self._refused(message[1], message[2])
        elif kind == COMPLETED:
            self._ended(message[1], "completed", message[2])
        elif kind == FAILED:
            self._ended(message[1], message[2], message[4])
        elif kind == REFUSAL:
            command, sent = self._asked.pop(message[1])
            if command == "watch":
                self._unknown(sent, message[2])

    def _refused(self, id: bytes, code: str) -> None:
        sent = self.sent[id]
        if sent not in self._order:  # it was watched, and its end is not kept any more
            self._unknown(sent, code)
            return
        self.refused[code] += 1
        self._order[self._order.index(sent)] = Sent(id, "refused", b"", b"")  # what counts it, promises nothing
        if not sent.acknowledged:
            del self.sent[id]
            self._unfinished.pop(id, None)

    def _ended(self, id: bytes, state: str, outcome: bytes) -> None:
        sent = self.sent[id]
        sent.ended_at_mark = sent.ended_at_mark or self._marks.stat().st_size
        if sent.end not in (None, (state, outcome)):
            self.wrong["told two ends"] += 1
        sent.end = (state, outcome)
        self._unfinished.pop(id, None)

    def _unknown(self, sent: Sent, code: str) -> None:
        """The daemon can say nothing of a task that it has acknowledged."""
        self._unfinished.pop(sent.id, None)
        if sent.kind == "fleeting":
            sent.gone = True
        else:
            self.wrong[f"acknowledged, and then {code}"] += 1

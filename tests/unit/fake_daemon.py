"""A daemon for the tests of the clients: it speaks the protocol on a Unix socket, and its workers are this file.

A thread for each connection reads, answers, and writes blocking, as a daemon does that is as slow as its client.
What a task does is in its name (``_HANDLERS``); a test may also send any message itself.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from queue import Queue
from types import TracebackType
from typing import Any, Self

from poolmgr.wire.framing import ENVELOPE, Decoder, encoder
from poolmgr.wire.messages import (
    ACCEPTED,
    COMPLETED,
    EVENT,
    FAILED,
    HELLO,
    PROGRESS,
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
from poolmgr.wire.values import pack, unpack_call

GRACE_S = 10.0  # nothing that a test waits for takes as long


class Peer:
    """One connection, as the daemon sees it."""

    def __init__(self, daemon: FakeDaemon, sock: socket.socket) -> None:
        self.daemon = daemon
        self.sock = sock
        self.submits = 0
        self.waited = False  # the submit that came last has a place
        # Tasks that wait for ``release``, by id: their arguments. One with "begun" has, and ends when it is cancelled.
        self.held: dict[bytes, list[Any]] = {}
        self._pack = encoder()
        self._lock = threading.Lock()

    def send(self, *messages: Any) -> None:
        with self._lock:
            self.sock.sendall(b"".join([self._pack(each) for each in messages]))

    def release(self) -> None:
        """Complete what is held."""
        for task_id, args in tuple(self.held.items()):
            del self.held[task_id]
            self.send((COMPLETED, task_id, pack(args[0])))

    def serve(self) -> None:
        decoder = Decoder(ENVELOPE)
        try:
            while data := self.sock.recv(1 << 18):
                self.daemon.reads.wait(GRACE_S)
                answers: list[Any] = []
                for message in one_by_one(decoder.feed(data)):
                    self.daemon.heard.put(message)
                    _ON[message[0]](self, message, answers)
                if answers:
                    self.send(*answers)
        except OSError:
            pass
        finally:
            self.daemon.gone.put(self)
            self.sock.close()

    def on_hello(self, message: list[Any], answers: list[Any]) -> None:
        answers.append((WELCOME, self.daemon.version, {"pid": os.getpid(), "epoch": 1, **self.daemon.info}))

    def on_submit(self, message: list[Any], answers: list[Any]) -> None:
        _, task_id, name, payload, _, _, *waited = message
        self.waited = waited == [True]
        self.submits += 1
        args, _ = unpack_call(payload)
        answers += _HANDLERS[name](self, task_id, args)
        if self.daemon.acknowledges:
            answers.append((ACCEPTED, self.submits))

    def on_request(self, message: list[Any], answers: list[Any]) -> None:
        _, number, command, arguments = message
        if command in self.daemon.answers:
            answers.append((RESPONSE, number, self.daemon.answers[command]))
        elif command == "chunks":
            answers += self.on_chunks(number, arguments)
        elif command == "cancel":
            args = self.held.pop(arguments["id"], None)
            answers.append((RESPONSE, number, args is not None and args != ["begun"]))
            if args is not None:
                answers.append((FAILED, arguments["id"], "cancelled", "cancelled", pack({"message": "cancelled"})))
        elif command == "watch":
            self.daemon.watched.put(arguments["id"])
            if not self.daemon.remembers:
                answers.append((REFUSAL, number, "not_found", "no such task"))
                return
            answers.append((RESPONSE, number, None))
            if (end := self.daemon.ends.get(arguments["id"])) is not None:
                answers.append(end)
        elif command == "events":
            answers.append((RESPONSE, number, None))
            answers += [(EVENT, name, 1.5, {"n": n}) for n, name in enumerate(("task-started", "task-completed"))]
        else:
            answers.append((REFUSAL, number, "not_found", f"no {command}"))

    def on_chunks(self, number: int, arguments: dict[str, Any]) -> list[Any]:
        """Two at a time, of what a task named "stream" was to yield; one that is None breaks the connection, once."""
        if arguments.get("detach"):
            return [(RESPONSE, number, None)]
        if arguments["offset"] == self.daemon.stands_at:
            return []
        chunks, offset = self.daemon.streams.get(arguments["id"]), arguments["offset"]
        if chunks is None:
            return [(REFUSAL, number, "not_found", "no such task")]
        if offset < self.daemon.dropped:
            return [(REFUSAL, number, "chunks_dropped", "too late")]
        some = chunks[offset : offset + 2]
        if None in some:
            chunks.remove(None)
            raise ConnectionAbortedError
        following = offset + len(some)
        told = {"chunks": [pack(each) for each in some], "next": following, "ended": following == len(chunks)}
        return [(RESPONSE, number, told)]


def one_by_one(messages: list[list[Any]]) -> Iterator[list[Any]]:
    """The same, with SUBMITs for each SUBMIT_MANY."""
    for message in messages:
        if message[0] == SUBMIT_MANY:
            _, ids, name, payloads, *others = message
            yield from ([SUBMIT, id, name, payload, *others] for id, payload in zip(ids, payloads, strict=True))
        else:
            yield message


def _hold(peer: Peer, task_id: bytes, args: list[Any]) -> list[Any]:
    peer.held[task_id] = args
    return []


def _fail(peer: Peer, task_id: bytes, args: list[Any]) -> list[Any]:
    told = {"type": "ValueError", "message": str(args[0]), "traceback": "Traceback (most recent call last): ..."}
    return [(FAILED, task_id, "dead", "task_failed", pack(told))]


def _progress(peer: Peer, task_id: bytes, args: list[Any]) -> list[Any]:
    return [(PROGRESS, task_id, 0.5, "half"), *_hold(peer, task_id, args)]


def _garbage(peer: Peer, task_id: bytes, args: list[Any]) -> list[Any]:
    peer.sock.sendall(b"\xc1\xc1\xc1")
    return []


def _die(peer: Peer, task_id: bytes, args: list[Any]) -> list[Any]:
    peer.send((ACCEPTED, peer.submits))
    peer.sock.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


def _echo_if_it_waited(peer: Peer, task_id: bytes, args: list[Any]) -> list[Any]:
    if peer.waited:
        return [(COMPLETED, task_id, pack(args[0]))]
    return [(REFUSED, task_id, "queue_full", "so many wait as may")]


def _stream(peer: Peer, task_id: bytes, args: list[Any]) -> list[Any]:
    chunks, *ends = args
    peer.daemon.streams[task_id] = list(chunks)
    if not ends:
        return _hold(peer, task_id, args)
    end = _fail(peer, task_id, ends)[0] if ends[0] == "fails" else (COMPLETED, task_id, pack(ends[0]))
    peer.daemon.ends[task_id] = end
    return [end]


def _same(peer: Peer, task_id: bytes, args: list[Any]) -> list[Any]:
    return [(SAME, task_id, args[0]), (COMPLETED, task_id, pack("the first"))]


_HANDLERS: dict[str, Callable[[Peer, bytes, list[Any]], list[Any]]] = {
    "echo": lambda peer, task_id, args: [(COMPLETED, task_id, pack(args[0]))],
    "refuse": lambda peer, task_id, args: [(REFUSED, task_id, "unknown_task", "no such handler")],
    "patient": _echo_if_it_waited,
    "damaged": lambda peer, task_id, args: [(COMPLETED, task_id, b"\xc1")],
    "short": lambda peer, task_id, args: [(COMPLETED, task_id)],
    "swallow": lambda peer, task_id, args: [],
    "hold": _hold,
    "stream": _stream,
    "same": _same,
    "fail": _fail,
    "progress": _progress,
    "garbage": _garbage,
    "die": _die,
}
_ON = {HELLO: Peer.on_hello, SUBMIT: Peer.on_submit, REQUEST: Peer.on_request}


class FakeDaemon:
    """Listens on ``path`` until it is stopped.

    Attributes:
        heard: every message from every client.
        peers: each new connection.
        gone: each ended one.
        reads: cleared, it takes in nothing more.
        acknowledges: whether it sends ACCEPTED by itself.
        answers: the values of requests, by command.
        ends: the message that "watch" pushes, by task id.
        watched: every task that a client has asked to watch.
        remembers: whether it knows the tasks that it is asked to watch.
        streams: what is yielded, by task id.
        stands_at: who asks for the chunks from this one on gets no answer.
        dropped: chunks below are not kept.
    """

    def __init__(
        self,
        path: str,
        *,
        version: int = PROTOCOL_VERSION,
        info: dict[str, Any] | None = None,
        acknowledges: bool = True,
        ends: dict[bytes, Any] | None = None,
        remembers: bool = True,
    ) -> None:
        self.path = path
        self.version = version
        self.info = info or {}
        self.acknowledges = acknowledges
        self.reads = threading.Event()
        self.reads.set()
        self.answers: dict[str, Any] = {}
        self.ends: dict[bytes, Any] = ends or {}
        self.watched: Queue[bytes] = Queue()
        self.remembers = remembers
        self.streams: dict[bytes, list[Any]] = {}
        self.stands_at: int | None = None
        self.dropped = 0
        self.heard: Queue[list[Any]] = Queue()
        self.peers: Queue[Peer] = Queue()
        self.gone: Queue[Peer] = Queue()
        self._threads: list[threading.Thread] = []
        self._open: list[Peer] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._spawn(self._accept)

    def peer(self) -> Peer:
        """The next new connection."""
        return self.peers.get(timeout=GRACE_S)

    def hear(self, kind: int) -> list[Any]:
        """The next message of this type; those before it are dropped."""
        while (message := self.heard.get(timeout=GRACE_S))[0] != kind:
            pass
        return message

    def stop(self) -> None:
        """Hang up on everybody, as a daemon that was killed. Safe to call twice."""
        self.reads.set()
        for sock in (self._listener, *(each.sock for each in self._open)):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(GRACE_S)
        self._listener.close()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(self, sock)
            self._open.append(peer)
            self.peers.put(peer)
            self._spawn(peer.serve)

    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

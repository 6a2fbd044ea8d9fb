"""A worker that somebody else might have written: from docs/protocol.md alone, with nothing of poolmgr.

``MISBEHAVE`` in its environment names one way in which it breaks the protocol, so that the check can be checked.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import msgpack

TASKS, RESULTS, CONTROL, PAGE = 3, 4, 5, 6
START, START_MANY, RECALL, INTERRUPT, CREDIT = 40, 41, 50, 51, 54
READY, DONE, RAISED, RECALLED, CHUNK, RELEASED, HEARTBEAT = 60, 61, 62, 64, 67, 68, 70
MISBEHAVE = os.environ.get("MISBEHAVE", "")


class Interrupted(Exception):
    """The soft time-out of the task that runs."""


class GivesWay(Exception):
    """The task that runs is preempted."""


class Worker:
    """One task after the other."""

    def __init__(self) -> None:
        self.page = mmap.mmap(PAGE, 4096)
        self.running = 0
        self.recalled = 0
        self.waiting: list[list[Any]] = []
        self.dropped: list[int] | None = None
        self.credits: dict[int, list[int]] = {}
        self.preempted = 0  # a fence

    def write(self, *message: Any) -> None:
        data = msgpack.packb(message)
        while data:
            data = data[os.write(RESULTS, data) :]

    def beat(self) -> None:
        packet = msgpack.packb([HEARTBEAT])
        while True:
            if MISBEHAVE != "no-heartbeat" and not (MISBEHAVE == "busy-no-heartbeat" and self.running):
                try:
                    os.write(CONTROL, packet)
                except BlockingIOError:
                    pass
            time.sleep(float(os.environ["POOLMGR_HEARTBEAT_S"]))

    def publish(self, fence: int, begun_at: float) -> None:
        if MISBEHAVE != "no-page":
            struct.pack_into("d", self.page, 8, begun_at)
            struct.pack_into("Q", self.page, 0, fence)

    def read_control(self) -> str:
        """Take in all that there is to read; the reason of an interrupt for the task that runs, or ''."""
        reason = ""
        while True:
            try:
                packet = os.read(CONTROL, 65536)
            except BlockingIOError:
                return reason
            if not packet:
                return reason
            message = msgpack.unpackb(packet)
            if message[0] == RECALL and MISBEHAVE != "deaf-to-recalls":
                self.recalled = max(self.recalled, message[1])
                self.dropped = [
                    *(self.dropped or []),
                    *(start[1] for start in self.waiting if start[1] <= self.recalled),
                ]
                self.waiting = [start for start in self.waiting if start[1] > self.recalled]
            elif message[0] == CREDIT:
                self.credits[message[1]] = message[2:4]
            elif message[0] == INTERRUPT and message[2] == "preempt":
                self.preempted = message[1]
            elif message[0] == INTERRUPT and (message[1] == self.running or MISBEHAVE == "late-interrupt"):
                reason = message[2]

    def tell_dropped(self) -> None:
        if self.dropped is not None:
            dropped, self.dropped = self.dropped, None
            self.write(RECALLED, dropped)

    def on_signal(self, *_: Any) -> None:
        if self.read_control() == "soft_timeout":
            raise Interrupted

    def serve(self) -> None:
        threading.Thread(target=self.beat, daemon=True).start()
        if MISBEHAVE != "ends-on-sigusr1":
            signal.signal(signal.SIGUSR1, self.on_signal)
        else:
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        self.write(READY, 2 if MISBEHAVE == "wrong-version" else 1, os.getpid(), ["third-party"], INFO)
        unpacker = msgpack.Unpacker(max_buffer_size=64 << 20)
        while data := os.read(TASKS, 1 << 16):
            if MISBEHAVE == "whole-messages-only":
                self.waiting.append(msgpack.unpackb(data))
            else:
                unpacker.feed(data)
                for message in unpacker:
                    self.waiting += starts_of(message)
            if MISBEHAVE == "wrong-order":
                self.waiting.reverse()
            while self.waiting:
                self.run(self.waiting.pop(0))
        if MISBEHAVE == "lingers":
            time.sleep(60)
        if MISBEHAVE == "exits-with-1":
            sys.exit(1)

    def run(self, message: list[Any]) -> None:
        if message[0] != START:
            return
        _, fence, _id, _attempt, name, payload, _timeout_s, _soft_timeout_s, *more = message
        resume, *credit = more[:3] if more else (None, 10, 50 << 20)
        begun_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        try:
            self.publish(fence, begun_at)
            self.read_control()
            self.tell_dropped()
            if fence <= self.recalled:
                self.publish(0, begun_at)
                self.write(RECALLED, [fence])
                return
            result = msgpack.packb(self.call(fence, name, payload, resume or [0, 0, None], credit))
        except GivesWay:
            self.running = 0
            self.write(RELEASED, fence, begun_at, time.clock_gettime(time.CLOCK_BOOTTIME))
        except BaseException as error:
            self.running = 0
            self.tell(fence, begun_at, error)
        else:
            ended_at = time.time() if MISBEHAVE == "wall-clock" else time.clock_gettime(time.CLOCK_BOOTTIME)
            self.write(DONE, fence + (MISBEHAVE == "wrong-fence"), begun_at, ended_at, result)
            if MISBEHAVE == "tells-twice":
                self.write(DONE, fence, begun_at, ended_at, result)
        self.tell_dropped()

    def call(self, fence: int, name: str, payload: bytes, resume: list[Any], credit: list[int]) -> Any:
        if name not in HANDLERS:
            if MISBEHAVE == "dies-of-unknown-tasks":
                os._exit(1)
            raise Failed("bad_arguments" if MISBEHAVE == "wrong-code" else "unknown_task", name)
        try:
            args, kwargs = [*msgpack.unpackb(payload), {}][:2]
        except Exception as error:
            raise Failed("bad_arguments", str(error)) from error
        self.running = fence
        try:
            if name == "third.count":
                self.credits[fence] = credit
                return self.stream(fence, count(args[0], resume[2]), *resume[:2])
            return HANDLERS[name](*args, **kwargs)
        finally:
            self.running = 0

    def stream(self, fence: int, chunks: Iterator[tuple[Any, bytes | None]], seq: int, kept: int) -> Any:
        if MISBEHAVE == "forgets-what-is-kept":
            kept = seq
        sent = 0
        for value, checkpoint in chunks:
            while seq >= kept and not self.may_send(fence, seq, sent):
                self.read_control()
                if self.preempted == fence and MISBEHAVE != "is-not-preempted":
                    raise GivesWay
                time.sleep(0.001)
            if seq >= kept:
                number = seq + (MISBEHAVE == "numbers-from-one")
                payload = msgpack.packb(value)
                sent += len(payload)
                self.write(CHUNK, fence, number, payload, checkpoint)
            seq += 1
        return seq

    def may_send(self, fence: int, seq: int, sent: int) -> bool:
        up_to, size = self.credits[fence]
        by_number = seq < up_to or MISBEHAVE == "ignores-credit"
        return by_number and (sent < size or MISBEHAVE == "ignores-bytes")

    def tell(self, fence: int, begun_at: float, error: BaseException) -> None:
        code = "timeout" if isinstance(error, Interrupted) else "task_failed"
        if isinstance(error, Failed):
            code = error.code
        types = [each.__qualname__ for each in type(error).__mro__[:-1]]
        text = "".join(traceback.format_exception(error))
        failure = msgpack.packb({"type": types[0], "message": str(error), "traceback": text})
        self.write(RAISED, fence, begun_at, time.clock_gettime(time.CLOCK_BOOTTIME), code, types, failure, None)


class Failed(Exception):
    """A failure with a code of the protocol's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def add(a: int, b: int = 0) -> int:
    return a + b


def whoami() -> int:
    return os.getpid()


def nap(seconds: float, begun: str = "") -> float:
    if begun:
        open(begun, "x").close()
    time.sleep(seconds)
    return seconds


def count(end: int, begin: bytes | None = None) -> Iterator[tuple[Any, bytes | None]]:
    """Numbers, with a checkpoint behind every fourth."""
    first = msgpack.unpackb(begin) if begin is not None else 0
    for number in range(first + (MISBEHAVE == "goes-on-elsewhere" and first > 0), end):
        yield [number], msgpack.packb(number + 1) if number % 4 == 3 else None


def starts_of(message: list[Any]) -> list[list[Any]]:
    """Those that a START_MANY stands for; of anything else, that."""
    if message[0] != START_MANY:
        return [message]
    _, fence, ids, name, payloads, *limits = message
    starts = [
        [START, fence + at, id, 1, name, payload, *limits[:2]]
        for at, (id, payload) in enumerate(zip(ids, payloads, strict=True))
    ]
    if MISBEHAVE == "mixes-them-up":
        starts.reverse()
        for at, start in enumerate(starts):
            start[1] = fence + at
    return starts[:1] if MISBEHAVE == "forgets-the-others" else starts


INFO = {"streams": MISBEHAVE != "knows-no-streams", "many": True}
HANDLERS: dict[str, Callable[..., Any]] = {
    "third.add": add, "third.whoami": whoami, "third.nap": nap, "third.count": count,
}  # fmt: skip

if __name__ == "__main__":
    Worker().serve()

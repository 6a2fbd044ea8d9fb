"""Handlers that are streams, and handlers that make checkpoints. Those that wait open a FIFO."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

from poolmgr import Chunk, Preempted, SoftTimeout, current_task, task


def wait_at(gate: str) -> None:
    """Until somebody opens the FIFO for writing. An interrupt strikes in here."""
    current_task().progress(0.0, "waits")
    open(gate).close()


def note(path: str, text: str) -> None:
    with open(path, "x") as file:
        file.write(text)


# ------------------------------------------------------------------------------------------ streams


@task
def texts(count: int, every: int = 0, gate: str = "", at: int = -1) -> Generator[Any, None, Any]:
    """``count`` texts, with a checkpoint after each ``every``; before number ``at`` it waits."""
    for number in range(current_task().restored or 0, count):
        if number == at and gate:
            wait_at(gate)
        text = f"text {number}" * (1 + number % 5)
        yield Chunk(text, checkpoint=number + 1) if every and (number + 1) % every == 0 else text
    return count


@task
async def texts_async(count: int, every: int = 0, gate: str = "", at: int = -1) -> AsyncIterator[Any]:
    """The same."""
    for number in range(current_task().restored or 0, count):
        if number == at and gate:
            wait_at(gate)
        if number % 3 == 0:
            await asyncio.sleep(0)
        text = f"text {number}" * (1 + number % 5)
        yield Chunk(text, checkpoint=number + 1) if every and (number + 1) % every == 0 else text


@task
def texts_and_checkpoints(count: int, gate: str = "", at: int = -1) -> Iterator[str]:
    """As ``texts``; each third time it makes a checkpoint by itself."""
    for number in range(current_task().restored or 0, count):
        if number == at and gate:
            wait_at(gate)
        if number % 3 == 0:
            current_task().checkpoint(number)
        yield f"text {number}" * (1 + number % 5)


@task
def told_in_between(count: int) -> Iterator[int]:
    for number in range(count):
        current_task().progress(number / count, str(number))
        yield number


@task
def of_size(*sizes: int) -> Iterator[bytes]:
    for number, size in enumerate(sizes):
        yield bytes([number]) * size


@task
def not_carried(at: int, ended: str) -> Iterator[Any]:
    try:
        for number in range(at + 1):
            yield {"x": [threading.Lock()]} if number == at else number
    finally:
        current_task().checkpoint("behind what was lost")
        open(ended, "x").close()


@task
def checkpoint_not_carried() -> Iterator[Any]:
    yield Chunk(1, checkpoint={"y": threading.Lock()})


@task
def fails_at(at: int) -> Iterator[int]:
    yield from range(at)
    raise LookupError(f"at {at}")


@task
def cleans_up(ended: str, gate: str = "") -> Iterator[int]:
    """Without end. Says whether it was closed, and how."""
    number = 0
    try:
        while True:
            yield number
            number += 1
            if gate and number == 2:
                wait_at(gate)
    except BaseException as error:
        note(ended, f"{type(error).__name__} {current_task().preempted}")
        raise


@task
async def cleans_up_async(ended: str) -> AsyncIterator[int]:
    number = 0
    try:
        while True:
            yield number
            number += 1
    except BaseException as error:
        note(ended, f"{type(error).__name__} {current_task().preempted}")
        raise


@task
def saves_as_it_is_closed() -> Iterator[int]:
    number = current_task().restored or 0
    try:
        while True:
            yield number
            number += 1
    finally:
        current_task().checkpoint(number + 1)


@task
def looks(gate: str) -> Generator[int, None, Any]:
    """Sees to its cancellation by itself: one chunk more, and a result."""
    yield 0
    wait_at(gate)
    yield 1
    if current_task().cancelled:
        yield 2
        return "was cancelled"
    return "was not"


@task
def looks_before(gate: str) -> Iterator[int]:
    yield int(current_task().cancelled)
    yield from looks(gate)


@task
def fails_as_it_is_closed() -> Iterator[int]:
    try:
        while True:
            yield 0
    finally:
        raise LookupError("in its finally")


@task
def ignores_close() -> Iterator[int]:
    for number in range(10):
        try:
            yield number
        except GeneratorExit:
            pass


@task
async def fails_as_it_is_closed_async() -> AsyncIterator[int]:
    try:
        while True:
            yield 0
    finally:
        raise LookupError("in its finally")


@task
async def ignores_cancellation() -> AsyncIterator[int]:
    for number in range(100):
        try:
            yield number
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            yield -1


@task
def goes_on(gate: str = "") -> Generator[str, None, Any]:
    """After its soft time-out: two chunks and a result."""
    told = []
    try:
        for number in range(100):
            if number == 2 and gate:
                wait_at(gate)
            yield f"before {number}"
    except SoftTimeout:
        told.append("soft")
    for number in range(2):
        yield f"after {number}"
    return told


@task
async def goes_on_async() -> AsyncIterator[str]:
    try:
        for number in range(100):
            yield f"before {number}"
    except asyncio.CancelledError:
        pass
    for number in range(2):
        yield f"after {number}"


@task
def changes_limits(depth: int) -> Iterator[Any]:
    """What it yields takes more frames to look into than it leaves."""
    sys.settrace(lambda *_: None)
    before = sys.getrecursionlimit()
    nested: Any = 0
    for _ in range(depth):
        nested = (nested,)
    sys.setrecursionlimit(len_of_stack() + 15)
    yield nested
    left = sys.getrecursionlimit()
    yield left < before
    sys.setrecursionlimit(before)
    yield "back"
    sys.setrecursionlimit(len_of_stack() + 15)


def len_of_stack() -> int:
    return sum(1 for _ in traceback.walk_stack(None))


@task
def limits() -> tuple[int, bool]:
    return sys.getrecursionlimit(), sys.gettrace() is None


def fork() -> None:
    """The child goes on, too; the parent waits for its end."""
    if child := os.fork():
        os.waitpid(child, 0)


@task
def forks() -> Generator[int, None, Any]:
    yield os.getpid()
    fork()
    yield os.getpid()
    fork()
    return os.getpid()


@task
async def forks_async() -> AsyncIterator[int]:
    yield os.getpid()
    fork()
    yield os.getpid()
    fork()


@task
def checkpoints_of_threads(count: int) -> Iterator[int]:
    """While it yields, four threads make checkpoints."""
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(0.0005):
            current_task().checkpoint("of a thread")

    threads = [threading.Thread(target=keep) for _ in range(4)]
    for thread in threads:
        thread.start()
    yield from range(count)
    ended.set()
    for thread in threads:
        thread.join()


# ------------------------------------------------------------------------------------------ no streams


@task
def returns_a_generator() -> Any:
    return (number for number in range(3))


@task
def sums(count: int, gate: str = "", at: int = -1) -> list[Any]:
    """The sum of the numbers below ``count``, with a checkpoint after each; and where it began."""
    first, total = current_task().restored or (0, 0)
    for number in range(first, count):
        if number == at and gate:
            wait_at(gate)
        total += number
        current_task().checkpoint((number + 1, total))
    return [first, total]


@task
async def sums_async(count: int, gate: str = "", at: int = -1) -> list[Any]:
    first, total = current_task().restored or (0, 0)
    async with asyncio.TaskGroup() as group:

        async def add() -> None:
            nonlocal total
            for number in range(first, count):
                if number == at and gate:
                    wait_at(gate)
                await asyncio.sleep(0)
                total += number
                current_task().checkpoint((number + 1, total))

        group.create_task(add())
    return [first, total]


@task
def swallows(gate: str) -> str:
    wait_at(gate)
    try:
        current_task().checkpoint(1)
    except BaseException as error:
        return type(error).__name__
    return "nothing"


@task
def gives_way_by_hand(gate: str) -> bool:
    if gate:
        wait_at(gate)
    if current_task().preempted or not gate:
        raise Preempted
    return False


@task
def preempted_in_a_thread(gate: str) -> list[Any]:
    wait_at(gate)
    seen: list[Any] = [current_task().preempted]

    def keep() -> None:
        current_task().checkpoint("of a thread")
        seen.append("went on")

    thread = threading.Thread(target=keep)
    thread.start()
    thread.join()
    return seen


@task
def checkpoints(*states: Any) -> list[str]:
    """What becomes of each."""
    found = []
    for state in states:
        try:
            current_task().checkpoint(threading.Lock() if state == "lock" else b"x" * state if state else state)
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
        else:
            found.append("kept")
    return found


@task
def restored() -> Any:
    return current_task().restored


@task
def leaves_a_thread(seconds: float) -> None:
    """It makes a checkpoint once the task is over."""
    mine = current_task()

    def keep() -> None:
        time.sleep(seconds)
        mine.checkpoint("too late")

    threading.Thread(target=keep, daemon=True).start()

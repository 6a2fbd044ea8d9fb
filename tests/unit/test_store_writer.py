"""The writer's thread, on a store that obeys: it waits at a gate, or refuses, when a test says so."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import pytest

from poolmgr.core.changes import Change, TasksPurged
from poolmgr.errors import StoreUnavailable
from poolmgr.store.linger import Linger
from poolmgr.store.memory import MemoryStore
from poolmgr.store.writer import ENOUGH_CHANGES, StoreWriter

FOREVER_S = 3600.0  # a test that waits this long has failed long before
PATIENCE_S = 30.0


class ObedientStore(MemoryStore):
    """Tells of every ``apply`` and waits to be let through; refuses while ``error`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.batches: list[list[int]] = []
        self.entered: SimpleQueue[None] = SimpleQueue()
        self._gate: threading.Semaphore | None = None

    def shut_gate(self) -> Callable[[], None]:
        """From now on every ``apply`` waits for one call of what is returned."""
        self._gate = threading.Semaphore(0)
        return self._gate.release

    def apply(self, changes: Sequence[Change]) -> None:
        self.entered.put(None)
        if self._gate is not None:
            assert self._gate.acquire(timeout=PATIENCE_S)
        if self.error is not None:
            raise self.error
        self.batches.append([number_in(change) for change in changes])


def change(number: int) -> Change:
    """A change that is told apart by its number; what it means does not matter here."""
    return TasksPurged((number.to_bytes(16, "big"),))


def number_in(made: Change) -> int:
    assert isinstance(made, TasksPurged)
    return int.from_bytes(made.ids[0], "big")


class Bench:
    """A writer with its store, and what it has said so far."""

    def __init__(self, retry_s: float = 0.0) -> None:
        self.store = ObedientStore()
        self.store.open()
        self._said: SimpleQueue[tuple[int, BaseException | None]] = SimpleQueue()
        self.writer = StoreWriter(self.store, lambda *said: self._said.put(said), retry_s=retry_s)

    def submit(self, *numbers: int) -> None:
        for number in numbers:
            self.writer.submit(number, [change(number)])

    def said(self) -> tuple[int, BaseException | None]:
        return self._said.get(timeout=PATIENCE_S)

    def said_nothing_more(self) -> bool:
        return self._said.empty()

    def wait_until_it_applies(self) -> None:
        self.store.entered.get(timeout=PATIENCE_S)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.store.error = None
    assert bench.writer.close(PATIENCE_S)


def refused(future: Future[Any]) -> bool:
    return isinstance(future.exception(timeout=PATIENCE_S), StoreUnavailable)


def test_a_commit_is_applied_and_told(bench: Bench) -> None:
    bench.writer.start()
    bench.submit(1)
    assert bench.said() == (1, None)
    assert bench.store.batches == [[1]]


def test_what_gathers_during_a_commit_is_the_next_one(bench: Bench) -> None:
    let_through = bench.store.shut_gate()
    bench.writer.start()
    bench.submit(1)
    bench.wait_until_it_applies()
    bench.submit(2, 3, 4)
    let_through()
    let_through()
    assert [bench.said(), bench.said()] == [(1, None), (4, None)]
    assert bench.store.batches == [[1], [2, 3, 4]]


def test_a_commit_whose_companion_is_known_to_come_soon_waits_for_it(bench: Bench) -> None:
    bench.writer._linger.wait_s = PATIENCE_S
    bench.writer.start()
    bench.submit(1)
    bench.submit(2)
    assert bench.said() == (2, None)
    assert bench.store.batches == [[1, 2]]


class WaitsFromNowOn(Linger):
    """After its first commit it has each that is alone wait, for ever."""

    def did_not_wait(self, took_s: float, next_after_s: float | None) -> None:
        self.wait_s = FOREVER_S


def test_the_companion_itself_does_not_wait_for_another(bench: Bench) -> None:
    bench.writer._linger = WaitsFromNowOn()
    let_through = bench.store.shut_gate()
    bench.writer.start()
    bench.submit(1)
    bench.wait_until_it_applies()
    bench.submit(2)
    let_through()
    let_through()
    assert [bench.said(), bench.said()] == [(1, None), (2, None)]
    assert bench.store.batches == [[1], [2]]


def test_a_read_is_not_kept_waiting_for_a_companion(bench: Bench) -> None:
    bench.writer._linger.wait_s = PATIENCE_S
    bench.writer.start()
    bench.submit(1)
    assert bench.writer.read(lambda store: store).result(timeout=PATIENCE_S / 2) is bench.store
    assert bench.store.batches == [[1]]


def test_what_is_submitted_before_the_start_is_one_commit(bench: Bench) -> None:
    bench.writer.submit(1, [change(1), change(2)])
    bench.writer.submit(2, [])
    bench.writer.submit(3, [change(3)])
    bench.writer.start()
    bench.writer.start()
    assert bench.said() == (3, None)
    assert bench.store.batches == [[1, 2, 3]]


def test_a_transaction_takes_no_more_commits_once_it_is_large(bench: Bench) -> None:
    for number in range(1, 6):
        bench.writer.submit(number, [change(number)] * (ENOUGH_CHANGES // 2))
    bench.writer.start()
    assert [bench.said(), bench.said(), bench.said()] == [(2, None), (4, None), (5, None)]
    assert [set(batch) for batch in bench.store.batches] == [{1, 2}, {3, 4}, {5}]


def test_a_read_sees_what_was_submitted_before_it_and_nothing_after(bench: Bench) -> None:
    bench.submit(1, 2)
    read = bench.writer.read(lambda store: list(bench.store.batches))
    bench.submit(3)
    bench.writer.start()
    assert read.result(timeout=PATIENCE_S) == [[1, 2]]
    assert [bench.said(), bench.said()] == [(2, None), (3, None)]


def test_a_read_runs_on_the_store_in_the_thread(bench: Bench) -> None:
    bench.writer.start()
    store, thread = bench.writer.read(lambda store: (store, threading.current_thread())).result(PATIENCE_S)
    assert store is bench.store
    assert thread is not threading.current_thread()


def test_a_read_that_fails_fails_alone(bench: Bench) -> None:
    bench.writer.start()
    read = bench.writer.read(lambda store: 1 // 0)
    assert isinstance(read.exception(timeout=PATIENCE_S), ZeroDivisionError)
    bench.submit(1)
    assert bench.said() == (1, None)


def test_a_cancelled_read_is_left_out(bench: Bench) -> None:
    ran = []
    read = bench.writer.read(lambda store: ran.append("cancelled"))
    assert read.cancel()
    bench.writer.start()
    bench.writer.read(lambda store: ran.append("kept")).result(timeout=PATIENCE_S)
    assert ran == ["kept"]


def test_a_refused_commit_is_told_and_tried_again_until_it_is_in(bench: Bench) -> None:
    let_through = bench.store.shut_gate()
    error = bench.store.error = StoreUnavailable("the disk is full")
    bench.submit(1, 2)
    bench.writer.start()
    for _ in range(3):
        let_through()
        assert bench.said() == (1, error)
    bench.store.error = None  # the next try is at the gate, or on its way there
    let_through()
    assert bench.said() == (2, None)
    assert bench.store.batches == [[1, 2]]
    assert bench.said_nothing_more()


def test_what_comes_while_the_store_refuses_follows_in_order(bench: Bench) -> None:
    let_through = bench.store.shut_gate()
    error = bench.store.error = StoreUnavailable("the disk is full")
    bench.writer.start()
    bench.submit(1)
    bench.wait_until_it_applies()
    bench.submit(2, 3)
    let_through()
    assert bench.said() == (1, error)
    bench.wait_until_it_applies()
    bench.store.error = None
    let_through()
    assert bench.said() == (3, None)
    assert bench.store.batches == [[1, 2, 3]]


def test_reads_behind_a_refused_commit_fail_with_its_error(bench: Bench) -> None:
    let_through = bench.store.shut_gate()
    error = bench.store.error = StoreUnavailable("the disk is full")
    before = bench.writer.read(lambda store: "before")
    bench.submit(1)
    behind = bench.writer.read(lambda store: "behind")
    bench.submit(2)
    bench.writer.start()
    assert before.result(timeout=PATIENCE_S) == "before"
    let_through()
    assert behind.exception(timeout=PATIENCE_S) is error
    assert bench.said() == (1, error)
    bench.store.error = None
    let_through()
    assert bench.said() == (2, None)
    after = bench.writer.read(lambda store: "after")
    assert after.result(timeout=PATIENCE_S) == "after"


def test_an_error_that_no_store_should_raise_loses_nothing_either(bench: Bench) -> None:
    let_through = bench.store.shut_gate()
    error = bench.store.error = ZeroDivisionError()
    bench.writer.start()
    bench.submit(1)
    let_through()
    assert bench.said() == (1, error)
    bench.store.error = None
    let_through()
    assert bench.said() == (1, None)


def test_a_close_writes_what_is_waiting() -> None:
    bench = Bench()
    let_through = bench.store.shut_gate()
    bench.writer.start()
    bench.submit(1)
    bench.wait_until_it_applies()
    bench.submit(2, 3)
    read = bench.writer.read(lambda store: len(bench.store.batches))
    assert not bench.writer.close(timeout_s=0)  # it is still at the gate
    let_through()
    let_through()
    assert bench.writer.close(PATIENCE_S)
    assert bench.store.batches == [[1], [2, 3]]
    assert read.result(timeout=0) == 2


def test_a_close_during_the_wait_for_the_next_try_is_immediate() -> None:
    bench = Bench(retry_s=FOREVER_S)
    error = bench.store.error = StoreUnavailable("the disk is full")
    bench.writer.start()
    bench.submit(1)
    assert bench.said() == (1, error)
    read = bench.writer.read(lambda store: "too late")
    assert not bench.writer.close(PATIENCE_S)
    assert bench.said() == (1, error)  # the last try
    assert refused(read)
    assert not bench.writer.close(PATIENCE_S)


def test_the_last_try_of_a_close_may_succeed() -> None:
    bench = Bench(retry_s=FOREVER_S)
    bench.store.error = StoreUnavailable("the disk is full")
    bench.writer.start()
    bench.submit(1)
    assert bench.said() == (1, bench.store.error)
    bench.store.error = None
    assert bench.writer.close(PATIENCE_S)
    assert bench.said() == (1, None)


@pytest.mark.parametrize("started", [True, False])
def test_a_close_may_come_twice_or_before_the_start(started: bool) -> None:
    bench = Bench()
    if started:
        bench.writer.start()
    assert bench.writer.close(PATIENCE_S)
    assert bench.writer.close(PATIENCE_S)
    bench.writer.start()  # comes to nothing
    assert refused(bench.writer.read(lambda store: "closed"))
    with pytest.raises(StoreUnavailable, match="closed"):
        bench.submit(1)


def test_a_close_before_the_start_refuses_what_was_handed_over() -> None:
    bench = Bench()
    bench.submit(1)
    read = bench.writer.read(lambda store: "never")
    assert not bench.writer.close()
    assert refused(read)
    assert bench.said_nothing_more()
    assert bench.store.batches == []


def test_a_process_whose_store_has_no_thread_any_more_ends() -> None:
    """Nothing durable would ever be answered there."""
    program = """
import time
from poolmgr.store.memory import MemoryStore
from poolmgr.store.writer import StoreWriter

def broken(number, error):
    raise RuntimeError("a defect")

writer = StoreWriter(MemoryStore(), broken)
writer.start()
writer.submit(1, [])
time.sleep(100)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == os.EX_SOFTWARE
    assert "a defect" in done.stderr

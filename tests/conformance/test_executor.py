"""What ``concurrent.futures`` documents of executors and futures, of each executor: the standard library's own beside
ours, so that these tests ask for no more and no less than it does."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Future,
    ProcessPoolExecutor,
    as_completed,
    wait,
)
from concurrent.futures import Executor as StandardExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from poolmgr import Client, Executor
from scripts.proofs.pool import Pool, until
from tests.apps import callables

ROOT = Path(__file__).resolve().parents[2]

Make = Callable[..., StandardExecutor]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the standard library's executor forks


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Of a daemon with two workers."""
    with tempfile.TemporaryDirectory(prefix="pm-") as directory:
        pool = Pool(Path(directory), app="handlers", app_directory=ROOT / "tests" / "apps", workers=2)
        pool.environ["PYTHONPATH"] = str(ROOT)
        with pool, pool.client() as client:
            yield client


@pytest.fixture(params=["standard", "private", "client"], scope="module")
def make(request: pytest.FixtureRequest) -> Make:
    """Makes executors of two workers."""
    if request.param == "standard":
        return lambda **options: ProcessPoolExecutor(2, mp_context=get_context("fork"), **options)
    if request.param == "private":
        return lambda **options: Executor(2, **options)
    client = request.getfixturevalue("client")
    return lambda **options: Executor(client=client, **options)


@pytest.fixture(scope="module")
def executor(make: Make) -> Iterator[StandardExecutor]:
    """One for all tests that leave it as it was."""
    with make() as executor:
        yield executor


class Gate:
    """Calls of ``hold`` that are to go on together."""

    def __init__(self, executor: StandardExecutor, directory: Path, count: int) -> None:
        self._directory = directory
        self.futures = [executor.submit(callables.hold, str(directory), str(at)) for at in range(count)]

    def begun(self, label: int) -> bool:
        return (self._directory / f"begun{label}").exists()

    def open(self) -> None:
        (self._directory / "go").touch()


@pytest.fixture
def busy(executor: StandardExecutor, tmp_path: Path) -> Iterator[Gate]:
    """Both workers hold, and four calls wait (the standard library hands one or two on beforehand)."""
    gate = Gate(executor, tmp_path, 6)
    until(lambda: gate.begun(0) and gate.begun(1))
    yield gate
    gate.open()
    wait(gate.futures, timeout=10)


# ------------------------------------------------------------------------------------------------------ submit


def test_a_call_has_positional_and_named_arguments(executor: StandardExecutor) -> None:
    assert executor.submit(callables.add, 1, 2, fn=3, self=4).result(timeout=10) == 10


def test_a_future_is_one_of_the_standard_library(executor: StandardExecutor) -> None:
    future = executor.submit(callables.double, 2)
    assert isinstance(future, Future)
    assert future.result(timeout=10) == 4
    assert future.exception() is None
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert not future.cancel()


def test_result_and_exception_wait_so_long(busy: Gate) -> None:
    with pytest.raises(TimeoutError):
        busy.futures[0].result(timeout=0.01)
    with pytest.raises(TimeoutError):
        busy.futures[0].exception(timeout=0)


def test_what_is_called_runs_and_cannot_be_cancelled(busy: Gate) -> None:
    first = busy.futures[0]
    until(first.running)
    assert "running" in repr(first)
    assert not first.cancel()
    assert not first.done()


def test_what_waits_can_be_cancelled(busy: Gate) -> None:
    last = busy.futures[-1]
    told: list[Future[Any]] = []
    last.add_done_callback(told.append)
    assert not last.running()
    assert last.cancel()
    assert last.cancelled()
    assert last.done()
    assert last.cancel()  # again
    assert told == [last]
    with pytest.raises(CancelledError):
        last.result()
    with pytest.raises(CancelledError):
        last.exception()
    busy.open()
    assert busy.futures[0].result(timeout=10) == "0"
    assert not busy.begun(5)


def test_callbacks_have_an_order_and_may_fail(executor: StandardExecutor, caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []
    done = threading.Event()
    future = executor.submit(callables.double, 1)
    future.add_done_callback(lambda _: told.append(1))
    future.add_done_callback(lambda _: callables.fail(ValueError, "a callback's own"))
    future.add_done_callback(lambda _: told.append(2))
    future.add_done_callback(lambda _: done.set())
    assert done.wait(10)
    assert told == [1, 2]
    future.add_done_callback(lambda _: told.append(3))  # of one that has ended: at once
    assert told == [1, 2, 3]
    assert "a callback's own" in caplog.text


def test_asyncio_can_use_it(executor: StandardExecutor) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, callables.double, n) for n in range(5)))

    assert asyncio.run(main()) == [0, 2, 4, 6, 8]


# ------------------------------------------------------------------------------------------------------ map


def test_map_keeps_the_order_and_ends_with_the_shortest(executor: StandardExecutor) -> None:
    assert list(executor.map(callables.double, range(500))) == [2 * n for n in range(500)]
    assert list(executor.map(pow, [2, 3, 4], [5, 2])) == [32, 9]
    assert list(executor.map(callables.double, [])) == []


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_chunks_change_nothing_of_the_results(executor: StandardExecutor, chunksize: int) -> None:
    assert list(executor.map(callables.double, range(20), chunksize=chunksize)) == [2 * n for n in range(20)]
    powers = executor.map(pow, range(7), iter([2, 3, 2, 3, 2]), [5] * 9, chunksize=chunksize)
    assert list(powers) == [0, 1, 4, 2, 1]
    assert list(executor.map(tuple, [[1, 2], [], [3]], chunksize=chunksize)) == [(1, 2), (), (3,)]


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_of_a_longer_iterable_no_whole_chunk_is_read_in_vain(executor: StandardExecutor, chunksize: int) -> None:
    longer = iter(range(10))
    assert list(executor.map(pow, longer, [2, 2], chunksize=chunksize)) == [0, 1]
    assert next(longer) in (3, 4)  # ``zip`` finds the end of the shortest once, or in the next chunk again


def test_a_chunk_has_at_least_one(executor: StandardExecutor) -> None:
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        executor.map(callables.double, [1], chunksize=0)


def test_map_reads_all_inputs_at_once(executor: StandardExecutor) -> None:
    inputs = iter(range(5))
    results = executor.map(callables.double, inputs)
    assert list(inputs) == []
    assert list(results) == [0, 2, 4, 6, 8]


def test_what_an_input_raises_is_raised_by_map(executor: StandardExecutor) -> None:
    with pytest.raises(ZeroDivisionError):
        executor.map(callables.double, (1 // n for n in (1, 0)))


def test_map_raises_where_the_result_would_be(executor: StandardExecutor) -> None:
    results = executor.map(callables.fail_at_two, range(4))
    assert next(results) == 0
    assert next(results) == 1
    with pytest.raises(ValueError, match="two"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_has_a_timeout_and_cancels_the_rest(executor: StandardExecutor, tmp_path: Path) -> None:
    results = executor.map(callables.hold, [str(tmp_path)] * 8, map(str, range(8)), timeout=0.3)
    with pytest.raises(TimeoutError):
        next(results)
    executor.submit(callables.double, 1).running()  # the answer comes behind the cancels
    (tmp_path / "go").touch()
    assert executor.submit(callables.double, 1).result(timeout=10) == 2
    assert not (tmp_path / "begun7").exists()


def test_map_runs_although_nobody_takes_the_results(make: Make, tmp_path: Path) -> None:
    with make() as executor:
        executor.map(callables.leave, [str(tmp_path / str(n)) for n in range(3)])
        kept = executor.map(callables.leave, [str(tmp_path / str(n)) for n in range(3, 6)])
    del kept
    assert len(list(tmp_path.iterdir())) >= 3


# ------------------------------------------------------------------------------------------------------ wait


def test_wait_for_the_first(executor: StandardExecutor, tmp_path: Path) -> None:
    gate = Gate(executor, tmp_path, 1)
    quick = executor.submit(callables.double, 1)
    futures: list[Future[Any]] = [*gate.futures, quick]
    done, pending = wait(futures, return_when=FIRST_COMPLETED, timeout=10)
    gate.open()
    assert done == {quick}
    assert pending == set(gate.futures)


def test_wait_for_all(executor: StandardExecutor) -> None:
    futures = [executor.submit(callables.double, n) for n in range(20)]
    done, pending = wait(futures, return_when=ALL_COMPLETED, timeout=10)
    assert done == set(futures)
    assert not pending


def test_wait_for_an_exception(executor: StandardExecutor, tmp_path: Path) -> None:
    gate = Gate(executor, tmp_path, 1)
    failing = executor.submit(callables.fail, ValueError)
    futures: list[Future[Any]] = [*gate.futures, failing]
    done, pending = wait(futures, return_when=FIRST_EXCEPTION, timeout=30)
    gate.open()
    assert failing in done
    assert pending == set(gate.futures)


def test_wait_has_a_timeout(busy: Gate) -> None:
    done, pending = wait(busy.futures, timeout=0.01)
    assert not done
    assert pending == set(busy.futures)


def test_as_completed_gives_each_once(executor: StandardExecutor) -> None:
    futures = [executor.submit(callables.double, n) for n in range(20)]
    found = list(as_completed([*futures, futures[0]], timeout=10))
    assert len(found) == 20
    assert set(found) == set(futures)


def test_as_completed_has_a_timeout(busy: Gate) -> None:
    with pytest.raises(TimeoutError):
        list(as_completed(busy.futures, timeout=0.01))


# ------------------------------------------------------------------------------------------------------ exceptions


def test_an_exception_is_the_original_with_the_remote_traceback(executor: StandardExecutor) -> None:
    future = executor.submit(callables.fail, ValueError, "text", 7)
    with pytest.raises(ValueError, match="text") as raised:
        future.result(timeout=10)
    assert type(raised.value) is ValueError
    assert raised.value.args == ("text", 7)
    assert future.exception() is raised.value
    assert "in fail\n    raise kind(*arguments)" in str(raised.value.__cause__)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError])
def test_any_exception_is_the_calls_alone(executor: StandardExecutor, kind: type[BaseException]) -> None:
    assert type(executor.submit(callables.fail, kind, "x").exception(timeout=10)) is kind
    assert executor.submit(callables.double, 1).result(timeout=10) == 2


def test_notes_come_along(executor: StandardExecutor) -> None:
    error = executor.submit(callables.fail_with_all).exception(timeout=10)
    assert error is not None
    assert error.__notes__ == ["a note"]


def test_what_cannot_be_pickled_is_told_by_its_future(executor: StandardExecutor) -> None:
    for future in (
        executor.submit(callables.double, threading.Lock()),  # type: ignore[arg-type]
        executor.submit(callables.unpicklable_result),
    ):
        assert isinstance(future.exception(timeout=10), (TypeError, Exception))
        assert "pickle" in str(future.exception())
    assert executor.submit(callables.double, 1).result(timeout=10) == 2


# ------------------------------------------------------------------------------------------------------ the end


def test_shutdown_waits_and_then_takes_nothing(make: Make) -> None:
    executor = make()
    futures = [executor.submit(callables.double, n) for n in range(10)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(callables.double, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(callables.double, [1])
    executor.shutdown()
    assert [future.result() for future in futures] == [2 * n for n in range(10)]


def test_shutdown_without_work(make: Make) -> None:
    executor = make()
    executor.shutdown()
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(RuntimeError):
        executor.submit(callables.double, 1)


def test_shutdown_need_not_wait(make: Make, tmp_path: Path) -> None:
    executor = make()
    gate = Gate(executor, tmp_path, 4)
    executor.shutdown(wait=False)
    assert not any(future.done() for future in gate.futures)
    gate.open()
    assert [future.result(timeout=10) for future in gate.futures] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("waits", [True, False])
def test_shutdown_can_cancel_what_waits(make: Make, tmp_path: Path, waits: bool) -> None:
    executor = make()
    gate = Gate(executor, tmp_path, 30)
    until(lambda: gate.begun(0) and gate.begun(1))
    ending = threading.Thread(target=executor.shutdown, kwargs={"wait": waits, "cancel_futures": True})
    ending.start()
    until(gate.futures[-1].cancelled)
    gate.open()
    ending.join(10)
    assert not ending.is_alive()
    until(lambda: all(future.done() for future in gate.futures))
    assert [future.result() for future in gate.futures[:2]] == ["0", "1"]
    assert all(future.cancelled() for future in gate.futures[5:])


def test_an_executor_that_is_dropped_finishes_its_calls(make: Make) -> None:
    assert make().submit(callables.double, 4).result(timeout=10) == 8


# ------------------------------------------------------------------------------------------------------ initializer


def test_the_initializer_runs_in_each_worker(make: Make) -> None:
    with make(initializer=callables.initialize, initargs=("ready",)) as executor:
        assert set(executor.map(_status_of, range(20))) == {"ready"}


def _status_of(number: int) -> str:
    time.sleep(0.001)
    return callables.status()


def test_an_initializer_that_fails_breaks_the_executor(make: Make) -> None:
    with make(initializer=callables.fail_to_initialize) as executor:
        future = executor.submit(callables.double, 1)
        assert isinstance(future.exception(timeout=10), BrokenExecutor)
        with pytest.raises(BrokenExecutor):
            until(lambda: executor.submit(callables.double, 1) is None)


@pytest.mark.parametrize(("options", "error"), [({"initializer": 3}, TypeError)])
def test_wrong_arguments(make: Make, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make(**options)


@pytest.mark.parametrize("kind", [Executor, ProcessPoolExecutor])
def test_there_is_at_least_one_worker(kind: Callable[..., StandardExecutor]) -> None:
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            kind(max_workers=wrong)


def test_a_death_is_a_broken_executor(make: Make) -> None:
    with make() as executor:
        assert isinstance(executor.submit(callables.die).exception(timeout=10), BrokenExecutor)


def test_the_calls_are_made_elsewhere(executor: StandardExecutor) -> None:
    assert executor.submit(callables.pid).result(timeout=10) != os.getpid()

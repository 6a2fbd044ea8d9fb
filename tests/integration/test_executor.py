"""What our executor does beyond the standard library's (tests/conformance/test_executor.py), and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from pathlib import Path
from typing import Any

import psutil
import pytest

from poolmgr import BrokenPool, BrokenWorker, Client, Executor, TaskFailed
from poolmgr.errors import NotAllowed, PayloadTooLarge
from poolmgr.model import TaskOptions
from poolmgr.server.options import OptionCache
from poolmgr.wire.pickled import CALL, RAISED, dump
from poolmgr.worker import calls
from scripts.proofs.pool import until
from tests.apps import callables

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(2) as executor:
        yield executor


@pytest.fixture(autouse=True)
def check_it_still_works(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "executor" in request.fixturenames:
        assert request.getfixturevalue("executor").submit(callables.double, 2).result(timeout=10) == 4


# ------------------------------------------------------------------------------------------------ any callable


def test_lambdas_closures_and_local_classes(executor: Executor) -> None:
    base = 40

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

        def moved(self, by: int) -> Point:
            return Point(self.x + by)

    assert executor.submit(lambda x: x + base, 2).result(timeout=10) == 42
    assert list(executor.map(lambda x: x + base, range(3), chunksize=2)) == [40, 41, 42]
    moved = executor.submit(Point(1).moved, 2).result(timeout=10)
    assert type(moved) is Point
    assert moved.x == 3
    assert executor.submit(lambda: lambda: base).result(timeout=10)() == 40


def test_a_closure_is_as_it_is_when_it_is_submitted(executor: Executor) -> None:
    seen: list[int] = []
    assert executor.submit(lambda: len(seen)).result(timeout=10) == 0
    seen.append(1)
    assert executor.submit(lambda: len(seen)).result(timeout=10) == 1


def test_a_bound_method_comes_fresh_to_each_call(executor: Executor) -> None:
    class Counter:
        count = 0

        def step(self, _: int) -> int:
            self.count += 1
            return self.count

    assert list(executor.map(Counter().step, range(5))) == [1] * 5


# ------------------------------------------------------------------------------------------------ exceptions


def chain(error: BaseException | None) -> list[str]:
    found = []
    while error is not None:
        found.append(type(error).__name__)
        error = error.__cause__
    return found


def test_cause_and_context_come_along(executor: Executor) -> None:
    error = executor.submit(callables.fail_with_all).exception(timeout=10)
    assert chain(error) == ["ValueError", "LookupError", "RemoteTraceback"]
    assert error is not None
    assert error.__context__ is error.__cause__
    assert isinstance(error.__cause__, LookupError)
    assert isinstance(error.__cause__.__context__, KeyError)
    text = str(error.__cause__.__cause__)
    assert all(each in text for each in ("deepest", "cause", "outermost", "a note", "callables.py"))


def test_a_context_comes_along(executor: Executor) -> None:
    error = executor.submit(callables.fail_in_context).exception(timeout=10)
    assert error is not None
    assert isinstance(error.__context__, KeyError)
    assert chain(error) == ["ValueError", "RemoteTraceback"]


def test_exception_groups_come_along(executor: Executor) -> None:
    error = executor.submit(callables.fail_as_group).exception(timeout=10)
    assert isinstance(error, ExceptionGroup)
    inner, second = error.exceptions
    assert isinstance(inner, ExceptionGroup)
    assert inner.__notes__ == ["of the inner"]
    assert [type(each) for each in inner.exceptions] == [ValueError]
    assert isinstance(second, KeyError)


def test_exceptions_of_local_classes_are_those_classes(executor: Executor) -> None:
    class Refused(Exception):
        pass

    def refuse() -> None:
        raise Refused("no", 3)

    with pytest.raises(Refused) as raised:
        executor.submit(refuse).result(timeout=10)
    assert raised.value.args == ("no", 3)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [(callables.Unpicklable, (), "it holds a lock"), (callables.Unloadable, (3, "x"), "3: x")],
)
def test_an_exception_that_does_not_travel_is_told_of(
    executor: Executor, kind: type[BaseException], arguments: tuple[Any, ...], message: str
) -> None:
    error = executor.submit(callables.fail, kind, *arguments).exception(timeout=10)
    assert isinstance(error, TaskFailed)
    assert error.type == f"tests.apps.callables.{kind.__name__}"
    assert error.message == message
    assert "raise kind(*arguments)" in error.traceback
    assert "cannot be brought back" in error.__notes__[0]


def test_a_cause_that_does_not_travel_is_told_of(executor: Executor) -> None:
    error = executor.submit(callables.fail_with_unpicklable_cause).exception(timeout=10)
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, TaskFailed)
    assert error.__cause__.message == "it holds a lock"


def test_text_that_is_not_unicode_is_told_of(executor: Executor) -> None:
    error = executor.submit(callables.fail, ValueError, "\ud800").exception(timeout=10)
    assert isinstance(error, ValueError)
    assert error.args == ("\ud800",)


# ------------------------------------------------------------------------------------------------ pickles


def test_an_argument_that_cannot_be_pickled_is_named(executor: Executor) -> None:
    lock = threading.Lock()
    for future, named in (
        (executor.submit(print, 1, lock), "args[1]"),
        (executor.submit(print, 1, sep=lock), "kwargs['sep']"),  # type: ignore[arg-type]
        (executor.submit(lambda: lock), "the callable"),
    ):
        assert future.done()
        error = future.exception()
        assert isinstance(error, TypeError)
        assert named in error.__notes__[0]
    with pytest.raises(TypeError, match="pickle"):
        list(executor.map(print, [lock]))
    with pytest.raises(TypeError, match="pickle"):
        list(executor.map(lambda _: lock, [1]))


def test_what_does_not_load_fails_alone(executor: Executor) -> None:
    before = executor.submit(callables.double, 1)
    error = executor.submit(callables.double, callables.NotLoadable()).exception(timeout=10)  # type: ignore[arg-type]
    assert isinstance(error, RuntimeError)
    assert "unpickled the call" in error.__notes__[0]
    error = executor.submit(callables.loads_only_in_the_worker).exception(timeout=10)
    assert isinstance(error, RuntimeError)
    assert "result of the call was unpickled" in error.__notes__[0]
    error = executor.submit(callables.unpicklable_result).exception(timeout=10)
    assert isinstance(error, TypeError)
    assert "pickled the result" in error.__notes__[0]
    assert before.result() == 2


def test_what_is_too_large_is_told(executor: Executor) -> None:
    assert isinstance(executor.submit(len, bytes(70 << 20)).exception(timeout=10), PayloadTooLarge)
    error = executor.submit(bytes, 70 << 20).exception(timeout=30)
    assert isinstance(error, TaskFailed)
    assert "limit" in str(error)


# ------------------------------------------------------------------------------------------------ deaths


def test_a_death_fails_only_its_own_future(executor: Executor, tmp_path: Path) -> None:
    held = executor.submit(callables.hold, str(tmp_path), "a")
    until((tmp_path / "beguna").exists)
    futures = [executor.submit(callables.double, n) for n in range(20)]
    killer = executor.submit(callables.die)
    more = [executor.submit(callables.double, n) for n in range(20)]
    error = killer.exception(timeout=10)
    assert isinstance(error, BrokenWorker)
    assert isinstance(error, BrokenExecutor)
    assert "SIGKILL" in str(error)
    (tmp_path / "go").touch()
    assert held.result(timeout=10) == "a"
    assert [each.result(timeout=10) for each in (*futures, *more)] == [2 * n for n in range(20)] * 2


def test_the_daemon_keeps_nothing_of_a_call_that_ended_badly() -> None:
    """Its caller has the error; the daemon of an executor has nobody who would purge it."""
    payload = bytes(5_000_000)
    with Executor(2) as executor:
        assert executor.submit(len, payload).result(timeout=10) == len(payload)
        daemon = executor._line._daemon
        assert daemon is not None
        process = psutil.Process(daemon.pid)
        before = process.memory_info().rss
        for _ in range(20):
            assert isinstance(executor.submit(callables.die_over, payload).exception(timeout=10), BrokenWorker)
        assert process.memory_info().rss - before < 10 * len(payload)


def test_a_daemon_that_dies_breaks_the_executor(tmp_path: Path) -> None:
    with Executor(1) as executor:
        held = executor.submit(callables.hold, str(tmp_path))
        until((tmp_path / "begun").exists)
        daemon = executor._line._daemon
        assert daemon is not None
        os.kill(daemon.pid, signal.SIGKILL)
        assert isinstance(held.exception(timeout=10), BrokenPool)
        with pytest.raises(BrokenPool):
            executor.submit(callables.double, 1)


def test_what_breaks_an_executor_says_why() -> None:
    with Executor(1, initializer=callables.fail_to_initialize) as executor:
        error = executor.submit(callables.double, 1).exception(timeout=10)
        assert isinstance(error, BrokenPool)
        assert "initializer" in str(error)
        assert isinstance(error.__cause__, ValueError)
        with pytest.raises(BrokenPool, match="initializer"):
            executor.submit(callables.double, 1)


# ------------------------------------------------------------------------------------------------ with a client


def test_a_clients_options_hold_for_its_executor(client: Client) -> None:
    client.pause(CALL)
    try:
        with Executor(client=client.using(expires_s=0.05)) as executor:
            error = executor.submit(abs, -3).exception(timeout=10)
        assert isinstance(error, TaskFailed)
        assert error.code == "expired"
    finally:
        client.resume(CALL)


def test_an_executor_with_a_client_leaves_the_client_alone(client: Client) -> None:
    with Executor(client=client) as executor:
        assert executor.submit(abs, -3).result(timeout=10) == 3
    assert client.health()["status"] == "healthy"
    assert CALL not in client.metrics()["pool"]["tasks_known"]
    with pytest.raises(ValueError, match="max_workers"):
        Executor(3, client=client)


def test_two_executors_of_one_daemon_are_initialized_apart(client: Client) -> None:
    def status(_: int) -> Any:
        return callables.status()

    with (
        Executor(client=client, initializer=callables.initialize, initargs=("one",)) as one,
        Executor(client=client, initializer=callables.fail_to_initialize) as other,
    ):
        assert set(one.map(status, range(8))) == {"one"}
        assert isinstance(other.submit(abs, 1).exception(timeout=10), BrokenPool)
        assert set(one.map(status, range(8))) == {"one"}


def test_strangers_may_not_call() -> None:
    options = OptionCache({CALL: TaskOptions()})
    assert options.resolve(CALL, None) == TaskOptions()
    with pytest.raises(NotAllowed, match="own user"):
        options.for_strangers().resolve(CALL, None)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else")
def test_the_daemon_of_another_user_refuses_pickled_calls(start_pool: Callable[..., Any]) -> None:
    pool = start_pool(socket_group="nogroup")
    os.chmod(pool.socket.parent.parent.parent, 0o755)
    os.chmod(pool.socket.parent.parent, 0o755)
    program = f"""
        import os
        from poolmgr.client.dial import Route
        from poolmgr.client.link import Link
        from poolmgr.client.pending import Pending
        from poolmgr.wire.values import pack_call
        import poolmgr.config.locations
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        link = Link.open(Route({str(pool.socket)!r}, 10, "", 0))
        call = Pending()
        link.submit(call, {CALL!r}, pack_call((b"", b"", b"", ""), {{}}), None)
        link.wait(lambda: call.outcome is not None)
        print(call.error().code)
    """
    done = run(program)
    assert done.stdout.split() == ["not_allowed"], done.stderr


# ------------------------------------------------------------------------------------------------ programs


def run(program: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program as ``__main__``. It leaves no process behind."""
    mark = f"{os.getpid()}-{os.urandom(6).hex()}"
    environ = {**os.environ, "EXECUTOR_TEST": mark, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environ, capture_output=True, text=True, timeout=50, check=False, **options,
    )  # fmt: skip
    until(lambda: not marked(mark), "all that it started is gone")
    return done


def marked(mark: str) -> list[int]:
    return [each.pid for each in psutil.process_iter() if _carries(each, mark)]


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("EXECUTOR_TEST") == mark
    except psutil.Error:
        return False


def test_functions_and_globals_of_main() -> None:
    done = run("""
        from poolmgr import Executor
        state = None
        calls = 0
        def initialize(value):
            global state
            state = value
        def get(_):
            return state
        def count(_):
            global calls
            calls += 1
            return calls
        cache, data = {}, [1]
        def fill(key):
            cache[key] = key
            return sorted(cache)
        class Point:
            def __init__(self, x): self.x = x
        class Refused(Exception): pass
        def refuse(): raise Refused("no")
        with Executor(1, initializer=initialize, initargs=("ready",)) as executor:
            print(set(executor.map(get, range(4))), executor.submit(get, 0).result())
            print([executor.submit(count, 0).result() for _ in range(3)], calls)
            print([executor.submit(fill, key).result() for key in (1, 2)], cache)
            before = executor.submit(lambda: sum(data)).result()
            data.append(2)
            print(before, executor.submit(lambda: sum(data)).result())
            point = executor.submit(Point, 3).result()
            print(type(point) is Point, point.x, type(executor.submit(refuse).exception()) is Refused)
            executor.submit(print, "printed by a worker").result()
    """)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    lines.remove("printed by a worker")  # somewhere: the program's own lines go out when its buffer is written
    assert lines == [
        "{'ready'} ready",
        "[1, 2, 3] 0",
        "[[1], [1, 2]] {}",
        "1 3",
        "True 3 True",
    ]


def test_a_program_waits_for_its_calls_at_its_exit(tmp_path: Path) -> None:
    program = """
        from poolmgr import Executor
        from tests.apps.callables import leave
        executor = Executor(2)
        for at in range(20):
            executor.submit(leave, f"{directory}/{at}")
    """.replace("{directory}", str(tmp_path))
    done = run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(list(tmp_path.iterdir())) == 20


@pytest.mark.parametrize("end", ["executor.shutdown(wait=False)", "del executor", "raise SystemExit"])
def test_no_way_of_ending_hangs_or_loses_calls(tmp_path: Path, end: str) -> None:
    program = f"""
        from poolmgr import Executor
        from tests.apps.callables import leave
        executor = Executor(1)
        futures = [executor.submit(leave, "{tmp_path}/" + str(at)) for at in range(5)]
        {end}
    """
    done = run(program)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(tmp_path.iterdir())) == 5


def test_deaths_make_no_noise_and_files_are_not_left(tmp_path: Path) -> None:
    program = """
        import os
        from poolmgr import Executor
        with Executor(2) as executor:
            print([type(executor.submit(os._exit, 1).exception()).__name__ for _ in range(3)])
    """
    (tmp_path / "home").mkdir()
    done = run(program, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['BrokenWorker', 'BrokenWorker', 'BrokenWorker']\n", "")
    assert [each.name for each in tmp_path.rglob("*")] == ["home"]


def test_a_program_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    done = run(f"""
        import os, signal, time
        from pathlib import Path
        from poolmgr import Executor
        from tests.apps.callables import hold
        executor = Executor(2)
        executor.submit(hold, {str(tmp_path)!r})
        while not Path({str(tmp_path)!r}, "begun").exists(): time.sleep(0.005)
        if os.fork() == 0:
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert done.returncode == -signal.SIGKILL


def test_a_forked_child_leaves_the_executor_to_its_parent() -> None:
    done = run("""
        import os, sys
        from poolmgr import BrokenPool, Executor
        executor = Executor(1)
        future = executor.submit(abs, -1)
        future.result()
        pending = executor.submit(abs, -2)
        if (child := os.fork()) == 0:
            try:
                executor.submit(abs, -3)
            except BrokenPool:
                with Executor(1) as own:
                    print("child", own.submit(abs, -4).result(), flush=True)
            executor.shutdown()
            sys.exit(0)
        print("exit code", os.waitpid(child, 0)[1])
        print("parent", pending.result(), executor.submit(abs, -5).result())
    """)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["child 4", "exit code 0", "parent 2 5"]


def test_an_executor_made_on_import_starts_nothing_in_its_workers(tmp_path: Path) -> None:
    (tmp_path / "shared.py").write_text(
        "from poolmgr import Executor\nexecutor = Executor(1)\ndef work(x):\n    return x + 1\n"
    )
    done = run("import shared\nprint(shared.executor.submit(shared.work, 1).result())", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_cancelling_at_the_end(tmp_path: Path) -> None:
    executor = Executor(1)
    gate = executor.submit(callables.hold, str(tmp_path))
    until((tmp_path / "begun").exists)
    waiting = [executor.submit(callables.double, n) for n in range(200)]
    executor.shutdown(wait=False, cancel_futures=True)
    until(lambda: all(each.cancelled() for each in waiting))
    with pytest.raises(CancelledError):
        waiting[0].result()
    (tmp_path / "go").touch()
    assert gate.result(timeout=10) == ""


def test_a_sick_worker_does_not_get_each_next_call(tmp_path: Path) -> None:
    """What a call raises is its outcome, and no failure of the task: the worker is not to count as well for it."""
    sick = tmp_path / "sick"

    def call() -> None:
        if not sick.exists():
            sick.write_text(str(os.getpid()))
        if sick.read_text() == str(os.getpid()):
            raise OSError("this process has no disk any more")

    with Executor(max_workers=4) as executor:
        outcomes = [executor.submit(call).exception() for _ in range(40)]
    assert sum(outcome is not None for outcome in outcomes) == 1


def test_a_part_of_a_map_of_another_version_is_refused() -> None:
    kind, *told = calls.call(dump([(1,), (2,)]), dump(abs), b"some one", "")
    assert kind == RAISED
    assert any("another version of poolmgr" in str(each) for each in told)

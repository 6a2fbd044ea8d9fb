"""The end of a daemon: drained, at once, or killed. Nothing acknowledged is lost, and no process is left."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from poolmgr import Client, TaskFuture
from poolmgr.errors import ConnectionLost, PoolError, ShuttingDown, TaskInterrupted, TaskLost
from poolmgr.model import TaskState
from scripts.proofs.pool import Pool, until
from tests.integration.conftest import Gate
from tests.integration.raw import HELLO_THERE, submit

Start = Callable[..., Pool]


def held(client: Client, gate: Gate, label: str, **options: object) -> TaskFuture[str]:
    """A task that has begun, and waits at the gate."""
    future: TaskFuture[str] = client.using(**options).submit("hold", gate.path, label)
    assert gate.begun().label == label
    return future


def test_sigterm_drains(start_pool: Start, gate: Gate) -> None:
    """Running work finishes, durable work that waits stays for the next daemon, calls that wait are lost."""
    pool = start_pool(workers=1)
    with pool.client(reconnect_s=0) as client:
        running = held(client, gate, "finished")
        waiting = client.submit("add", 20, 22)
        call = client.using(durable=False).submit("add", 1, 2)
        client.flush()
        pool.signal(signal.SIGTERM)
        with pytest.raises(TaskLost, match="shut down before the task was run"):
            call.result(timeout=10)
        with pytest.raises(ShuttingDown):
            client.run("add", 1, 2)
        assert client.metrics()["pool"]["shutting_down"] is True
        gate.open()
        assert running.result(timeout=10) == "finished"
        with pytest.raises(ConnectionLost, match=rf"task {waiting.id} is safe"):
            waiting.result(timeout=10)
    assert pool.wait() == 0
    assert pool.processes() == []
    with pool.start().client() as client:
        assert client.result(waiting.id, timeout=10) == 42
        assert client.result(running.id, timeout=10) == "finished"


def test_a_large_result_is_delivered_before_the_daemon_goes(start_pool: Start, gate: Gate) -> None:
    """The client takes 20 MB when the daemon has nothing else left to do."""
    pool = start_pool(workers=1)
    with pool.client() as client:
        call = client.using(durable=False).submit("hold_for_zeros", gate.path, 20_000_000)
        gate.begun()
        pool.signal(signal.SIGTERM)
        until(lambda: client.metrics()["pool"]["shutting_down"], "it drains")
        gate.open()
        assert call.result(timeout=10) == bytes(20_000_000)
    assert pool.wait() == 0


def test_a_client_that_takes_nothing_does_not_keep_the_daemon(start_pool: Start) -> None:
    pool = start_pool(workers=1)
    with socket.socket(socket.AF_UNIX) as silent, pool.client() as client:
        silent.connect(str(pool.socket))
        silent.sendall(HELLO_THERE + submit(1, "zeros", (20_000_000,)))
        until(lambda: client.metrics()["tasks"]["completed"] == 1, "the result is on its way")
        assert pool.stop() == 0


def test_stop_now_ends_what_runs_and_durable_work_runs_again(start_pool: Start, gate: Gate) -> None:
    pool = start_pool(workers=2)
    with pool.client(reconnect_s=0) as client:
        durable = held(client, gate, "again")
        call = held(client, gate, "lost", durable=False)
        client.stop(now=True)
        with pytest.raises(TaskLost):
            call.result(timeout=10)
        with pytest.raises(ConnectionLost, match="safe"):
            durable.result(timeout=10)
    assert pool.wait() == 0
    assert pool.processes() == []
    with pool.start().client() as client:
        begun = gate.begun()
        assert (begun.label, begun.attempt) == ("again", 2)
        gate.open()
        assert client.result(durable.id, timeout=10) == "again"
        assert client.task(durable.id).failures == 0  # it cost nobody


def test_a_second_signal_does_not_wait(start_pool: Start, gate: Gate) -> None:
    pool = start_pool(workers=1)
    with pool.client() as client:
        call = held(client, gate, "cut short", durable=False)
        pool.signal(signal.SIGTERM)
        until(lambda: client.metrics()["pool"]["shutting_down"], "it drains")
        pool.signal(signal.SIGTERM)
        with pytest.raises(TaskLost):
            call.result(timeout=10)
    assert pool.wait() == 0


def test_the_patience_of_a_drain_ends(start_pool: Start, gate: Gate) -> None:
    pool = start_pool(workers=1, graceful_shutdown_timeout_s=0.2)
    with pool.client() as client:
        held(client, gate, "too long")
        assert pool.stop() == 0
    assert pool.processes() == []


def test_durable_work_survives_a_kill_and_runs_after_the_restart(start_pool: Start, gate: Gate) -> None:
    pool = start_pool(workers=2)
    with pool.client(reconnect_s=0) as client:
        done = client.submit("add", 1, 2)
        assert done.result(timeout=10) == 3
        running = held(client, gate, "interrupted")
        never = held(client, gate, "never again", restartable=False)
        call = client.using(durable=False).submit("add", 3, 4)
        waiting = [client.submit("add", number) for number in range(50)]
        delayed = client.using(delay_s=0.5).submit("add", 5, 6)
        client.flush()
        pool.kill()
        for future in (running, never, delayed, *waiting):
            with pytest.raises(ConnectionLost, match="safe"):
                future.result(timeout=10)
        with pytest.raises(TaskLost):
            call.result(timeout=10)
    until(lambda: not pool.processes(), "nothing of it is left", 2)
    with pool.start().client() as client:
        assert client.result(done.id) == 3
        assert [client.result(future.id, timeout=10) for future in waiting] == list(range(50))
        begun = gate.begun()
        assert (begun.label, begun.attempt) == ("interrupted", 2)
        gate.open()
        assert client.result(running.id, timeout=10) == "interrupted"
        assert client.result(delayed.id, timeout=10) == 11
        with pytest.raises(TaskInterrupted, match=r"may not be run again \(restartable=False\)"):
            client.result(never.id)
        assert client.task(never.id).state is TaskState.DEAD
        with pytest.raises(PoolError):
            client.task(call.id)


def test_what_a_submit_acknowledged_is_there_after_a_kill(start_pool: Start) -> None:
    """The daemon is killed while tasks pour in. What it had acknowledged by then, it has, and in the end has run."""
    pool = start_pool(workers=2)
    client = pool.client(reconnect_s=0)
    futures: list[TaskFuture[int]] = []
    enough = threading.Event()

    def pour() -> None:
        try:
            for number in range(4000):
                futures.append(client.submit("add", number, 1))
                if number == 1000:
                    enough.set()
        except PoolError:
            pass

    thread = threading.Thread(target=pour)
    thread.start()
    assert enough.wait(10)
    futures[1000].accepted(timeout=10)
    pool.kill()
    thread.join(10)
    accepted = [number for number, future in enumerate(futures) if was_accepted(future)]
    client.close()
    assert accepted
    with pool.start().client() as client:
        assert [client.result(futures[number].id, timeout=20) for number in accepted] == [n + 1 for n in accepted]


def was_accepted(future: TaskFuture[int]) -> bool:
    """Whether the daemon has acknowledged the task."""
    try:
        future.accepted(timeout=10)
    except PoolError:
        return False
    return True


def test_a_task_that_the_app_lost_is_dead_after_the_restart(start_pool: Start) -> None:
    pool = start_pool(workers=1)
    with pool.client() as client:
        waiting = client.using(delay_s=1000).submit("echo", 1)
        client.flush()
    assert pool.stop() == 0
    pool.command[-1] = "slim"
    with pool.start().client() as client:
        with pytest.raises(PoolError, match="the app has no task 'echo' any more"):
            client.result(waiting.id)
        assert client.task(waiting.id).cause == "unknown_task"
        assert client.run("add", 1, 2) == 3


def test_a_killed_template_and_daemon_leave_what_the_next_start_sweeps(start_pool: Start) -> None:
    """The warden itself was killed: a process in a session of its own lives on, until the next daemon starts."""
    pool = start_pool(workers=1)
    with pool.client() as client:
        away = client.run("leave_a_child", True)
    template = pool.template()
    pool.signal(signal.SIGSTOP)
    os.kill(template, signal.SIGKILL)
    pool.kill()
    until(lambda: pool.processes() == [away], "its workers are gone by themselves", 2)
    pool.start()
    until(lambda: away not in pool.processes(), "the next daemon has swept")


def test_the_daemon_leaves_no_files_but_its_state(start_pool: Start) -> None:
    pool = start_pool(workers=1)
    assert pool.stop() == 0
    assert not pool.socket.exists()
    assert [path.name for path in pool.socket.parent.iterdir()] == []
    assert {Path(path).name for path in pool.state.iterdir()} <= {"poolmgr.db", "poolmgr.db-wal", "poolmgr.db-shm"}

"""Worker processes: replaced when they end, recycled, added and taken away. The others never notice."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolmgr import Client, Executor
from poolmgr.errors import BadOption, NotFound, WorkerDied
from poolmgr.model import WorkerState
from poolmgr.worker.warden import OWN_VARIABLES
from scripts.proofs.pool import Pool, until
from tests.integration.conftest import APPS, Gate

Start = Callable[..., Pool]


def pids(client: Client) -> dict[str, int | None]:
    """The process in each slot."""
    return {worker.id: worker.pid for worker in client.workers()}


def kill(client: Client, worker: str) -> int:
    """SIGKILL the process in a slot; its pid."""
    pid = client.worker(worker).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def is_gone(pid: int) -> bool:
    """Whether the process has ended; a zombie has not been reaped, so it counts as there."""
    return not os.path.exists(f"/proc/{pid}")


def all_ready(client: Client, count: int) -> bool:
    """Whether that many workers, and no others, are ready."""
    return [worker.state for worker in client.workers()] == [WorkerState.READY] * count


# ------------------------------------------------------------------------------------------ deaths


def test_a_worker_that_is_killed_while_idle_is_replaced(client: Client) -> None:
    list(client.map("whoami_after", [0.001] * 100))  # so that each of them was of use
    before = pids(client)
    was = client.worker("worker-1")
    del before["worker-1"]
    victim = kill(client, "worker-1")
    until(lambda: client.worker("worker-1").pid not in (victim, None), "a new process")
    until(lambda: all_ready(client, 4), "it is ready")
    after = pids(client)
    assert after.pop("worker-1") != victim
    assert after == before
    assert client.worker("worker-1").restarts == was.restarts + 1
    assert is_gone(victim)


def test_a_worker_that_is_killed_while_busy_costs_its_task_one_attempt(client: Client, gate: Gate) -> None:
    before = pids(client)
    future = client.using(retry_backoff_s=0.01).submit("hold", gate.path, "twice")
    first = gate.begun()
    os.kill(first.pid, signal.SIGKILL)
    second = gate.begun()
    assert second.attempt == 2
    assert second.pid != first.pid
    assert second.worker != first.worker  # a retry prefers another one
    gate.open()
    assert future.result(timeout=10) == "twice"
    [attempt] = client.task(future.id).attempts
    assert (attempt.cause, attempt.worker) == ("worker_died", first.worker)
    assert "SIGKILL" in attempt.message
    until(lambda: all_ready(client, 4), "a new worker is ready")
    after = pids(client)
    assert after.pop(first.worker) != before.pop(first.worker)
    assert after == before


def test_only_the_task_that_had_begun_is_charged(lone: Client, gate: Gate) -> None:
    """A worker dies with others prefetched behind its task: these run elsewhere, as if never dispatched."""
    list(lone.map("hold_at", [None] * 200, range(200)))
    calls = lone.using(durable=False, max_retries=0)
    held = calls.submit("hold_at", gate.path, 0)
    rest = [calls.submit("hold_at", None, number) for number in range(1, 11)]
    begun = gate.begun()
    os.kill(begun.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied):
        held.result(timeout=10)
    assert [future.result(timeout=10) for future in rest] == list(range(1, 11))
    lone.purge()


def test_a_worker_that_never_was_of_use_backs_off_and_then_fails(start_pool: Start) -> None:
    pool = start_pool(workers=2, restart_cooldown_s=0.05, max_restart_attempts=2)
    with pool.client() as client:
        kill(client, "worker-0")
        until(lambda: client.worker("worker-0").incarnation == 2, "it is tried again")
        until(lambda: client.worker("worker-0").state == "ready")
        kill(client, "worker-0")
        until(lambda: client.worker("worker-0").state == "failed", "it is given up")
        health = client.health()
        assert health["status"] == "degraded"
        assert health["alerts"] == ["failed, tried again every minute: worker-0"]
        assert client.run("add", 1, 2) == 3


def test_garbage_from_a_worker_costs_that_worker_and_its_task(client: Client) -> None:
    with pytest.raises(WorkerDied, match="what the protocol does not know"):
        client.using(max_retries=0).run("scribble")
    until(lambda: all_ready(client, 4), "it is replaced")
    assert client.run("add", 1, 2) == 3
    client.purge()


def test_workers_that_were_made_together_hold_nothing_of_each_other(start_pool: Start) -> None:
    with start_pool(workers=12).client() as client:
        held = {pid: pipes_and_sockets(pid) for pid in pids(client).values() if pid is not None}
    assert len(held) == 12
    assert {len(found) for found in held.values()} == {5}  # two pipes for tasks, two for output, the control channel
    assert len(set().union(*held.values())) == 5 * 12


def pipes_and_sockets(pid: int) -> set[str]:
    """What it holds of them."""
    folder = f"/proc/{pid}/fd"
    files = (os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder))
    return {file for file in files if file.startswith(("pipe:", "socket:"))}


def test_a_killed_template_is_replaced_and_the_pool_goes_on(client: Client, shared_pool: Pool, gate: Gate) -> None:
    list(client.map("whoami_after", [0.001] * 100))
    workers = pids(client)
    running = client.submit("hold", gate.path, "undisturbed")
    busy = gate.begun()
    template = shared_pool.template()
    os.kill(template, signal.SIGKILL)
    until(lambda: is_gone(template), "it is reaped")
    assert pids(client) == workers
    idle = client.worker(next(worker for worker in workers if worker != busy.worker))
    kill(client, idle.id)
    until(lambda: client.worker(idle.id).incarnation == idle.incarnation + 1, "another is asked for")
    until(lambda: client.worker(idle.id).state == "ready", "it is forked")
    assert shared_pool.template() != template
    gate.open()
    assert running.result(timeout=10) == "undisturbed"


def test_a_template_that_cannot_be_started_now_is_started_later(start_pool: Start) -> None:
    """A task may have taken all processes or files that there are: that is to cost nobody else the pool."""
    pool = start_pool(restart_cooldown_s=0.01, max_restart_attempts=100)
    with pool.client() as client:
        soft, hard = resource.prlimit(pool.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pool.pid, resource.RLIMIT_NOFILE, (pool.open_files() - 10, hard))
        template = pool.template()
        os.kill(template, signal.SIGKILL)
        until(lambda: is_gone(template), "it is reaped")
        assert client.run("add", 1, 2) == 3
        resource.prlimit(pool.pid, resource.RLIMIT_NOFILE, (soft, hard))
        kill(client, "worker-0")
        until(lambda: all_ready(client, 2), "another is started, and forks", 20)


def test_a_template_that_does_not_answer_is_replaced(start_pool: Start) -> None:
    """Stopped, it takes requests and does nothing. Each has a deadline, and the second late one costs it its life."""
    pool = start_pool(restart_cooldown_s=0.01, max_restart_attempts=10)
    with pool.client() as client:
        template = pool.template()
        os.kill(template, signal.SIGSTOP)
        for worker in ("worker-0", "worker-1"):
            kill(client, worker)
        until(lambda: is_gone(template), "it is replaced", 20)
        until(lambda: all_ready(client, 2), "the new one forks")


def test_what_a_task_has_started_goes_with_its_worker(lone: Client) -> None:
    """Its worker is replaced after the task. In the worker's group it is killed at once; in a session of its own, once
    the sweep has found that its worker is gone."""
    in_group = lone.run("leave_a_child", False)
    away = lone.run("leave_a_child", True)
    until(lambda: is_gone(in_group), "the process in its group is killed")
    until(lambda: is_gone(away), "the process in its own session is killed")
    assert lone.run("add", 1, 2) == 3
    lone.purge()


@pytest.mark.parametrize("handler", ["fork_away", "start_nameless"])
def test_however_far_it_goes_it_goes_with_its_worker(lone: Client, handler: str) -> None:
    """Forked only, in a session of its own, nobody's child; or with no environment to tell whose it was."""
    away = lone.run(handler)
    until(lambda: is_gone(away), "it is killed, as its worker is replaced, or as an orphan of nobody's")
    until(lambda: lone.worker("worker-0").state == "ready")


@pytest.mark.parametrize("waited", [True, False])
def test_what_is_nobodys_child_costs_its_worker_whether_or_not_its_parent_was_waited_for(
    lone: Client, waited: bool
) -> None:
    incarnation = lone.worker("worker-0").incarnation
    away = lone.run("fork_away", waited)
    until(lambda: lone.worker("worker-0").incarnation == incarnation + 1, "its worker is replaced")
    until(lambda: is_gone(away))
    until(lambda: lone.worker("worker-0").state == "ready")


def test_what_a_task_has_started_stays_while_it_runs_and_goes_after_it(start_pool: Start, gate: Gate) -> None:
    pool = start_pool(workers=2)
    with pool.client() as client:
        running = client.submit("fork_away_and_hold", gate.path)
        begun = gate.begun()
        away = int(begun.label)
        other = "worker-1" if begun.worker == "worker-0" else "worker-0"
        incarnation = client.worker(other).incarnation
        kill(client, other)  # another's end: a sweep
        until(lambda: client.worker(other).incarnation == incarnation + 1)
        until(lambda: client.worker(other).state == "ready")
        assert not is_gone(away)
        gate.open()
        assert running.result(timeout=10) is None
        until(lambda: is_gone(away), "it is killed, as its worker is replaced")
        until(lambda: all_ready(client, 2))


def test_a_hundred_deaths_leave_nothing_open_and_no_zombie(client: Client, shared_pool: Pool) -> None:
    dying = client.using(max_retries=0, durable=False)

    def kill_some(count: int) -> int:
        for future in [dying.submit("die") for _ in range(count)]:
            with pytest.raises(WorkerDied):
                future.result(timeout=20)
        until(lambda: all_ready(client, 4), "all are replaced")
        return shared_pool.open_files()

    before = kill_some(8)
    assert kill_some(100) == before
    until(lambda: len(shared_pool.children()) == 5, "there are four workers and the template, and no zombie")
    client.purge()


# ------------------------------------------------------------------------------------------ hangs


@pytest.fixture(scope="module")
def watchful(short_path: Callable[[], Path]) -> Iterator[Client]:
    """A client of a pool with one worker, which looks after it when it has been silent for 0.3 s."""
    settings = {"heartbeat_interval_s": 0.1, "zombie_after_s": 0.3}
    pool = Pool(short_path(), app="handlers", app_directory=APPS, workers=1, **settings)
    with pool, pool.client() as client:
        yield client


def test_a_stopped_worker_is_continued_once(watchful: Client, gate: Gate) -> None:
    future = watchful.using(max_retries=0).submit("hold", gate.path, "continued")
    begun = gate.begun()
    os.kill(begun.pid, signal.SIGSTOP)
    gate.open()
    assert future.result(timeout=10) == "continued"
    assert watchful.worker(begun.worker).pid == begun.pid


def test_a_worker_that_is_busy_in_native_code_is_left_alone(watchful: Client) -> None:
    """It holds the GIL for longer than zombie_after_s, so no heart beats; its CPU time says that it works."""
    pid = watchful.run("whoami")
    assert watchful.using(max_retries=0).run("hold_the_gil") > 0.5
    assert watchful.run("whoami") == pid


def test_a_worker_that_sleeps_with_the_gil_held_is_replaced(watchful: Client) -> None:
    with watchful.events("zombie-detected") as zombies:
        future = watchful.using(max_retries=0).submit("sleep_with_the_gil")
        with pytest.raises(WorkerDied, match="hung"):
            future.result(timeout=20)
        seen = next(zombies)
        assert seen.fields["worker_id"] == "worker-0"
        assert seen.fields["verdict"] == "asleep"
    assert watchful.run("add", 1, 2) == 3


# ------------------------------------------------------------------------------------------ recycling


def test_processes_are_reused(client: Client) -> None:
    spawned = client.metrics()["workers"]["spawned"]
    assert {client.run("whoami") for _ in range(100)} <= set(pids(client).values())
    assert client.metrics()["workers"]["spawned"] == spawned


def test_a_worker_is_recycled_after_so_many_tasks(start_pool: Start) -> None:
    with start_pool(workers=1, max_tasks_per_worker=3).client() as client:
        seen = [client.run("whoami") for _ in range(9)]
        assert [seen.count(pid) for pid in dict.fromkeys(seen)] == [3, 3, 3]
        assert list(client.map("add", range(100), range(100))) == [2 * number for number in range(100)]


def test_an_ephemeral_task_has_a_process_of_its_own(client: Client) -> None:
    ran = [client.run("fresh") for _ in range(6)]
    assert [calls for _, calls in ran] == [1] * 6
    assert len({pid for pid, _ in ran}) == 6
    client.run("count_calls")
    assert client.using(ephemeral=True).run("count_calls") == 1


@pytest.mark.parametrize("setting", ["idle_timeout_s", "max_worker_age_s"])
def test_idle_and_old_workers_are_recycled(start_pool: Start, setting: str) -> None:
    with start_pool(workers=1, **{setting: 0.2}).client() as client:
        before = client.run("whoami")
        until(lambda: client.worker("worker-0").pid not in (before, None), "it is recycled")
        until(lambda: client.worker("worker-0").state == "ready")
        assert client.run("whoami") != before
        assert client.worker("worker-0").restarts >= 1


# ------------------------------------------------------------------------------------------ how many


def test_the_pool_grows_and_shrinks(client: Client, gate: Gate) -> None:
    held = client.submit("hold", gate.path, "kept")
    busy = gate.begun()
    assert client.scale(6) == 6
    until(lambda: sum(worker.state == "ready" for worker in client.workers()) == 5, "they are ready")
    assert client.scale("-5") == 1
    until(lambda: len(client.workers()) == 1, "the others are gone")
    assert client.worker(busy.worker).pid == busy.pid  # the idle ones went
    gate.open()
    assert held.result(timeout=10) == "kept"
    with pytest.raises(BadOption, match="min_workers 1 and max_workers 50"):
        client.scale(51)
    with pytest.raises(BadOption):
        client.scale(0)
    assert client.scale("+3") == 4


def test_a_worker_is_started_and_a_busy_one_drained(client: Client, gate: Gate) -> None:
    held = client.submit("hold", gate.path, "finished first")
    busy = gate.begun()
    started = client.start_worker()
    until(lambda: client.worker(started).state == "ready")
    client.stop_worker(busy.worker)
    assert client.worker(busy.worker).state == "draining"
    assert client.run("whoami") != busy.pid
    gate.open()
    assert held.result(timeout=10) == "finished first"
    until(lambda: len(client.workers()) == 4, "its slot is gone")
    with pytest.raises(NotFound):
        client.worker(busy.worker)


# ------------------------------------------------------------------------------------------ what tasks find


def test_signals_that_the_daemon_was_started_without_are_there_for_tasks(start_pool: Start) -> None:
    ignored = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)  # as by nohup, and by a shell's &
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        pool = start_pool()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)
    with pool.client() as client, Executor(client=client) as executor:
        find = executor.submit(
            lambda: (
                [signal.getsignal(number) is signal.SIG_IGN for number in ignored],
                list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            )
        )
        assert find.result(timeout=10) == ([False] * 3, [])


def test_a_task_that_empties_the_environment_takes_nothing_from_the_next(start_pool: Start) -> None:
    pool = start_pool(workers=1)
    with pool.client() as client, Executor(client=client) as executor:
        before = executor.submit(lambda: dict(os.environ)).result(timeout=10)
        assert set(OWN_VARIABLES) <= set(before)
        executor.submit(os.environ.clear).result(timeout=10)
        after = executor.submit(lambda: dict(os.environ)).result(timeout=10)
    assert after == before

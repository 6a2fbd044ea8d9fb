"""Workers that are exec'd: ``start_method = "spawn"``, apps that cannot be forked, and commands that cannot be run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from poolmgr import Client
from poolmgr.errors import TaskFailed, TaskTimeout, WorkerDied
from scripts.proofs.pool import NotStarted, Pool, until

Make = Callable[..., Pool]


@pytest.fixture(scope="module")
def spawning(short_path: Callable[[], Path]) -> object:
    from tests.integration.conftest import APPS

    with Pool(short_path(), app="handlers", app_directory=APPS, workers=2, start_method="spawn") as pool:
        yield pool


@pytest.fixture
def client(spawning: Pool) -> object:
    with spawning.client() as client:
        yield client


def command_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]


def maps_of(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_workers_are_execd_and_the_template_stays_empty(spawning: Pool, client: Client) -> None:
    pid = client.run("whoami")
    assert command_of(pid)[2:5] == ["-m", "poolmgr.worker.spawned", str(spawning.app_directory)]
    assert command_of(pid)[5:] == ["handlers"]
    assert Path(f"/proc/{pid}/comm").read_text().strip() in ("worker-0", "worker-1")
    assert {each.pid for each in client.workers()} <= set(spawning.children())
    assert os.getpgid(pid) == pid
    assert client.config()["start_method"] == "spawn"


def test_an_execd_worker_holds_nothing_but_its_own_files(client: Client) -> None:
    pid = client.run("whoami")
    held = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
    # 7 is the page once more, as Python's mmap keeps a descriptor of its own; 8 and 9 are of surroundings.py.
    assert held <= set(range(10))


def test_what_handlers_may_do_they_may_do_here(client: Client) -> None:
    assert client.run("add", 1, b=2) == 3
    assert client.run("gather", [1, 2, 3]) == 12
    assert len(client.run("zeros", 3_000_000)) == 3_000_000
    assert list(client.map("add", range(200))) == list(range(200))
    with pytest.raises(TaskFailed, match="no luck"):
        client.using(max_retries=0).run("fail", "no luck")


def test_time_outs_soft_and_hard(client: Client) -> None:
    with pytest.raises(TaskTimeout):
        client.using(soft_timeout_s=0.05, max_retries=0).run("nap", 30)
    with pytest.raises(TaskTimeout):
        client.using(timeout_s=0.05, max_retries=0).run("nap", 30)
    assert client.run("add", 1) == 1


def test_a_killed_worker_is_replaced(client: Client) -> None:
    with pytest.raises(WorkerDied):
        client.using(max_retries=0).run("die")
    until(lambda: all(each.state == "ready" for each in client.workers()))
    assert client.run("add", 1) == 1


def test_ephemeral_tasks_have_a_process_each(client: Client) -> None:
    pids = [client.using(ephemeral=True).run("whoami") for _ in range(4)]
    assert len(set(pids)) == 4


def test_its_output_is_logged_with_the_task(spawning: Pool, client: Client) -> None:
    client.run("chat", 2)
    until(lambda: "stdout" in spawning.log.read_text())


def test_nothing_of_it_outlives_a_killed_daemon(start_pool: Make) -> None:
    pool = start_pool(start_method="spawn")
    with pool.client() as client:
        client.run("leave_a_child", True)
    pool.kill()
    until(lambda: not pool.processes())


@pytest.mark.parametrize(
    ("app", "reasons"),
    [
        ("broken_import", ["Traceback (most recent call last)", "No module named 'no_such_module_anywhere'"]),
        ("same_names", ["two handlers have the name 'resize'"]),
        ("failing_hook", ["the @worker_startup hook connect failed", "the database is not there"]),
        ("exiting_import", ["the process ended while it imported the app: exit code 3"]),
    ],
)
def test_an_app_that_cannot_serve_fails_the_start(make_pool: Make, app: str, reasons: list[str]) -> None:
    with pytest.raises(NotStarted) as failed:
        make_pool(app=app, start_method="spawn").start()
    assert all(reason in failed.value.text for reason in reasons)


def test_a_command_that_cannot_be_run_fails_the_start(make_pool: Make) -> None:
    with pytest.raises(NotStarted, match="worker_command: 'no-such-command' cannot be run: No such file"):
        make_pool(worker_command="no-such-command --fast").start()


def test_an_app_that_has_started_threads_is_not_forked(start_pool: Make) -> None:
    pool = start_pool(app="threaded_import")
    with pool.client() as client:
        pid, threads = client.run("threads")
        assert "metrics" in threads
        assert "poolmgr.worker.spawned" in command_of(pid)
        health = client.health()
        assert health["status"] == "degraded"
        [alert] = health["alerts"]
        assert "@worker_startup" in alert
        assert "started threads (" in alert
        os.kill(pid, signal.SIGKILL)
        until(lambda: all(each.state == "ready" and each.pid != pid for each in client.workers()))

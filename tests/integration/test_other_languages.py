"""Workers that are no Python of ours: one in Node.js beside an app, and a whole pool of somebody else's."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolmgr import Client
from poolmgr.errors import TaskCancelled, TaskFailed, TaskTimeout, UnknownTask, WorkerDied
from scripts.proofs.pool import NotStarted, Pool, until
from tests.integration.conftest import APPS, NO_BREAKERS

Make = Callable[..., Pool]
THIRD_PARTY = Path(__file__).resolve().parents[1] / "conformance" / "third_party_worker.py"
TASKS = "third.add,third.whoami,third.nap"


@pytest.fixture(scope="module")
def foreign_pool(short_path: Callable[[], Path]) -> Iterator[Pool]:
    """A pool without an app, of workers that know nothing of poolmgr."""
    command = f"{sys.executable} {THIRD_PARTY}"
    with Pool(short_path(), app="", workers=2, worker_command=command, worker_tasks=TASKS, **NO_BREAKERS) as pool:
        yield pool


@pytest.fixture
def foreign(foreign_pool: Pool) -> Iterator[Client]:
    with foreign_pool.client() as client:
        yield client


def test_a_pool_of_somebody_elses_workers_runs_its_tasks(foreign: Client) -> None:
    assert foreign.run("third.add", 1, b=2) == 3
    assert list(foreign.map("third.add", range(300))) == list(range(300))
    assert {each.capabilities for each in foreign.workers()} == {("default", "third-party")}
    assert foreign.submit("third.add", 40, 2).result(timeout=10) == 42


def test_its_failures_are_those_of_any_worker(foreign: Client) -> None:
    with pytest.raises(TaskFailed, match="unsupported operand") as failed:
        foreign.using(max_retries=0).run("third.add", 1, "x")
    assert failed.value.type == "TypeError"
    with pytest.raises(UnknownTask, match=r"did you mean 'third.nap'"):
        foreign.run("third.naps")
    with pytest.raises(TaskTimeout):
        foreign.using(soft_timeout_s=0.05, max_retries=0).run("third.nap", 30)


def test_what_hangs_or_dies_is_replaced(foreign: Client, tmp_path: Path) -> None:
    with pytest.raises(TaskTimeout):
        foreign.using(timeout_s=0.05, max_retries=0).run("third.nap", 30)
    begun = tmp_path / "begun"  # a task that is killed before that is run again, at no cost
    future = foreign.using(max_retries=0).submit("third.nap", 30, str(begun))
    until(begun.exists)
    os.kill(next(each.pid for each in foreign.workers() if each.current_task and each.pid), signal.SIGKILL)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        future.result(timeout=10)
    until(lambda: all(each.state == "ready" for each in foreign.workers()))


def test_what_runs_can_be_cancelled(foreign: Client) -> None:
    future = foreign.submit("third.nap", 30)
    until(lambda: foreign.task(future.id).state == "running")
    assert foreign.cancel(future.id, kill=True)
    with pytest.raises(TaskCancelled):
        future.result(timeout=10)


def test_what_waits_behind_a_slow_task_goes_to_another_worker(foreign: Client) -> None:
    list(foreign.map("third.add", range(200)))  # so that it is known to be quick, and is prefetched
    futures = [foreign.submit("third.nap", 0.3), *[foreign.submit("third.add", n) for n in range(50)]]
    assert [future.result(timeout=10) for future in futures[1:]] == list(range(50))
    assert futures[0].result(timeout=10) == 0.3


def test_a_fresh_process_for_each_task(foreign: Client) -> None:
    assert len({foreign.using(ephemeral=True).run("third.whoami") for _ in range(3)}) == 3


def test_nothing_of_it_outlives_a_killed_daemon(make_pool: Make) -> None:
    pool = make_pool(app="", worker_command=f"{sys.executable} {THIRD_PARTY}", worker_tasks=TASKS).start()
    with pool.client() as client:
        client.submit("third.nap", 60).accepted(timeout=10)
    pool.kill()
    until(lambda: not pool.processes())


def test_its_unfinished_work_is_there_after_the_next_start(make_pool: Make) -> None:
    pool = make_pool(app="", worker_command=f"{sys.executable} {THIRD_PARTY}", worker_tasks=TASKS).start()
    with pool.client() as client:
        task = client.using(delay_s=0.5).submit("third.add", 20, 3)
        task.accepted(timeout=10)
    pool.kill()
    pool.start()
    with pool.client() as client:
        until(lambda: client.task(task.id).state == "completed")
        assert client.result(task.id) == 23


def test_a_worker_of_another_version_fails_the_start(make_pool: Make) -> None:
    pool = make_pool(app="", worker_command=f"env MISBEHAVE=wrong-version {sys.executable} {THIRD_PARTY}")
    with pytest.raises(NotStarted, match=r"worker-\d is of no use: .*protocol version 2, expected 1"):
        pool.start()


def test_a_task_of_the_app_and_of_a_command_fails_the_start(make_pool: Make) -> None:
    pool = make_pool(worker_command="true", worker_tasks="add")
    with pytest.raises(NotStarted, match="'add' is in the worker_tasks of group 'default', and the app has a handler"):
        pool.start()


# ----------------------------------------------------------------------------------------------------- Node.js


@pytest.fixture(scope="module")
def mixed_pool(short_path: Callable[[], Path], node_worker: Path) -> Iterator[Pool]:
    """Two workers of the app, and one in Node.js."""
    directory = short_path()
    (directory / "poolmgr.toml").write_text(
        f"""
        [[groups]]
        name = "js"
        size = 1
        worker_command = ["node", "{node_worker}"]
        worker_tasks = ["slug", "digest", "pause", "fail_in_js"]
        """
    )
    config = directory / "poolmgr.toml"
    with Pool(directory, app="handlers", app_directory=APPS, workers=3, min_workers=1, config=config) as pool:
        yield pool


@pytest.fixture
def mixed(mixed_pool: Pool) -> Iterator[Client]:
    with mixed_pool.client() as client:
        yield client


def test_each_task_reaches_workers_of_its_language(mixed: Client) -> None:
    assert mixed.run("slug", "Über allen Gipfeln", separator="_") == "über_allen_gipfeln"
    assert mixed.run("digest", b"abc", algorithm="md5") == "900150983cd24fb0d6963f7d28e17f72"
    assert list(mixed.map("add", range(50))) == list(range(50))
    assert list(mixed.map("slug", [f"No {n}" for n in range(50)])) == [f"no-{n}" for n in range(50)]
    assert {each.group: each.capabilities for each in mixed.workers()} == {
        "default": ("default",),
        "js": ("js", "nodejs"),
    }


def test_what_goes_wrong_there_is_told_as_everywhere(mixed: Client) -> None:
    with pytest.raises(TaskFailed, match="this worker has no task fail_in_js"):
        mixed.run("fail_in_js")
    with pytest.raises(TaskFailed, match="toLowerCase is not a function") as failed:
        mixed.using(max_retries=0).run("slug", 7)
    assert failed.value.type == "TypeError"
    assert "tasks.js" in failed.value.traceback
    with pytest.raises(TaskTimeout):
        mixed.using(soft_timeout_s=0.05, max_retries=0).run("pause", 30_000)
    pid = mixed.run("pause", 1)
    with pytest.raises(TaskTimeout):
        mixed.using(timeout_s=0.05, max_retries=0).run("pause", 30_000)
    assert mixed.run("pause", 1) != pid

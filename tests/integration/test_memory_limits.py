"""What a task may take, with real processes: seen, refused, given back."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from poolmgr import Client
from poolmgr.errors import OutOfMemory
from poolmgr.model import AttemptInfo
from scripts.proofs.pool import HERE, Pool, until

LIMIT_MB = 64
Start = Callable[..., Pool]


@pytest.fixture
def pool(start_pool: Start) -> Pool:
    return start_pool(app="hogs", app_directory=HERE, workers=1, worker_memory_limit_mb=LIMIT_MB)


def only_attempt(client: Client, name: str, *arguments: object, **options: object) -> AttemptInfo:
    """Of a task that takes too much."""
    future = client.using(max_retries=0, **options).submit(name, *arguments)
    with pytest.raises(OutOfMemory):
        future.result(timeout=30)
    [attempt] = client.task(future.id).attempts
    return attempt


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("hog_in_a_loop", (1000,)),
        ("hog_shared", (1000,)),
        ("hog_in_file", (1000,)),
        ("hog_in_children", (1000, 2)),
        ("hog_in_orphan", (1000,)),
    ],
)
def test_one_that_takes_too_much_is_killed_and_says_why(pool: Pool, name: str, arguments: tuple[int, ...]) -> None:
    with pool.client() as client:
        before = client.worker("worker-0").pid
        attempt = only_attempt(client, name, *arguments)
        assert attempt.cause == "out_of_memory"
        assert "its limit is 64 MB, and was killed" in attempt.message
        assert attempt.post_mortem is not None
        assert attempt.post_mortem.signal is not None
        assert f" in {name}\n" in attempt.post_mortem.stacks
        assert attempt.post_mortem.peak_memory_mb > 1
        assert client.run("square", 3, 0.0) == 9
        assert client.worker("worker-0").pid != before
        assert [pid for pid in pool.processes() if pid == before] == []


def test_what_is_refused_says_so_too_and_costs_a_fresh_process(pool: Pool) -> None:
    with pool.client() as client:
        before = client.worker("worker-0").pid
        attempt = only_attempt(client, "hog_at_once", 4000)
        assert (attempt.cause, attempt.type.endswith("MemoryError")) == ("out_of_memory", True)
        assert "its limit is 64 MB" in attempt.message
        assert " in hog_at_once\n" in attempt.traceback
        assert attempt.post_mortem is not None
        assert attempt.post_mortem.peak_memory_mb > 1
        until(lambda: client.worker("worker-0").pid != before, "it is replaced")
        assert client.run("square", 3, 0.0) == 9


def test_forks_that_share_its_memory_are_not_counted_again(pool: Pool) -> None:
    with pool.client() as client:
        assert client.using(max_retries=0).run("share_with_children", LIMIT_MB // 2, 3, 0.5) == LIMIT_MB // 2


def test_a_task_may_take_more_or_less_than_others(pool: Pool) -> None:
    with pool.client() as client:
        heavy = client.using(max_retries=0, memory_limit_mb=4 * LIMIT_MB)
        assert heavy.run("hog_in_a_loop", 2 * LIMIT_MB) == 2 * LIMIT_MB
        limit = resource.prlimit(client.worker("worker-0").pid or 0, resource.RLIMIT_DATA)
        assert "its limit is 16 MB" in only_attempt(client, "hog_in_a_loop", 8 * LIMIT_MB, memory_limit_mb=16).message
        until(lambda: client.worker("worker-0").state == "ready", "it is replaced")
        again = resource.prlimit(client.worker("worker-0").pid or 0, resource.RLIMIT_DATA)
        assert again[0] == pytest.approx(limit[0], abs=16 << 20), "the pool's own is in force again"


def test_a_limit_that_a_task_has_changed_is_put_back(start_pool: Start) -> None:
    pool = start_pool(app="hogs", app_directory=HERE, workers=1, worker_memory_limit_mb=LIMIT_MB)
    with pool.client() as client:
        pid = client.worker("worker-0").pid or 0
        before = resource.prlimit(pid, resource.RLIMIT_DATA)
        assert before[0] != resource.RLIM_INFINITY
        assert client.run("set_own_limit", 3 << 30) == pid
        until(lambda: resource.prlimit(pid, resource.RLIMIT_DATA) == before, "it is as it was")


def test_one_that_holds_too_much_at_rest_is_replaced_at_no_cost(pool: Pool) -> None:
    with pool.client() as client:
        before = client.worker("worker-0").pid
        heavy = client.using(max_retries=0, memory_limit_mb=4 * LIMIT_MB)
        assert heavy.run("leak", 2 * LIMIT_MB) == before
        until(lambda: client.worker("worker-0").pid not in (None, before), "it is replaced")
        assert client.run("square", 3, 0.0) == 9


def test_garbage_is_given_back_first(pool: Pool) -> None:
    with pool.client() as client:
        before = client.worker("worker-0").pid
        heavy = client.using(max_retries=0, memory_limit_mb=4 * LIMIT_MB)
        assert heavy.run("make_garbage", 2 * LIMIT_MB) == before
        until(lambda: client.worker("worker-0").memory_used_mb > LIMIT_MB, "that is seen")
        until(lambda: client.worker("worker-0").memory_used_mb < LIMIT_MB, "it gives back")
        assert client.worker("worker-0").pid == before


def test_without_a_limit_nothing_is_set(start_pool: Start) -> None:
    pool = start_pool(app="hogs", app_directory=HERE, workers=1, worker_memory_limit_mb=0)
    with pool.client() as client:
        worker = client.worker("worker-0")
        assert resource.prlimit(worker.pid or 0, resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
        assert client.run("hog_in_a_loop", 100) == 100
        assert worker.memory_limit_mb == 0


def test_an_exec_d_worker_has_a_limit_too(start_pool: Start) -> None:
    pool = start_pool(app="hogs", app_directory=HERE, workers=1, worker_memory_limit_mb=LIMIT_MB, start_method="spawn")
    with pool.client() as client:
        assert only_attempt(client, "hog_in_a_loop", 1000).cause == "out_of_memory"


def test_status_says_what_is_in_force(pool: Pool) -> None:
    with pool.client() as client:
        limits = client.metrics()["memory_limits"]
        assert (limits["statm"], limits["rlimit_data"]) == ("10 Hz", "in force")
        assert limits["cgroup_memory_max"] == "in force" or "not enforced by the kernel" in limits["cgroup_memory_max"]
        assert client.worker("worker-0").memory_limit_mb == LIMIT_MB


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the kernel has no smaps_rollup")
def test_a_process_is_measured_as_it_is() -> None:
    from poolmgr.manager import procfs

    before, shared_before = procfs.memory(os.getpid()), procfs.shared_memory_mb(os.getpid())
    held = bytearray(b"x" * (1 << 20)) * 50
    after = procfs.memory(os.getpid())
    assert after.own_mb - before.own_mb == pytest.approx(50, abs=10)
    assert procfs.shared_memory_mb(os.getpid()) == pytest.approx(shared_before, abs=1)
    share_mb = procfs.share_mb(os.getpid())
    assert share_mb is not None
    assert share_mb >= len(held) >> 20

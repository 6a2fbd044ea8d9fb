"""Control groups for workers, where some may be made: here, below the tests' own group, as systemd would hand one over.

What tasks start here has left its session, thrown its environment away, and has a living parent that is no worker.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolmgr.manager.delegation import own_cgroup
from poolmgr.model import WorkerInfo
from poolmgr.worker.warden import remove_cgroup, stat
from scripts.proofs.pool import Pool, until
from tests.integration.conftest import Gate

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


def enter(group: Path) -> list[str]:
    """What runs the command behind it in a control group."""
    return ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group, not marked as handed over."""
    path = Path(own_cgroup()) / f"poolmgr-test-{os.getpid()}"
    try:
        path.mkdir()
        assert (path / "cgroup.kill").exists()
        subprocess.run([*enter(path), "true"], check=True)
    except (OSError, AssertionError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no control groups can be made here: {error}")
    yield path
    until(lambda: remove_cgroup(str(path)), "its group is empty")


@pytest.fixture
def pool(group: Path, make_pool: Callable[..., Pool]) -> Pool:
    """A daemon in a group that is handed over to it. It is not started yet."""
    os.setxattr(group, "user.delegate", b"1")
    pool = make_pool()
    pool.command = [*enter(group), *pool.command]
    return pool


def label_of(worker: WorkerInfo) -> str:
    return f"{worker.id}.{worker.incarnation}"


def members(group: Path) -> list[str]:
    """The pids in a group; none where it is not made yet."""
    return (group / "cgroup.procs").read_text().split() if group.exists() else []


def hide(pool: Pool, gate: Gate) -> tuple[str, list[int]]:
    """A task has started two processes, and holds: the label of its worker, and their pids."""
    with pool.client() as client:
        groups = [Path(client.metrics()["cgroup"]) / label_of(each) for each in client.workers()]
        until(lambda: all(map(members, groups)), "each worker is in its group")
        client.submit("hide_and_hold", gate.path)
        begun = gate.begun()
        return label_of(client.worker(begun.worker)), [int(pid) for pid in begun.label.split()]


def live(pids: list[int]) -> list[bool]:
    return [stat(pid)[:1] not in ([], ["Z"]) for pid in pids]  # whose orphans they are need not be quick to reap them


def test_what_a_worker_has_started_goes_with_it_and_so_does_its_group(pool: Pool, gate: Gate, group: Path) -> None:
    pool.start()
    with pool.client() as client:
        label, pids = hide(pool, gate)
        own = Path(client.metrics()["cgroup"])
        assert own.parent == group
        assert set(map(str, pids)) < set(members(own / label))
        [task] = client.tasks(state="running")
        assert client.cancel(task.id, kill=True)
        until(lambda: not any(live(pids)), "both are gone")
        until(lambda: not (own / label).exists(), "its group is gone")
        fresh = [label_of(each) for each in client.workers()]
        until(lambda: sorted(each.name for each in own.iterdir() if each.is_dir()) == fresh, "each has its own")
    assert pool.stop() == 0
    assert not own.exists()


def test_the_warden_kills_the_groups_of_a_daemon_that_was_killed(pool: Pool, gate: Gate, group: Path) -> None:
    pool.start()
    _, pids = hide(pool, gate)
    pool.kill()
    until(lambda: not any(live(pids)), "both are gone")
    until(lambda: not [each for each in group.iterdir() if each.is_dir()], "its groups are gone")


def test_so_does_the_next_start_where_the_warden_was_killed_too(pool: Pool, gate: Gate, group: Path) -> None:
    pool.start()
    _, pids = hide(pool, gate)
    [left] = [each for each in group.iterdir() if each.is_dir()]
    template = pool.template()
    pool.signal(signal.SIGSTOP)  # or it would start another
    os.kill(template, signal.SIGKILL)
    pool.kill()
    assert live(pids) == [True, True], "nothing else finds them"
    pool.start()
    assert live(pids) == [False, False]
    assert not left.exists()


def test_what_a_startup_hook_has_started_is_in_the_group(pool: Pool) -> None:
    pool.command[-1] = "helping_hook"
    pool.start()
    with pool.client() as client:
        worker = client.worker("worker-0")
        group = Path(client.metrics()["cgroup"]) / label_of(worker)
        until(lambda: len(members(group)) == 2, "it and its helper are there")


def found_from(group: Path, *, user: int = 0) -> str:
    """Where a process in this group, of this user, takes it that it may make some."""
    code = (
        f"import os; from poolmgr.manager.delegation import pool_cgroup; os.setuid({user}); print(pool_cgroup('tag'))"
    )
    command = [*enter(group), sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def test_none_are_made_where_nothing_was_handed_over(group: Path) -> None:
    assert found_from(group) == ""


def test_a_group_that_was_handed_over(group: Path) -> None:
    os.setxattr(group, "user.delegate", b"1")
    assert found_from(group) == f"{group}/poolmgr.tag"


def test_a_subgroup_of_one_that_was_handed_over(group: Path) -> None:
    os.setxattr(group, "user.delegate", b"1")
    (group / "daemon").mkdir()
    assert found_from(group / "daemon") == f"{group}/poolmgr.tag"


def test_a_group_of_its_own_user_who_is_not_root(group: Path) -> None:
    if os.geteuid():
        pytest.skip("another user's process can be started by root alone")
    os.chown(group, NOBODY, NOBODY)
    assert found_from(group, user=NOBODY) == f"{group}/poolmgr.tag"
    assert found_from(group) == ""

"""What is written to control groups, and read from them: here they are plain directories."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from poolmgr.manager import memory_controller

MB = 1 << 20


def group(path: Path, **files: str) -> Path:
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


def limited(path: Path, current: int = 0) -> Path:
    return group(path, memory__oom__group="0", memory__max="max", memory__current=str(current))


def test_the_controller_is_handed_down(tmp_path: Path) -> None:
    above = group(tmp_path / "above", cgroup__controllers="cpu memory pids", cgroup__subtree_control="")
    pool = group(above / "poolmgr.tag", cgroup__subtree_control="")
    assert memory_controller.enable(str(pool)) == memory_controller.IN_FORCE
    assert (above / "cgroup.subtree_control").read_text() == "+memory"
    assert (pool / "cgroup.subtree_control").read_text() == "+memory"


def test_where_there_is_none_it_says_so(tmp_path: Path) -> None:
    above = group(tmp_path / "above", cgroup__controllers="cpu pids", cgroup__subtree_control="")
    pool = group(above / "poolmgr.tag", cgroup__subtree_control="")
    assert memory_controller.enable(str(pool)) == "not enforced by the kernel (no memory controller)"
    assert (above / "cgroup.subtree_control").read_text() == ""


class _Kernel:
    """Refuses to hand a controller down from a group that holds processes."""

    def __init__(self, above: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._above = above
        self._really = os.write
        self._open = os.open
        self._names: dict[int, str] = {}
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "write", self.write)

    def open(self, path: str, flags: int, *more: int) -> int:
        if path.endswith("/daemon/cgroup.procs"):
            flags |= os.O_CREAT | os.O_APPEND
        fd = self._open(path, flags, *more)
        self._names[fd] = path
        return fd

    def write(self, fd: int, data: bytes) -> int:
        path = self._names.get(fd, "")
        procs = self._above / "cgroup.procs"
        if path == str(self._above / "cgroup.subtree_control") and procs.read_text():
            raise OSError(errno.EBUSY, "Device or resource busy")
        if path.endswith("/daemon/cgroup.procs"):
            procs.write_text(procs.read_text().replace(f"{data.decode()}\n", ""))
        return self._really(fd, data)


def test_the_daemon_leaves_a_group_that_it_is_alone_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    above = group(
        tmp_path / "above", cgroup__controllers="memory", cgroup__subtree_control="", cgroup__procs=f"{os.getpid()}\n"
    )
    pool = group(above / "poolmgr.tag", cgroup__subtree_control="")
    _Kernel(above, monkeypatch)
    assert memory_controller.enable(str(pool)) == memory_controller.IN_FORCE
    assert (above / "daemon" / "cgroup.procs").read_text() == str(os.getpid())


def test_and_moves_nobody_elses_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    above = group(
        tmp_path / "above",
        cgroup__controllers="memory",
        cgroup__subtree_control="",
        cgroup__procs=f"{os.getpid()}\n1\n",
    )
    pool = group(above / "poolmgr.tag", cgroup__subtree_control="")
    _Kernel(above, monkeypatch)
    assert "other processes" in memory_controller.enable(str(pool))
    assert not (above / "daemon").exists()


def test_a_limit_and_one_of_a_task(tmp_path: Path) -> None:
    worker = limited(tmp_path / "worker-0.1", current=10 * MB)
    memory_controller.limit(str(worker), 64)
    assert (worker / "memory.max").read_text() == str(64 * MB)
    assert (worker / "memory.oom.group").read_text()[0] == "1"
    memory_controller.cap(str(worker), 16, more=True)
    assert (worker / "memory.max").read_text()[:8] == str(26 * MB)
    memory_controller.cap(str(worker), 64, more=False)
    assert (worker / "memory.max").read_text()[:8] == str(64 * MB)


def test_no_limit_is_below_what_is_there(tmp_path: Path) -> None:
    worker = limited(tmp_path / "worker-0.1", current=100 * MB)
    memory_controller.cap(str(worker), 64, more=False)
    assert (worker / "memory.max").read_text() == str(100 * MB)


@pytest.mark.parametrize(("count", "killed"), [(0, False), (1, True), (3, True)])
def test_whether_the_kernel_has_killed(tmp_path: Path, count: int, killed: bool) -> None:
    worker = group(tmp_path / "worker-0.1", memory__events=f"low 0\nhigh 0\nmax 9\noom 1\noom_kill {count}\n")
    assert memory_controller.oom_killed(str(worker)) is killed


def test_without_a_group_that_cannot_be_told(tmp_path: Path) -> None:
    assert memory_controller.oom_killed(str(tmp_path / "gone")) is None

"""What is in use of the memory, read from files like those of /proc and of the control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolmgr.manager.machine_memory import MachineMemory

MB = 1 << 20


class Machine:
    """Files as the kernel shows them."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroups = root / "proc", root / "cgroup"
        self.write(self.proc / "meminfo", "MemTotal: 1000 kB\nMemFree: 20 kB\nMemAvailable: 600 kB\nCached: 560 kB\n")
        self.groups("0::/\n")

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")

    def groups(self, text: str) -> None:
        self.write(self.proc / "self" / "cgroup", text)

    def v2(self, group: str, limit: str, current_mb: int, files_mb: int, stalls: str = "0.00") -> None:
        directory = self.cgroups / group
        self.write(directory / "memory.max", f"{limit}\n")
        self.write(directory / "memory.current", f"{current_mb * MB}\n")
        stat = f"anon 1\ninactive_file {files_mb * MB // 2}\nactive_file {files_mb * MB // 2}\nslab_reclaimable 0\n"
        self.write(directory / "memory.stat", stat)
        pressure = f"some avg10=99.00 avg60=0.00 avg300=0.00 total=1\nfull avg10={stalls} avg60=0.00 total=1\n"
        self.write(directory / "memory.pressure", pressure)

    def v1(self, group: str, limit: int, usage_mb: int, files_mb: int) -> None:
        directory = self.cgroups / "memory" / group
        self.write(directory / "memory.limit_in_bytes", f"{limit}\n")
        self.write(directory / "memory.usage_in_bytes", f"{usage_mb * MB}\n")
        stat = f"inactive_file 0\ntotal_inactive_file {files_mb * MB}\ntotal_active_file 0\n"
        self.write(directory / "memory.stat", stat)

    def percent(self) -> float:
        found = MachineMemory(self.proc, self.cgroups).read()
        assert found is not None
        return round(found.percent, 3)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_of_the_machine_what_is_not_available_is_in_use(machine: Machine) -> None:
    assert machine.percent() == 40.0  # although all but 2 % is filled
    found = MachineMemory(machine.proc, machine.cgroups).read()
    assert found is not None
    assert (found.stalled, found.of) == (0.0, "the machine's memory")


def test_the_kernel_tells_for_how_long_all_stood_still(machine: Machine) -> None:
    text = "some avg10=80.00 avg60=1.00 avg300=0.00 total=9\nfull avg10=12.50 avg60=0.00 avg300=0.00 total=9\n"
    machine.write(machine.proc / "pressure" / "memory", text)
    found = MachineMemory(machine.proc, machine.cgroups).read()
    assert found is not None
    assert found.stalled == 12.5


def test_a_group_full_of_page_cache_is_empty(machine: Machine) -> None:
    machine.groups("0::/service/daemon\n")
    machine.v2("service/daemon", str(100 * MB), 99, 90)
    assert machine.percent() == 40.0  # the machine is the tighter one
    machine.v2("service/daemon", str(100 * MB), 99, 9, stalls="33.00")
    assert machine.percent() == 90.0
    found = MachineMemory(machine.proc, machine.cgroups).read()
    assert found is not None
    assert (found.stalled, found.of) == (33.0, "the 100 MB of its control group")


def test_the_limit_may_be_that_of_a_group_above(machine: Machine) -> None:
    machine.groups("0::/slice/service/daemon\n")
    machine.v2("slice/service/daemon", "max", 10, 0)
    machine.v2("slice", str(200 * MB), 100, 0)
    assert machine.percent() == 50.0


def test_in_a_container_the_limit_is_at_the_root(machine: Machine) -> None:
    machine.groups("0::/../../outside\n")
    machine.v2(".", str(200 * MB), 150, 0)
    assert machine.percent() == 75.0


def test_the_older_groups_count_as_well(machine: Machine) -> None:
    machine.groups("5:devices:/\n4:memory:/jobs/one\n0::/\n")
    machine.v1("jobs/one", 100 * MB, 98, 40)
    assert machine.percent() == 58.0
    machine.v1("jobs/one", 0x7FFFFFFFFFFFF000, 98, 0)
    assert machine.percent() == 40.0  # that number means none


def test_what_cannot_be_read_is_no_pressure(tmp_path: Path) -> None:
    assert MachineMemory(tmp_path / "proc", tmp_path / "cgroup").read() is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 1000 kB\n", encoding="ascii")  # before Linux 3.14
    assert MachineMemory(tmp_path / "proc", tmp_path / "cgroup").read() is None


def test_this_machine_can_be_measured() -> None:
    found = MachineMemory().read()
    assert found is not None
    assert 0.0 < found.percent < 100.0

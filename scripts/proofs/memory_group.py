"""A control group with little memory, where one may be made: what is proven there disturbs nobody else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from poolmgr.manager.machine_memory import MachineMemory, Measure
from scripts.proofs.pool import until

_CGROUPS: Final = Path("/sys/fs/cgroup")


class Ground(NamedTuple):
    """Where a proof takes place: in the control group ``group``, or, where that is None, on the machine as a whole."""

    group: Path | None
    total_mb: int
    memory: MachineMemory  # as a daemon here sees it

    def command(self, command: Sequence[str]) -> list[str]:
        """The same command, to be run here."""
        if self.group is None:
            return [*command]
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.group / "cgroup.procs"), *command]

    def in_use(self) -> Measure:
        """What a daemon here would measure."""
        found = self.memory.read()
        assert found is not None, "it cannot be measured here"
        return found

    def filled(self) -> float:
        """Percent of the memory that is filled with anything, page cache included."""
        if self.group is not None:
            name = "memory.usage_in_bytes" if _is_v1(self.group) else "memory.current"
            return 100.0 * int((self.group / name).read_text()) / (self.total_mb << 20)
        found = _meminfo()
        return 100.0 * (1.0 - found["MemFree:"] / found["MemTotal:"])


@contextmanager
def ground(limit_mb: int) -> Iterator[Ground]:
    """A control group of so much memory, which has to be empty in the end; the machine where none can be made."""
    group = _make(limit_mb)
    if group is None:
        yield Ground(None, _meminfo()["MemTotal:"] >> 10, MachineMemory())
        return
    try:
        with tempfile.TemporaryDirectory(prefix="pm-proc-") as proc:  # which knows of nothing but this group
            (Path(proc) / "self").mkdir()
            (Path(proc) / "self" / "cgroup").write_text(f"1:{'memory' if _is_v1(group) else ''}:/{group.name}\n")
            yield Ground(group, limit_mb, MachineMemory(Path(proc)))
    finally:
        until(lambda: not (group / "cgroup.procs").read_text(), "the control group is empty")
        group.rmdir()


def one_can_be_made() -> bool:
    """Whether this user may make a control group that limits memory."""
    group = _make(16)
    if group is not None:
        group.rmdir()
    return group is not None


def _make(limit_mb: int) -> Path | None:
    for parent in (_CGROUPS / "memory", _CGROUPS):
        group = parent / f"poolmgr-proof-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / ("memory.limit_in_bytes" if _is_v1(group) else "memory.max")).write_text(str(limit_mb << 20))
        except OSError:  # no controller of memory here
            group.rmdir()
        else:
            return group
    return None


def _is_v1(group: Path) -> bool:
    return group.parent.name == "memory"


def _meminfo() -> dict[str, int]:
    """In kB."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines}

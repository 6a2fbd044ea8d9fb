"""The model of a disk that loses power, and the reading of a trace."""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from scripts.proofs.disk_model import SECTOR_BYTES, Disk
from scripts.proofs.traced import Call, record


def _disk(*calls: Call) -> Disk:
    disk = Disk({"old": b"old"})
    for call in calls:
        disk.apply(call)
    return disk


def test_a_write_is_seen_at_once_and_is_certain_after_a_sync() -> None:
    disk = _disk(Call("write", "old", 1, b"xy"))
    assert (disk.whole(), disk.least()) == ({"old": b"oxy"}, {"old": b"old"})
    disk.apply(Call("sync", "old"))
    assert disk.certain
    assert disk.least() == {"old": b"oxy"}


def test_a_new_file_is_there_once_its_directory_is_synced_too() -> None:
    disk = _disk(Call("create", "new"), Call("write", "new", 0, b"n"), Call("sync", "new"))
    assert "new" not in disk.least()
    disk.apply(Call("sync", "."))
    assert disk.least() == {"old": b"old", "new": b"n"}


def test_what_is_in_a_directory_is_there_if_that_is() -> None:
    disk = _disk(Call("mkdir", "d"), Call("create", "d/f"), Call("sync", "d/f"), Call("sync", "d"))
    assert (set(disk.whole()), set(disk.least())) == ({"old", "d/f"}, {"old"})
    disk.apply(Call("sync", "."))
    assert set(disk.least()) == {"old", "d/f"}


def test_a_rename_replaces_and_an_unlink_removes_for_certain_only_after_a_sync() -> None:
    disk = _disk(Call("create", "new"), Call("sync", "."), Call("rename", "new", to="old"))
    assert (disk.whole(), disk.least()) == ({"old": b""}, {"old": b"old", "new": b""})
    disk.apply(Call("unlink", "old"))
    assert (disk.whole(), set(disk.least())) == ({}, {"old", "new"})
    disk.apply(Call("sync", "."))
    assert disk.least() == {}


def test_a_file_is_cut_and_grows() -> None:
    disk = _disk(Call("truncate", "old", 1), Call("truncate", "old", 3), Call("write", "old", 5, b"!"))
    assert disk.whole() == {"old": b"o\0\0\0\0!"}


def test_any_sector_of_a_write_may_be_missing_and_none_is_torn() -> None:
    disk = _disk(Call("write", "old", 0, b"x" * 3 * SECTOR_BYTES))
    chance = random.Random(1)
    seen = set()
    for _ in range(200):
        content = disk.any(chance)["old"].ljust(3 * SECTOR_BYTES, b"\0")
        sectors = [content[each : each + SECTOR_BYTES] for each in range(0, len(content), SECTOR_BYTES)]
        assert all(len(set(sector)) == 1 or sector.startswith(b"old") for sector in sectors)
        seen.add(tuple(sector[:1] for sector in sectors))
    assert len(seen) == 2**3


_SCRIPT = """
import os, sys
d = sys.argv[1] + "/d"
os.mkdir(d)
f = os.open(d + "/f", os.O_CREAT | os.O_WRONLY, 0o600)
os.write(f, b"ab"); os.write(f, b"c"); os.pwrite(f, b"Z", 1); os.ftruncate(f, 2); os.fsync(f)
os.rename(d + "/f", d + "/g")
os.write(1, b"said")
os.unlink(d + "/g")
os.fsync(os.open(d, os.O_RDONLY))
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace records what is written")
def test_a_trace_tells_all_that_was_done_and_said(tmp_path: Path) -> None:
    directory = tmp_path / "disk"
    directory.mkdir()
    calls = record([sys.executable, "-c", _SCRIPT, os.fspath(directory)], directory, tmp_path / "trace")
    assert calls == [
        Call("mkdir", "d"),
        Call("create", "d/f"),
        Call("write", "d/f", 0, b"ab"),
        Call("write", "d/f", 2, b"c"),
        Call("write", "d/f", 1, b"Z"),
        Call("truncate", "d/f", 2),
        Call("sync", "d/f"),
        Call("rename", "d/f", to="d/g"),
        Call("say", "", data=b"said"),
        Call("unlink", "d/g"),
        Call("sync", "d"),
    ]

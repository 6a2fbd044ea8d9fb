"""The log, where systemd's journal reads it: a priority before each line, no time, no level."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from poolmgr.daemon.log import is_journal

PROGRAM = """
import logging
from poolmgr.daemon.log import log_to_stderr
log_to_stderr()
log = logging.getLogger("poolmgr.pool")
log.debug("no")
log.info("one")
log.warning("two\\nlines")
log.error("four")
log.critical("five")
"""


def written(path: Path, environ: dict[str, str]) -> str:
    with path.open("w") as file:
        subprocess.run([sys.executable, "-c", PROGRAM], stderr=file, env={**os.environ, **environ}, check=True)
    return path.read_text()


def test_the_journal_gets_a_priority_for_each_line(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.touch()
    found = path.stat()
    assert written(path, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}).splitlines() == [
        "<6>poolmgr.pool: one",
        "<4>poolmgr.pool: two",
        "<4>lines",
        "<3>poolmgr.pool: four",
        "<2>poolmgr.pool: five",
    ]


@pytest.mark.parametrize("stream", ["", "1:2"])
def test_a_file_gets_the_time_and_the_level(tmp_path: Path, stream: str) -> None:
    lines = written(tmp_path / "log", {"JOURNAL_STREAM": stream}).splitlines()
    assert [line.partition(" ")[2].partition(" ")[2] for line in lines[:2]] == [
        "INFO poolmgr.pool: one",
        "WARNING poolmgr.pool: two",
    ]


def test_only_the_very_file_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        found = os.fstat(file.fileno())
        assert is_journal(file.fileno(), {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not is_journal(file.fileno(), {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not is_journal(file.fileno(), {})

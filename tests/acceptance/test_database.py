"""poolmgr db, with a daemon and without one."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.shell import POOLMGR, Shell, private_shell

LARGE = '"' + "x" * 70_000 + '"'


@pytest.fixture(scope="module")
def stopped() -> Iterator[Shell]:
    """A daemon has stopped. It has left one task in the queue, whose argument is large, and two results."""
    with private_shell() as shell:
        shell.start()
        shell.run("submit", "add", LARGE, '"y"', "--wait")
        shell.run("submit", "add", "1", "2", "--wait")
        shell.run("pause", "add")
        shell.run("submit", "add", LARGE, '"z"')
        shell.run("stop")
        yield shell


@pytest.fixture
def shell(stopped: Shell) -> Iterator[Shell]:
    """A copy of it for each test."""
    with private_shell() as shell:
        shutil.copytree(stopped.directory / "state", shell.directory / "state")
        yield shell


def database(shell: Shell) -> Path:
    return shell.directory / "state" / "poolmgr.db"


def files_of(shell: Shell) -> list[str]:
    return sorted(os.listdir(shell.directory / "state"))


@pytest.fixture(params=["with a daemon", "without a daemon"])
def either(request: pytest.FixtureRequest, shell: Shell) -> Shell:
    if request.param == "with a daemon":
        shell.start()
    return shell


def test_a_good_database_is_in_order(either: Shell) -> None:
    before = files_of(either)
    assert either.ask("db", "check") == {"path": str(database(either)), "ok": True, "found": []}
    assert either.run("db", "check") == f"{database(either)} is in order\n"
    assert files_of(either) == before


def test_damage_is_told(shell: Shell) -> None:
    with closing(sqlite3.connect(database(shell))) as connection:
        (payload,) = connection.execute("SELECT file FROM spool WHERE kind = 'payload' LIMIT 1").fetchone()
        connection.execute("INSERT INTO long_outcomes VALUES (x'0a', x'00')")
        connection.execute("UPDATE tasks SET options = x'93' WHERE outcome IS NULL AND ended_at IS NOT NULL")
        connection.execute("DELETE FROM spool WHERE kind = 'outcome'")
        connection.commit()
    (shell.directory / "state" / "spool" / payload).write_bytes(b"short")
    done = subprocess.run(
        [POOLMGR, "db", "check"], cwd=shell.directory, env=shell.environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    for found in (
        "makes no sense",
        "an outcome of task 0a is kept, and not the task",
        "has ended, and has no outcome",
        f"spool/{payload} has 5 bytes in place of",
        "no row names the file",
    ):
        assert found in done.stdout


def test_a_backup_is_whole_and_a_daemon_starts_from_it(either: Shell) -> None:
    target = either.directory / "copy.db"
    answer = either.ask("db", "backup", "copy.db")
    assert answer == {"path": str(target), "bytes": target.stat().st_size}
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with private_shell() as other:
        (other.directory / "state").mkdir(mode=0o700)
        shutil.copy(target, database(other))
        other.start()
        assert other.run("db", "check") == f"{database(other)} is in order\n"
        found = {each["id"]: each["state"] for each in other.ask("tasks")}
        assert len(found) == 3
        results = sorted(len(str(other.ask("result", id)["result"])) for id in found)
        assert results == [1, 70_001, 70_001]


def test_a_backup_overwrites_nothing(either: Shell) -> None:
    target = either.directory / "copy.db"
    target.write_text("dear to somebody")
    said = either.run("db", "backup", "copy.db", code=1)
    assert said == f"poolmgr: {target} is there already, and is not overwritten: choose another name\n"
    assert target.read_text() == "dear to somebody"
    said = either.run("db", "backup", "nowhere/copy.db", code=1)
    assert "it cannot be opened: look at the owner and mode" in said
    assert not list(either.directory.glob("*.part"))


def test_vacuum_gives_space_back(either: Shell) -> None:
    if either.pid_file.exists():
        assert either.ask("db", "vacuum")["bytes_after"] > 0
        return
    with closing(sqlite3.connect(database(either))) as connection:
        connection.executemany(
            "INSERT INTO long_payloads VALUES (?, zeroblob(50000))", ((b"%d" % n,) for n in range(50))
        )
        connection.commit()
        connection.execute("DELETE FROM long_payloads WHERE length(id) < 16")
        connection.commit()
    answer = either.ask("db", "vacuum")
    assert answer["bytes_before"] > 2_500_000
    assert answer["bytes_after"] < 200_000
    assert either.run("db", "check") == f"{database(either)} is in order\n"


def test_what_is_not_there_is_told(shell: Shell) -> None:
    said = shell.run("db", "check", "--state-dir", "elsewhere", code=1)
    assert said.startswith(f"poolmgr: there is no {shell.directory}/elsewhere/poolmgr.db: name the directory")
    assert not (shell.directory / "elsewhere").exists()
    pid = shell.start()
    said = shell.run("db", "check", "--state-dir", "state", code=1)
    assert said.startswith(f"poolmgr: a daemon (pid {pid}) already holds the state directory {shell.directory}/state")
    assert "name its socket" in said

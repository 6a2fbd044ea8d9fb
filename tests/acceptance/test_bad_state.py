"""poolmgr start on a state directory that it must not, or cannot, write to."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.shell import POOLMGR, Shell, await_end, private_shell


@pytest.fixture(scope="module")
def crashed() -> Iterator[Shell]:
    """A daemon that was killed has left its files: the database, in which a daemon before it has left a task, and its
    log."""
    with private_shell() as shell:
        shell.start()
        shell.run("pause", "add")
        shell.run("submit", "add", "long" * 5000)
        shell.run("stop")
        pid = shell.start()
        shell.run("pause", "add")
        for number in range(3):
            shell.run("submit", "add", str(number))
        os.kill(pid, signal.SIGKILL)
        await_end(pid)
        yield shell


@pytest.fixture
def shell(crashed: Shell) -> Iterator[Shell]:
    """Another such one, for each test."""
    with private_shell() as shell:
        (shell.directory / "state").mkdir(mode=0o700)
        for name in ("poolmgr.db", "poolmgr.db-wal"):
            shutil.copy(crashed.directory / "state" / name, shell.directory / "state")
        yield shell


def database(shell: Shell) -> Path:
    return shell.directory / "state" / "poolmgr.db"


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def of_another_program(path: Path) -> None:
    path.with_name("poolmgr.db-wal").unlink()
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")


def of_a_newer_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "header": (lambda path: overwrite(path, 0, b"\xa5" * 16), "the file is corrupt; nothing was deleted: put a backup"),
    "page": (lambda path: overwrite(path, path.stat().st_size - 4096, b"\xa5" * 4096), "the file is corrupt"),
    "log": (lambda path: overwrite(path.with_name("poolmgr.db-wal"), 500, b"\xa5" * 16), "its log is corrupt"),
    "missing": (lambda path: path.unlink(), "the database is missing, and its log is there"),
    "foreign": (of_another_program, "is a database of another program: choose another state directory"),
    "newer": (of_a_newer_version, "was written by a newer poolmgr (schema 999"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_database_fails_the_start_and_stays_as_it_is(shell: Shell, kind: str) -> None:
    spoil, message = BAD[kind]
    spoil(database(shell))
    before = content_of(shell)
    said = shell.run("start", "--app", "app", "--workers", "1", code=1)
    assert said.startswith(f"poolmgr: {database(shell)}")
    assert message in said
    assert content_of(shell) == before
    assert not shell.pid_file.exists()


def content_of(shell: Shell) -> dict[str, bytes]:
    return {
        each.name: each.read_bytes() for each in database(shell).parent.glob("poolmgr.db*") if "shm" not in each.name
    }


def test_a_good_one_is_taken_over(shell: Shell) -> None:
    shell.start()
    assert shell.ask("status")["epoch"] == 3
    assert len(shell.ask("tasks")) == 4


def test_a_database_that_another_process_has_locked_fails_the_start(shell: Shell) -> None:
    with closing(sqlite3.connect(database(shell))) as other:
        other.execute("BEGIN EXCLUSIVE")
        said = shell.run("start", "--app", "app", "--workers", "1", "--json", code=1)
        assert '"store_unavailable"' in said
        assert "another process has locked it: find it (fuser), and end it" in said
    shell.start()


@contextmanager
def read_only_copy(shell: Shell) -> Iterator[list[str]]:
    """What runs a command where the state directory is on a file system that is read-only: that binds root, too."""
    state = database(shell).parent
    script = """
        cp -a "$0" "$0.copy" && mount -t tmpfs none "$0" && cp -a "$0.copy/." "$0" && mount -o remount,ro "$0" || exit 1
        exec "$@"
    """
    prefix = ["unshare", "--mount", "sh", "-c", script, str(state)]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount anything")
    shutil.rmtree(f"{state}.copy")
    yield prefix


def test_a_state_directory_that_cannot_be_written_fails_the_start(shell: Shell) -> None:
    with read_only_copy(shell) as prefix:
        for flags in ([], ["--foreground"]):
            command = [*prefix, str(POOLMGR), "start", "--app", "app", "--workers", "1", *flags]
            done = subprocess.run(
                command, cwd=shell.directory, env=shell.environ, capture_output=True, text=True, check=False
            )
            shutil.rmtree(shell.directory / "state.copy")
            assert done.returncode == 1, done.stderr
            assert "(Read-only file system): look at the owner and mode" in done.stderr
            assert "Traceback" not in done.stderr

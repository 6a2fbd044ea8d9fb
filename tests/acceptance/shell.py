"""The installed command in a directory, and an environment, of its own."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POOLMGR = Path(sys.executable).parent / "poolmgr"
APP = '''
import os
from poolmgr import task

@task()
def add(a, b=0):
    return a + b

@task(max_retries=0)
def fail(text):
    raise ValueError(text)

@task()
def read(path):
    """Waits for a writer, where path is a FIFO."""
    with open(path) as file:
        return file.read()

@task()
def where():
    return os.getcwd()

@task(max_retries=0)
def count(to, ends="end"):
    for number in range(to):
        yield f"line {number}" if number % 2 else [number]
    if ends == "badly":
        raise ValueError("no end")
    return ends
'''


@dataclass
class Shell:
    """A private directory with an app in it, and the command in an environment of its own."""

    directory: Path
    environ: dict[str, str]

    @property
    def socket(self) -> Path:
        return self.directory / "run" / "p.sock"

    @property
    def pid_file(self) -> Path:
        return self.directory / "state" / "poolmgr.pid"

    def run(self, *arguments: str, code: int = 0) -> str:
        """What the command prints on standard output; on standard error, where it is to exit with another code."""
        done = subprocess.run(
            [POOLMGR, *arguments], cwd=self.directory, env=self.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stderr if code else done.stdout

    def ask(self, *arguments: str) -> Any:
        """What the command answers in JSON."""
        return json.loads(self.run(*arguments, "--json"))

    def start(self, *arguments: str) -> int:
        """Start a daemon with three workers; its pid."""
        pid: int = self.ask("start", "--app", "app", "--workers", "3", *arguments)["pid"]
        return pid


@contextmanager
def private_shell() -> Iterator[Shell]:
    directory = Path(tempfile.mkdtemp(prefix="poolmgr-"))  # short: a socket's path has at most 107 bytes
    environ = {name: value for name, value in os.environ.items() if not name.startswith("POOLMGR_")}
    environ.pop("NOTIFY_SOCKET", None)
    environ["POOLMGR_SOCKET"] = str(directory / "run" / "p.sock")
    environ["POOLMGR_STATE_DIR"] = str(directory / "state")
    (directory / "app.py").write_text(APP)
    shell = Shell(directory, environ)
    yield shell
    if shell.pid_file.exists():
        end(int(shell.pid_file.read_text()))
    shutil.rmtree(directory)


def end(pid: int) -> None:
    """Stop the daemon ``pid``, if it is alive, whatever it does."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT):  # the second ends running tasks, too
            os.kill(pid, number)
    except ProcessLookupError:
        pass
    await_end(pid)


def await_end(pid: int, timeout_s: float = 20) -> None:
    """Wait until the process ``pid``, which may have ended already, has."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([process], [], [], timeout_s)
    os.close(process)
    assert ended, f"process {pid} still runs"

"""The installed command, and examples run as a user would, in directories that tell their processes from all others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.acceptance.shell import Shell, private_shell

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


class Examples:
    """Runs examples. What they start has the private temporary ``directory`` in its environment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("POOLMGR_")}
        self.environ["TMPDIR"] = str(directory)

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """Start an example, from a directory that is not the checkout's."""
        return subprocess.Popen(
            [sys.executable, EXAMPLES / f"{name}.py", *arguments], cwd="/", env=self.environ, text=True, bufsize=1,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, name: str, *arguments: str) -> list[str]:
        """The lines that an example prints. It must end with 0, complain of nothing and leave nothing behind."""
        with self.start(name, *arguments) as process:
            printed, complaints = process.communicate()
        assert process.returncode == 0, f"exit code {process.returncode}\n{printed}\n{complaints}"
        assert not complaints
        self.check_nothing_is_left()
        return printed.splitlines()

    def check_nothing_is_left(self) -> None:
        """No process (one that is just going may go), and no file."""
        _, alive = psutil.wait_procs(self.processes(), timeout=10)
        assert not alive
        assert not list(self.directory.iterdir())

    def processes(self) -> list[psutil.Process]:
        """What was started by examples, and still lives."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("TMPDIR") == str(self.directory)
        except psutil.Error:  # it has ended meanwhile (a zombie has no environment), or is somebody else's
            return False


@pytest.fixture
def examples() -> Iterator[Examples]:
    examples = Examples(Path(tempfile.mkdtemp(prefix="x-")))  # short: it is part of a socket's path
    yield examples
    for process in examples.processes():
        process.kill()
    shutil.rmtree(examples.directory)


@pytest.fixture
def shell() -> Iterator[Shell]:
    with private_shell() as shell:
        yield shell


@pytest.fixture(scope="module")
def pool() -> Iterator[Shell]:
    """A shell with a daemon that runs, for all tests that leave it as they have found it."""
    with private_shell() as shell:
        shell.start()
        yield shell

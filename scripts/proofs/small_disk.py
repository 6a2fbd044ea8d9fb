"""A disk of a few megabytes, which can be filled and freed: a tmpfs that only those see who enter its namespace."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_BLOCK: Final = bytes(4096)


def can_mount() -> bool:
    """Whether this user may mount one here."""
    if any(shutil.which(tool) is None for tool in ("unshare", "nsenter")):
        return False
    trial = [*_unshare(), "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


def _unshare() -> list[str]:
    """Root needs no user namespace, and everybody else one in which he is root."""
    return ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]


class SmallDisk:
    """As a context manager: mounted at ``path``, an empty directory, with so many megabytes."""

    def __init__(self, path: Path, size_mb: int) -> None:
        mount = f'mount -t tmpfs -o size={size_mb}m,mode=0700 tmpfs "$0" && echo mounted && exec cat'
        self._keeper = subprocess.Popen(
            [*_unshare(), "sh", "-c", mount, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"mounted\n", "no tmpfs can be mounted here"
        # How we see it; but SQLite would not, since it makes an absolute path of this one.
        self._filler = Path(f"/proc/{self._keeper.pid}/root{path}/filler")

    def enter(self, directory: Path) -> list[str]:
        """What to put before a command that is to see it, and to run in ``directory``."""
        spaces = f"/proc/{self._keeper.pid}/ns"
        user = [] if os.geteuid() == 0 else [f"--user={spaces}/user", "--preserve-credentials"]
        return ["nsenter", *user, f"--mount={spaces}/mnt", "env", f"--chdir={directory}"]

    def fill(self) -> None:
        """Leave not a byte."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(_BLOCK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Make room."""
        self._filler.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._keeper.communicate()

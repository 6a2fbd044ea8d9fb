"""Starting a detached daemon, from both sides of the pipe on which it reports.

The launcher execs ``python -m poolmgr.daemon FD REQUEST``. That detaches, and writes lines of JSON to FD:

    {"detached": pid, "log": path}      from now on the launcher may signal it
    {"ready": {"pid": ..., ...}}        the fields of Started; the last line
    {"error": [code, message]}          it did not come up; the last line

End of file without a last line means that it died. The daemon does not care whether the launcher lives.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from poolmgr.errors import AppError, ConfigError, NotAllowed, PoolError, StartFailed, WrongState, from_code

if TYPE_CHECKING:
    from poolmgr.daemon.started import Started

LOG_FILE: Final = "poolmgr.log"


class Request(NamedTuple):
    """What a daemon is started with: the settings file, and the flags by the names of their settings."""

    file: str | None
    flags: dict[str, Any]


def launch(request: Request, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Start a detached daemon in the current directory, and wait for its workers: ``Started`` as a map.

    ``environ`` is ``os.environ`` unless given. An interrupt (Ctrl-C) stops the daemon that is coming up.

    Raises:
        PoolError: whatever made it fail (see ``run``); StartFailed if it died without a word.
    """
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    # -P: a daemon.py or click.py in the current directory is the app's business, not ours.
    argv = [sys.executable, "-P", "-m", "poolmgr.daemon", str(writer), json.dumps(request)]
    null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    child = os.posix_spawn(sys.executable, argv, os.environ if environ is None else environ, file_actions=[null])
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        started = _listen(pipe)
    os.waitpid(child, 0)  # it ended when it detached
    return started


def try_app(modules: Sequence[str], environ: Mapping[str, str]) -> None:
    """Import an app as a daemon that is launched here would, in a process that is gone afterwards.

    Raises:
        AppError: it cannot be imported; the message holds the traceback.
    """
    if complaint := _tried(["poolmgr.worker.app", os.getcwd(), *modules], environ):
        raise AppError(complaint)


def try_balancer(name: str, environ: Mapping[str, str]) -> None:
    """Load a balancer of the user's as a daemon that is launched here would, in a process that is gone afterwards.

    Raises:
        ConfigError: it cannot be loaded; the message says why.
    """
    if ":" in name and (complaint := _tried(["poolmgr.manager.balancers", name], environ)):
        raise ConfigError(complaint)


def _tried(module: Sequence[str], environ: Mapping[str, str]) -> str:
    """What ``python -m MODULE ...`` complains of; '' where it is content."""
    import subprocess

    argv = [sys.executable, "-P", "-m", *module]
    tried = subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if not tried.returncode:
        return ""
    return tried.stderr.strip() or f"its import has ended the process (exit code {tried.returncode})"


def request_of(pid: int) -> tuple[Request, str, dict[str, str]]:
    """The request, the directory and the environment with which the daemon ``pid`` was launched.

    Raises:
        NotAllowed: it is another user's.
        WrongState: it was not launched by ``launch``: it runs in the foreground, under somebody else's care.
    """
    try:
        argv = _read_words(f"/proc/{pid}/cmdline")
        environ = dict(word.partition("=")[::2] for word in _read_words(f"/proc/{pid}/environ"))
        directory = os.readlink(f"/proc/{pid}/cwd")
        owner = os.stat(f"/proc/{pid}").st_uid
    except PermissionError:
        raise NotAllowed(f"the daemon (pid {pid}) belongs to another user") from None
    if owner != os.geteuid():
        raise NotAllowed(f"the daemon (pid {pid}) belongs to another user: restart it as that one")
    if "poolmgr.daemon" not in argv:
        raise WrongState(f"the daemon (pid {pid}) runs in the foreground: restart it where it was started")
    return Request(*json.loads(argv[-1])), directory, environ


class Reporter:
    """The daemon's end of the pipe. Says nothing more after the last line, or when the launcher has gone."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)  # a worker that held it would keep the launcher waiting
        self.fd: int | None = fd

    def detached(self, log: str) -> None:
        """This process is the one that stays."""
        self._say({"detached": os.getpid(), "log": log})

    def ready(self, started: Started) -> None:
        """All workers are ready."""
        self._say({"ready": started._asdict()}, last=True)

    def failed(self, error: PoolError) -> None:
        """The daemon does not come up."""
        self._say({"error": [error.code, str(error)]}, last=True)

    def _say(self, word: dict[str, Any], *, last: bool = False) -> None:
        if self.fd is None:
            return
        try:
            os.write(self.fd, json.dumps(word).encode() + b"\n")
        except BrokenPipeError:
            last = True
        if last:
            os.close(self.fd)
            self.fd = None


def _listen(pipe: IO[bytes]) -> dict[str, Any]:
    daemon: dict[str, Any] = {}
    try:
        for line in pipe:
            word = json.loads(line)
            if "ready" in word:
                ready: dict[str, Any] = word["ready"]
                return ready
            if "error" in word:
                raise from_code(*word["error"])
            daemon = word
    except KeyboardInterrupt:
        if daemon:
            os.kill(daemon["detached"], signal.SIGTERM)
        raise
    raise StartFailed("the daemon died while it started" + (f"; see {daemon['log']}" if daemon else ""))


def _read_words(path: str) -> list[str]:
    with open(path, "rb") as file:
        return [os.fsdecode(word) for word in file.read().split(b"\0") if word]

"""One peer, in a process of its own environment: started, asked for measures, and ended with all that came of it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from benchmarks import family

ROOT: Final = Path(__file__).resolve().parents[1]
PEERS_PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"
_COMPILED_ROOT: Final = ROOT / "build" / "compiled"
_PATIENCE_S: Final = 300.0  # the longest measure
_ENDING_S: Final = 20.0
_SETTLING_S: Final = 0.1  # for what has come due while it stood still: heartbeats, timers
_SHOWN: Final = 2000  # characters of a log


class Known(NamedTuple):
    """A peer that there is an adapter for: ``benchmarks/peers/<module>.py``."""

    title: str
    module: str
    own_environment: bool = True  # False: it runs in poolmgr's
    compiled: bool = False  # with the build of scripts/compiled


OURS: Final = "poolmgr"
COMPILED: Final = "compiled"  # poolmgr, too
PEERS: Final = {
    COMPILED: Known("poolmgr, compiled", "poolmgr", own_environment=False, compiled=True),
    "multiprocessing": Known("multiprocessing.Pool", "multiprocessing_pool", own_environment=False),
    "executor": Known("ProcessPoolExecutor", "process_pool_executor", own_environment=False),
    "loky": Known("loky", "loky"),
    "pebble": Known("pebble", "pebble"),
    "celery": Known("Celery", "celery"),
    "rq": Known("RQ", "rq"),
    "dramatiq": Known("Dramatiq", "dramatiq"),
    "huey": Known("huey", "huey"),
    "dask": Known("dask.distributed", "dask"),
    "ray": Known("Ray", "ray"),
    "gearman": Known("Gearman", "gearman"),
}
_ALL: Final = {OURS: Known("poolmgr", "poolmgr", own_environment=False), **PEERS}


class Missing(Exception):
    """The peer is not installed here; the text says what is missing."""


class Failed(Exception):
    """The peer could not do what was asked; the text says how it went wrong."""


class Lost(Failed):
    """Its process has ended or does not answer, so that nothing more can be asked of it."""


def make_environment() -> None:
    """See that the peers and Redis are installed. Raises ``subprocess.CalledProcessError``, after it has said why."""
    subprocess.run([ROOT / "benchmarks" / "env"], check=True)


class Peer:
    """A peer's adapter, as a context manager. Entered, it can be asked; the first thing to ask for is ``start``.

    Once it has answered, all of it stands still until it is asked again: what a pool, or a broker, does when it has
    nothing to do would be measured as the other's.

    Args:
        name: ``OURS``, or one of ``PEERS``.
        directory: has a directory of its own in it; short, as a socket's path has at most 107 bytes.

    Attributes:
        about: its version and its settings.
        cannot: scenarios that it cannot run, with the reasons.
        fastest: how many workers it is fastest with.

    Raises, when it is entered:
        Missing: it is not installed.
        Lost: its adapter is broken.
    """

    _made = 0

    def __init__(self, name: str, directory: Path, *, durable: bool = False) -> None:
        Peer._made += 1
        self.name = name
        self.about = ""
        self.cannot: dict[str, str] = {}
        self.fastest = 0
        self._directory = directory / str(Peer._made)
        self._log = self._directory / "log"
        self._durable = durable
        self._heard = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._stands_still = False

    def __enter__(self) -> Self:
        known = _ALL[self.name]
        if known.own_environment and not PEERS_PYTHON.exists():
            raise Missing("benchmarks/env has not been run")
        if known.compiled and not _COMPILED_ROOT.exists():
            raise Missing("scripts/compiled has not been run")
        where = _COMPILED_ROOT if known.compiled else ROOT
        environ = {**os.environ, "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin"}  # Debian's gearmand
        if known.compiled:
            environ["PYTHONPATH"] = str(where)  # its command, too, is to be of that build
        python = str(PEERS_PYTHON if known.own_environment else sys.executable)
        self._directory.mkdir(mode=0o700)
        words = [known.module, str(self._directory), *(["durable"] if self._durable else [])]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.peers", *words],
                cwd=where,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the driver, which then ends it
            )
        try:
            introduction = self._answer()
            if "missing" in introduction:
                raise Missing(introduction["missing"])
            self.about, self.cannot = introduction["about"], introduction["cannot"]
            self.fastest = introduction["fastest"]
        except BaseException:
            self._end()
            raise
        return self

    def ask(self, measure: str, **arguments: Any) -> dict[str, float]:
        """Run a measure, and return its figures.

        Raises:
            Failed: it went wrong, with what its adapter raised.
            Lost: it ended, or took too long.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        self._go_on()
        try:
            self._process.stdin.write(json.dumps({"measure": measure, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Lost(self._last_words()) from None
        answer = self._answer()
        family.stand_still(self._process.pid)
        self._stands_still = True
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def _go_on(self) -> None:
        if self._stands_still and self._process is not None:
            family.go_on(self._process.pid)
            self._stands_still = False
            time.sleep(_SETTLING_S)

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        give_up_at = time.monotonic() + _PATIENCE_S
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, give_up_at - time.monotonic()))
            if not ready:
                raise Lost(f"no answer within {_PATIENCE_S:g} s")
            if not (heard := os.read(self._process.stdout.fileno(), 65536)):
                raise Lost(self._last_words())
            self._heard += heard
        line, _, self._heard = self._heard.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        return f"its adapter ended: {self._log.read_text(errors='replace')[-_SHOWN:].strip()}"

    def _end(self) -> None:
        """The end of its input is the end of it. Its orphans, if it had to be killed, are the driver's to end."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._go_on()
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._end()

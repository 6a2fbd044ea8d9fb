"""The handlers of the service that the proof ``systemd`` runs: of one version, and what a hardened service may do."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path

from poolmgr import Client, task

VERSION = 1


@task
def version() -> int:
    """Which version of this module is loaded."""
    return VERSION


@task
def square_slowly(number: int, seconds: float) -> int:
    """The square of a number, after so many seconds."""
    time.sleep(seconds)
    return number * number


@task
def hand_on(number: int) -> str:
    """The id of a task that this one submits: to its own pool, without being told where that is."""
    with Client() as pool:
        return pool.submit("square_slowly", number, 0.0).id


@task
def hide() -> tuple[str, list[int]]:
    """The name of this worker's control group; and the pids of a process and its child that are in it, but in a session
    of their own, and with no environment."""
    command = ["sh", "-c", "sleep 1000 & echo $!; wait"]
    hidden = subprocess.Popen(command, env={}, start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert hidden.stdout is not None
    pids = [hidden.pid, int(hidden.stdout.readline())]
    [own, *others] = [Path(f"/proc/{each}/cgroup").read_text() for each in (os.getpid(), *pids)]
    return (Path(own.splitlines()[-1]).name if others == [own, own] else ""), pids


@task
def fails_at() -> list[str]:
    """What handlers may well do, and this one could not."""
    return [f"{what.__name__}: {error}" for what in (_files, _database, _shared, _program, _thread, _network)
            if (error := _error_of(what))]  # fmt: skip


@task
def gets_away_with() -> list[str]:
    """What no handler should be able to do, and this one could."""
    return [what.__name__ for what in (_alter_app, _alter_system, _read_root, _see_init, _become_root, _new_namespace)
            if not _error_of(what)]  # fmt: skip


def _error_of(what: Callable[[], object]) -> str:
    try:
        what()
    except Exception as error:
        return repr(error)
    return ""


def _files() -> None:
    for directory in (tempfile.gettempdir(), "/var/tmp", str(Path.home())):
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x" * 4096)


def _database() -> None:
    with tempfile.TemporaryDirectory(dir=Path.home()) as directory, sqlite3.connect(f"{directory}/x.db") as database:
        database.execute("CREATE TABLE x (y)")


def _shared() -> None:
    memory = shared_memory.SharedMemory(create=True, size=4096)
    memory.close()
    memory.unlink()


def _program() -> None:
    subprocess.run(["poolmgr", "--version"], check=True, stdout=subprocess.DEVNULL)


def _thread() -> None:
    thread = threading.Thread(target=time.sleep, args=(0,))
    thread.start()
    thread.join()


def _network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        server.accept()[0].close()


def _alter_app() -> None:
    Path(__file__).with_name("trace").touch()


def _alter_system() -> None:
    Path("/etc/trace").touch()


def _read_root() -> None:
    os.listdir("/root")


def _see_init() -> None:
    Path("/proc/1/cmdline").read_bytes()


def _become_root() -> None:
    os.setuid(0)


def _new_namespace() -> None:
    subprocess.run(["unshare", "--user", "true"], check=True, stderr=subprocess.DEVNULL)

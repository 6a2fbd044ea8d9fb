"""One daemon at a time: the pid file's lock and the stale socket; and the words to systemd. Real files and sockets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolmgr.daemon.notify import Notifier
from poolmgr.daemon.pid_file import PidFile
from poolmgr.daemon.run import remove_stale_socket
from poolmgr.errors import AlreadyRunning, ConfigError, StartFailed

HOLDER = """
import sys
from poolmgr.daemon.pid_file import PidFile
with PidFile(sys.argv[1], guards="it"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "poolmgr.pid"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the file ``path`` until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_pid_file_holds_the_pid_and_goes_with_its_holder(path: Path) -> None:
    with PidFile(str(path), guards="it"):
        assert path.read_text() == f"{os.getpid()}\n"
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


def test_a_held_pid_file_names_its_holder(path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(AlreadyRunning, match=rf"a daemon \(pid {holder.pid}\) already holds the state"):
        PidFile(str(path), guards="the state").__enter__()
    assert path.read_text() == f"{holder.pid}\n"


def test_the_pid_file_of_a_killed_daemon_is_taken_over(path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert path.read_text() == f"{holder.pid}\n"
    with PidFile(str(path), guards="it"):
        assert path.read_text() == f"{os.getpid()}\n"


def test_what_a_longer_pid_left_behind_is_cut_off(path: Path) -> None:
    path.write_text("99999999999999\n")
    with PidFile(str(path), guards="it"):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_pid_file_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"cannot be made \(No such file or directory\)"):
        PidFile(str(tmp_path / "nowhere" / "x.pid"), guards="it").__enter__()


def test_a_stale_socket_is_removed_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    remove_stale_socket(str(path))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(AlreadyRunning, match="already answers on"):
            remove_stale_socket(str(path))
    assert path.exists()
    remove_stale_socket(str(path))
    assert not path.exists()


def test_a_file_in_the_socket_s_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is in the way: it is not a socket"):
        remove_stale_socket(str(path))
    assert path.read_text() == "precious"


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_and_workers_cannot_be_mistaken_for_the_daemon(tmp_path: Path, abstract: bool) -> None:
    name = f"poolmgr-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}" if abstract else name)
        environ = {"NOTIFY_SOCKET": f"@{name}" if abstract else name, "HOME": "/"}
        notifier = Notifier.from_environ(environ)
        notifier.say("READY=1", "STATUS=20 workers ready")
        assert systemd.recv(100) == b"READY=1\nSTATUS=20 workers ready"
    assert environ == {"HOME": "/"}
    notifier.say("STOPPING=1")  # that systemd has gone is no reason to fail
    Notifier(None).say("READY=1")

"""A daemon on a socket that it was given, as systemd gives it: it serves there, and leaves the socket where it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.proofs.pool import NotStarted, Pool, until
from tests.integration.raw import HELLO_THERE

Make = Callable[..., Pool]

# Becomes the command that follows, with sockets made by PROGRAM (in ``made``) as its descriptors from 3 on.
SYSTEMD = """
import fcntl, os, socket, sys
program, path, *command = sys.argv[1:]
made = []
exec(program)
kept = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 20) for each in made]
for number, fd in enumerate(kept, 3):
    os.dup2(fd, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(made)), LISTEN_FDNAMES="poolmgr.socket")
os.execvp(command[0], command)
"""
UNIX = """
os.makedirs(os.path.dirname(path), exist_ok=True)
made.append(socket.socket(socket.AF_UNIX)); made[0].bind(path); made[0].listen()
"""

# A client that has said hello, and whose process waits for the answer, before the daemon's begins to run.
EARLY = f"""
early = socket.socket(socket.AF_UNIX); early.connect(path); early.sendall({HELLO_THERE!r})
if not os.fork():
    made[0].close()
    heard = early.recv(1)
    with open(path.replace("p.sock", "part"), "wb") as file:
        file.write(heard)
    os.rename(path.replace("p.sock", "part"), path.replace("p.sock", "answer"))
    os._exit(0)
early.close()
"""


def activated(pool: Pool, program: str = UNIX) -> Pool:
    pool.command = [sys.executable, "-c", SYSTEMD, program, str(pool.socket), *pool.command]
    return pool


def test_it_serves_on_the_socket_that_it_was_given(make_pool: Make) -> None:
    pool = activated(make_pool())
    pool.start()
    with pool.client() as client:
        assert client.run("add", 20, 22) == 42
    assert not Path(f"{pool.socket}.pid").exists()  # which daemon is on it, systemd decides
    assert pool.stop() == 0
    assert pool.socket.is_socket()


def test_workers_are_told_nothing_of_it(make_pool: Make) -> None:
    pool = activated(make_pool()).start()
    for pid in pool.processes():
        if pid != pool.pid:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            assert not {b"LISTEN_PID", b"LISTEN_FDS", b"NOTIFY_SOCKET"} & set(environ.replace(b"=", b"\0").split(b"\0"))


def test_a_client_may_come_before_the_daemon(make_pool: Make) -> None:
    """Its connection waits in the socket, and is served once there is somebody."""
    pool = activated(make_pool(), UNIX + EARLY)
    pool.start()
    answer = pool.socket.with_name("answer")
    until(answer.exists, "the early client has heard something")
    assert answer.read_bytes()


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (UNIX + "made.append(made[0])", "has passed 2 sockets, and one is wanted"),
        ("made.append(socket.create_server(('127.0.0.1', 0)))", "a socket of another kind"),
        ("made.append(open('/dev/null'))", "is not a socket"),
        (UNIX.replace("made[0].listen()", ""), "a socket of another kind"),
        (UNIX.replace("bind(path)", "bind(chr(0) + path)"), "an abstract socket, which anybody may use"),
        (UNIX.replace("bind(path)", "bind(path + 'x')"), "the setting socket says"),
    ],
)
def test_any_other_gift_is_refused(make_pool: Make, program: str, reason: str) -> None:
    with pytest.raises(NotStarted, match=reason) as refused:
        activated(make_pool(), program).start()
    assert refused.value.code == 2


def test_what_was_given_to_another_process_is_not_taken(make_pool: Make) -> None:
    pool = make_pool()
    pool.environ.update(LISTEN_PID="1", LISTEN_FDS="1")
    with pool.start().client() as client:
        assert client.run("add", 1, 2) == 3

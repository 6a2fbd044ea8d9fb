"""Starting a daemon: what must fail fails with its reason, and what the last one left is in nobody's way."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from poolmgr.errors import NotRunning
from scripts.proofs.pool import NotStarted, Pool, until

Make = Callable[..., Pool]


@pytest.mark.parametrize(
    ("app", "reasons"),
    [
        ("broken_import", ["Traceback (most recent call last)", "No module named 'no_such_module_anywhere'"]),
        ("no_such_app", ["the app module 'no_such_app' cannot be imported", "No module named 'no_such_app'"]),
        ("same_names", ["two handlers have the name 'resize'", "same_names.resize", "same_names._another"]),
        ("failing_hook", ["the @worker_startup hook connect failed", "Traceback", "the database is not there"]),
        ("dying_hook", ["ended before it was ready: exit code 7"]),
        ("exiting_import", ["the template ended while it imported the app: exit code 3"]),
    ],
)
def test_an_app_that_cannot_serve_fails_the_start(make_pool: Make, app: str, reasons: list[str]) -> None:
    pool = make_pool(app=app)
    with pytest.raises(NotStarted) as failed:
        pool.start()
    assert failed.value.code == 1
    for reason in reasons:
        assert reason in failed.value.text
    assert pool.processes() == []
    assert not pool.socket.exists()
    assert not (pool.state / "poolmgr.pid").exists()


def test_a_second_daemon_on_the_same_socket_or_state_is_refused(start_pool: Make, make_pool: Make) -> None:
    first = start_pool()
    for clash, guarded in (("socket", first.socket), ("state_dir", first.state)):
        second = make_pool(**{clash: guarded})
        with pytest.raises(NotStarted, match=rf"a daemon \(pid {first.pid}\) already holds .*{guarded}") as refused:
            second.start()
        assert refused.value.code == 1
    with first.client() as client:
        assert client.run("add", 20, 22) == 42


def test_a_daemon_does_not_load_openssl(start_pool: Make) -> None:
    """Five megabytes of each, which no client of it needs (docs/decisions/0017-no-tls-in-a-daemons-loop.md)."""
    with start_pool().client() as client:
        assert client.run("add", 1, 2) == 3
        client.submit("add", 1, 2).result()
        maps = Path(f"/proc/{client.status()['pid']}/maps").read_text()
    assert "uvloop" in maps
    assert "libssl" not in maps
    assert "libcrypto" not in maps


def test_what_a_killed_daemon_left_is_taken_over(start_pool: Make) -> None:
    pool = start_pool()
    pool.kill()
    assert pool.socket.exists()
    assert (pool.state / "poolmgr.pid").exists()
    with pytest.raises(NotRunning, match="start one with: poolmgr start"):
        pool.client()
    pool.start()
    with pool.client() as client:
        assert client.run("add", 1, 2) == 3
        assert client.status()["epoch"] == 2


def test_a_strangers_socket_and_file_are_left_alone(make_pool: Make) -> None:
    pool = make_pool()
    pool.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(pool.socket))
        stranger.listen()
        with pytest.raises(NotStarted, match="already answers"):
            pool.start()
    pool.socket.unlink()
    pool.socket.write_text("precious")
    with pytest.raises(NotStarted, match="is in the way: it is not a socket"):
        pool.start()
    assert pool.socket.read_text() == "precious"


def test_a_stale_socket_and_pid_file_are_no_obstacle(make_pool: Make) -> None:
    pool = make_pool()
    pool.state.mkdir()
    (pool.state / "poolmgr.pid").write_text("1\n")
    pool.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(pool.socket))
    pool.start()
    assert (pool.state / "poolmgr.pid").read_text() == f"{pool.pid}\n"


def test_the_socket_and_the_state_are_private(start_pool: Make) -> None:
    pool = start_pool()
    assert pool.socket.stat().st_mode & 0o777 == 0o600
    assert pool.socket.parent.stat().st_mode & 0o777 == 0o700
    assert pool.state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_that_ends_while_the_app_is_imported_leaves_nothing(make_pool: Make, number: int) -> None:
    pool = make_pool(app="slow_import")
    process = subprocess.Popen(
        pool.command, cwd=pool.app_directory, env=pool.environ, stderr=subprocess.PIPE, text=True, process_group=0
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if "importing" in line:
                break
        until(lambda: takes_sigterm(process.pid), "it is ready to be stopped")
        process.send_signal(number)
        said = process.stderr.read()
        code = process.wait(10)
    if number == signal.SIGTERM:
        assert code == 1
        assert "stopped before its workers were ready" in said
    until(lambda: not pool.processes(), "the template is gone, too")


def takes_sigterm(pid: int) -> bool:
    """Whether the process has a handler for it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def test_more_clients_may_come_than_the_usual_limit_of_open_files(make_pool: Make) -> None:
    pool = make_pool(workers=1)
    pool.command = ["sh", "-c", 'ulimit -S -n 100; exec "$@"', "sh", *pool.command]
    pool.start()
    with ExitStack() as stack:
        clients = [stack.enter_context(pool.client()) for _ in range(120)]
        assert [client.run("add", number, 1) for number, client in enumerate(clients)] == list(range(1, 121))

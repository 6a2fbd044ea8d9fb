"""start, stop and restart: the daemon's life, seen from a shell."""

from __future__ import annotations

import os
import select
import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from poolmgr.cli import began_at, pages
from poolmgr.cli.session import Session, answering
from poolmgr.errors import ConnectionLost, PoolError, Unavailable

if TYPE_CHECKING:
    from poolmgr.daemon.launch import Request
    from poolmgr.daemon.started import Started


def _start_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--state-dir", metavar="DIR", help="Holds the database, the pid file and the log."),
        click.option("--config", "file", metavar="FILE", help="Settings in TOML (default: $POOLMGR_CONFIG)."),
        click.option("--workers", "pool_size", type=int, metavar="N", help="Worker processes (default: 20)."),
        click.option("--app", multiple=True, metavar="MODULE", help="Imports the handlers; may be repeated."),
    ):
        function = option(function)
    return function


@click.command()
@click.option("--foreground", is_flag=True, help="Do not detach; log to standard error.")
@_start_options
@answering
def start(session: Session, foreground: bool, file: str | None, **flags: Any) -> int | None:
    """Start a daemon, and return when all its workers are ready.

    The current directory leads the import path of the app.
    """
    given = _given(session, flags)
    if foreground:
        return _serve(session, file, given)
    from poolmgr.daemon.launch import Request, launch

    _answer_started(session, launch(Request(file, given)))
    return None


@click.command()
@click.option("--now", is_flag=True, help="End running tasks; durable ones run again after the next start.")
@click.option("--timeout", "timeout_s", type=float, metavar="S", help="Stop waiting after so many seconds.")
@answering
def stop(session: Session, now: bool, timeout_s: float | None) -> None:
    """Stop the daemon, and return when it is gone.

    Running tasks may finish (for graceful_shutdown_timeout_s); queued durable tasks wait for the next start.
    """
    pid = _stop(session, now=now, timeout_s=timeout_s)
    session.answer({"pid": pid, "stopped": True}, f"poolmgr: stopped (pid {pid})")


@click.command()
@_start_options
@answering
def restart(session: Session, file: str | None, **flags: Any) -> None:
    """Stop the daemon and start it as it was started: with its flags, directory and environment.

    Flags given now win. The settings file is read anew. If it is wrong, or the app cannot be imported, nothing is
    stopped.
    """
    from poolmgr.config import Settings
    from poolmgr.daemon.launch import Request, launch, request_of, try_app, try_balancer

    with session.client() as pool:
        request, directory, environ = request_of(pool.status()["pid"])
    here = os.path.abspath(file) if file else None
    os.chdir(directory)
    merged = Request(here or request.file, {**request.flags, **_given(session, flags)})
    settings = Settings.load(file=merged.file or environ.get("POOLMGR_CONFIG"), environ=environ, flags=merged.flags)
    try_app(settings.app, environ)
    try_balancer(settings.load_balancing, environ)
    try:
        _stop(session)
        started = launch(merged, environ)
    except (KeyboardInterrupt, PoolError):
        again = _as_command(directory, merged)
        session.remark(f"the old daemon was told to stop, and no new one was started; to start it: {again}")
        raise
    _answer_started(session, started)


@click.command()
@answering
def reload(session: Session) -> None:
    """Load the app's code anew, and roll the workers over to it. No task is lost or fails for it.

    A version that does not come up is refused, and the old one goes on. Running tasks finish with the code that they
    began with.
    """
    with session.client() as pool:
        found = pool.reload()
    session.answer(found, lambda: pages.reload_page(found))


def _as_command(directory: str, request: Request) -> str:
    """What to type to have a daemon launched by ``request``."""
    words = ["poolmgr", "start"]
    for name, option in (
        ("socket", "--socket"),
        ("state_dir", "--state-dir"),
        ("pool_size", "--workers"),
        ("app", "--app"),
    ):
        value = request.flags.get(name, ())
        for each in value if isinstance(value, (list, tuple)) else [value]:
            words += [option, str(each)]
    if request.file:
        words += ["--config", request.file]
    return f"cd {shlex.quote(directory)} && {shlex.join(words)}"


def _given(session: Session, flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, by the names of their settings."""
    return {name: value for name, value in {**flags, "socket": session.socket}.items() if value not in (None, ())}


def _serve(session: Session, file: str | None, flags: dict[str, Any]) -> int:
    from poolmgr.config import Settings
    from poolmgr.daemon.log import log_to_stderr
    from poolmgr.daemon.run import run

    def ready(started: Started) -> None:
        session.answer(started._asdict(), "")  # a person reads it in the log

    def read() -> Settings:
        return Settings.load(file=file, flags=flags)

    settings = read()
    log_to_stderr()
    return run(settings, reread=read, ready=ready)


def _answer_started(session: Session, started: dict[str, Any]) -> None:
    took = time.monotonic() - began_at
    session.answer(
        started,
        f"poolmgr: {started['workers']} workers ready (pid {started['pid']}, {took:.2f} s), socket {started['socket']}",
    )


def _stop(session: Session, *, now: bool = False, timeout_s: float | None = None) -> int:
    """Ask the daemon to stop, and wait until its process has ended; its pid."""
    with session.client() as pool:
        status = pool.status()
        pid: int = status["pid"]
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return pid
        try:
            pool.stop(now=now)
        except ConnectionLost:
            pass  # it went before it could answer
    try:
        _await_end(session, process, running=status["tasks"]["running"], timeout_s=timeout_s)
    finally:
        os.close(process)
    return pid


def _await_end(session: Session, process: int, *, running: int, timeout_s: float | None) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    if poll.poll(1000 if timeout_s is None else min(1.0, timeout_s) * 1000):
        return
    session.remark(f"waiting for the daemon to end; {running} tasks were running")
    left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
    if not poll.poll(left_ms):
        raise Unavailable(f"the daemon still runs after {timeout_s:g} s; end its tasks with: poolmgr stop --now")

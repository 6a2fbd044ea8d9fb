"""From settings to a daemon: the locks, the socket's path, the template; then the rest of it is imported, and lives.

The order is that of the time it takes. The template is exec'd as early as can be; while it imports the app, this
process imports the scheduler, the server and the store (life.py).
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from poolmgr.config import Settings, listen_socket, state_dir
from poolmgr.config.locations import PID_FILE, answers
from poolmgr.daemon.activation import passed_socket
from poolmgr.daemon.files import allow_files
from poolmgr.daemon.notify import Notifier
from poolmgr.daemon.pid_file import PidFile
from poolmgr.daemon.started import Started
from poolmgr.daemon.tag_file import TagFile
from poolmgr.errors import AlreadyRunning, ConfigError
from poolmgr.manager.launch import launch_template, template_order

_log = logging.getLogger(__name__)


def run(settings: Settings, *, reread: Callable[[], Settings], ready: Callable[[Started], None]) -> int:
    """Be the daemon until it is stopped; the exit code is 0. ``ready`` is called once all workers are ready, and
    ``reread``, for the settings as they are by then, at each reload.

    Expects logging to be set up, and the process to be the one that stays (already detached, if it is to be).

    Raises:
        AlreadyRunning: another daemon holds the state directory or the socket.
        ConfigError: the settings do not fit this machine (directories, groups, paths).
        AppError: the app cannot be imported; the message holds the traceback.
        StartFailed, StoreUnavailable: it did not come up, for the reason in the message.
    """
    allow_files()
    notifier = Notifier.from_environ(os.environ)
    passed = passed_socket(settings, os.environ)
    directory = state_dir(settings)
    with (
        PidFile(os.path.join(directory, PID_FILE), guards=f"the state directory {directory}"),
        _address(settings, passed) as path,
    ):
        order = template_order(settings)
        with TagFile(directory, order["tag"]):
            launched = launch_template(order)
            try:
                from poolmgr.daemon.memory import prepare_memory

                prepare_memory()
                from poolmgr.daemon.without_tls import import_loop

                import_loop()
                from poolmgr.daemon.life import live

                address = path if passed is None else passed
                live(settings, reread, directory, address, notifier, launched, order, ready)
            finally:
                launched.close()
    _log.info("stopped")
    return 0


@contextmanager
def _address(settings: Settings, passed: socket.socket | None) -> Iterator[str]:
    """The socket's path, which is this daemon's alone while it is entered, and then gone; one that was passed stays."""
    if passed is not None:
        with passed:
            yield passed.getsockname()
        return
    path = listen_socket(settings)
    # With this lock beside the state's, daemons of different state directories cannot both find one socket stale.
    with PidFile(path + ".pid", guards=f"the socket {path}"):
        remove_stale_socket(path)
        try:
            yield path
        finally:
            remove_stale_socket(path)


def remove_stale_socket(path: str) -> None:
    """Remove the socket ``path`` that a daemon left behind, if there is one.

    Raises:
        AlreadyRunning: somebody answers on it.
        ConfigError: it is something else than a socket.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is in the way: it is not a socket")
    if answers(path):
        raise AlreadyRunning(f"a daemon already answers on {path}")
    os.unlink(path)

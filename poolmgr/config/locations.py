"""Where a daemon listens and keeps its state, and where a client looks for it.

A search finds only sockets that nobody else can have put there: those in a directory that the user or root
owns. Otherwise whoever is first in a shared directory could answer in the daemon's place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from poolmgr.errors import ConfigError, NotRunning

if TYPE_CHECKING:
    from poolmgr.config.settings import Settings

SOCKET_NAME: Final = "poolmgr.sock"
SYSTEM_SOCKET: Final = "/run/poolmgr/poolmgr.sock"
SYSTEM_STATE: Final = "/var/lib/poolmgr"
DATABASE: Final = "poolmgr.db"  # in the state directory
PID_FILE: Final = "poolmgr.pid"  # there, too: locked by the daemon whose directory it is
_LONGEST_PATH: Final = 107  # bytes that sockaddr_un.sun_path has room for


def find_socket(explicit: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The socket of the daemon that a client means.

    ``explicit``, else $POOLMGR_SOCKET; else the first that answers of: $XDG_RUNTIME_DIR/poolmgr/poolmgr.sock,
    poolmgr-UID/poolmgr.sock in the temporary directory, /run/poolmgr/poolmgr.sock. A named one is not looked at.
    ``environ`` is ``os.environ`` unless given.

    Raises:
        NotRunning: none is named and none answers; the message says where was looked.
    """
    environ = os.environ if environ is None else environ
    named = explicit or environ.get("POOLMGR_SOCKET")
    if named:
        return named
    places = [*_own_sockets(environ), SYSTEM_SOCKET]
    for place in places:
        if _is_trusted(place) and answers(place):
            return place
    raise NotRunning(
        f"no daemon answers on {' or '.join(places)}; start one (poolmgr start --app MODULE) "
        "or name its socket (--socket PATH, or POOLMGR_SOCKET)"
    )


def listen_socket(settings: Settings, environ: Mapping[str, str] | None = None) -> str:
    """The path on which a daemon with these settings listens. Makes its directory (0700; 0750 for a group).

    Raises:
        ConfigError: the path is too long, or its directory cannot be made or is not private; no such group.
    """
    environ = os.environ if environ is None else environ
    path = settings.socket or (SYSTEM_SOCKET if os.geteuid() == 0 else _own_sockets(environ)[0])
    path = os.path.abspath(path)
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(f"the socket's path is too long, {_LONGEST_PATH} bytes are allowed: {path}")
    directory = os.path.dirname(path)
    if make_private(directory) and settings.socket_group is not None:
        _open_to_group(directory, settings.socket_group)
    if path in _own_sockets(environ) and not _is_own_directory(directory):
        raise ConfigError(f"{directory} is not a private directory of yours: remove it, or use --socket")
    return path


def state_dir(settings: Settings, environ: Mapping[str, str] | None = None) -> str:
    """The directory of the database, the pid file and the log. Makes it (0700) where it is missing.

    Raises:
        ConfigError: it cannot be made.
    """
    path = state_path(settings, environ)
    make_private(path)
    return path


def state_path(settings: Settings, environ: Mapping[str, str] | None = None) -> str:
    """Where that directory is, or would be."""
    environ = os.environ if environ is None else environ
    from_systemd = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return os.path.abspath(settings.state_dir or from_systemd or _default_state(environ))


def answers(path: str) -> bool:
    """Whether somebody listens on the Unix socket ``path``. Its owner sees a connection that says nothing."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)  # a full backlog would block; somebody does listen then
        try:
            probe.connect(path)
        except (BlockingIOError, TimeoutError):
            return True
        except OSError:
            return False
        return True


def is_system_socket(path: str) -> bool:
    """Whether it is that of a service: /run/poolmgr/poolmgr.sock, or with poolmgr-NAME for poolmgr@NAME.service.

    Only root makes directories in /run, and may have given this one to the service's user.
    """
    directory, name = os.path.split(os.path.abspath(path))
    parent, folder = os.path.split(directory)
    return (parent, name) == ("/run", SOCKET_NAME) and (folder == "poolmgr" or folder.startswith("poolmgr-"))


def make_private(directory: str) -> bool:
    """Make ``directory`` (0700, parents as usual) where it is missing; whether it was. It outlives a power loss.

    Raises:
        ConfigError: it cannot be made.
    """
    directory = os.path.abspath(directory)
    made = [directory]
    while not os.path.lexists(parent := os.path.dirname(made[-1])):
        made.append(parent)
    try:
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        os.mkdir(directory, 0o700)
        for each in made:
            _sync(os.path.dirname(each))
    except FileExistsError:
        if os.path.isdir(directory):
            return False
        raise ConfigError(f"{directory} is in the way: it is not a directory") from None
    except OSError as error:
        raise ConfigError(f"the directory {directory} cannot be made: {error.strerror}") from None
    return True


def _sync(directory: str) -> None:
    """Have the names in it reach the disk. One that may not be read cannot be synced, nor need it be: it was there."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def group_id(name: str) -> int:
    """The number of the group ``name``, which may also be a number.

    Raises:
        ConfigError: there is no such group.
    """
    import grp

    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"socket_group: there is no group {name!r}") from None


def _open_to_group(directory: str, group: str) -> None:
    try:
        os.chown(directory, -1, group_id(group))
        os.chmod(directory, 0o750)
    except OSError as error:
        raise ConfigError(f"socket_group: {directory} cannot be given to {group}: {error.strerror}") from None


def _own_sockets(environ: Mapping[str, str]) -> list[str]:
    runtime = environ.get("XDG_RUNTIME_DIR")
    temporary = os.path.join(environ.get("TMPDIR") or "/tmp", f"poolmgr-{os.geteuid()}")
    directories = [os.path.join(runtime, "poolmgr"), temporary] if runtime else [temporary]
    return [os.path.join(directory, SOCKET_NAME) for directory in directories]


def _default_state(environ: Mapping[str, str]) -> str:
    if os.geteuid() == 0:
        return SYSTEM_STATE
    home = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "poolmgr")


def _is_trusted(path: str) -> bool:
    if is_system_socket(path):
        return True
    try:
        return os.stat(os.path.dirname(path)).st_uid in (0, os.geteuid())
    except OSError:
        return False


def _is_own_directory(directory: str) -> bool:
    """Whether it is a real directory (no link) of this user, which nobody else may write to."""
    found = os.lstat(directory)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022

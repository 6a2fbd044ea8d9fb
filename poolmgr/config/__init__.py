"""What is set, and where things lie: ``Settings``, the socket and the state directory.

Names are imported when first used: a client that looks for the socket does not pay for the settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poolmgr.config.groups import Group
    from poolmgr.config.locations import find_socket, listen_socket, state_dir
    from poolmgr.config.settings import KINDS, RELOADED, Settings, task_options

_HOMES = {
    "Group": "poolmgr.config.groups",
    "KINDS": "poolmgr.config.settings",
    "RELOADED": "poolmgr.config.settings",
    "Settings": "poolmgr.config.settings",
    "task_options": "poolmgr.config.settings",
    "find_socket": "poolmgr.config.locations",
    "listen_socket": "poolmgr.config.locations",
    "state_dir": "poolmgr.config.locations",
}

__all__ = [
    "KINDS",
    "RELOADED",
    "Group",
    "Settings",
    "find_socket",
    "listen_socket",
    "state_dir",
    "task_options",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'poolmgr.config' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value

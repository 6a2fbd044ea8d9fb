"""Where this process may make control groups of its own (cgroup v2): nowhere, unless part of the tree was handed to it.

systemd does that for a service with ``Delegate=yes``, and marks the service's group with an extended attribute. The
process is in that group, or in one right below it (``DelegateSubgroup=``). Without the mark a group counts as handed
over to a process that owns it and is not root. See https://systemd.io/CGROUP_DELEGATION, and "Delegation" in the
kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
import re
from typing import Final

_MARKS: Final = ("user.delegate", "trusted.delegate")  # the second can be read by root alone
_POOL: Final = "poolmgr."


def pool_cgroup(tag: str) -> str:
    """The directory for the groups of the pool's workers, there or not; '' where this process may make none.

    ``tag`` is unique on this machine for one life of a daemon: several may share what is handed over.
    """
    own = own_cgroup()
    for group in (own, os.path.dirname(own)):
        if own and _is_marked(group):
            return os.path.join(group, _POOL + tag)
    return os.path.join(own, _POOL + tag) if own and _is_owned(own) else ""


def own_cgroup() -> str:
    """The directory of the group that this process is in; '' where it cannot be seen."""
    try:
        with open("/proc/self/cgroup") as file:
            path = next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), "")
        with open("/proc/self/mountinfo") as file:
            mounts = [line.split() for line in file if " - cgroup2 " in line]
    except OSError:
        return ""
    for mount in mounts:
        root, place = (_unescaped(field).rstrip("/") for field in mount[3:5])  # what of the tree is mounted, and where
        if path and (path + "/").startswith(root + "/"):
            return (place + path[len(root) :]).rstrip("/")
    return ""


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _is_marked(group: str) -> bool:
    for mark in _MARKS:
        try:
            if os.getxattr(group, mark) == b"1":
                return True
        except OSError:
            pass
    return False


def _is_owned(group: str) -> bool:
    try:
        return os.stat(group).st_uid == os.geteuid() != 0
    except OSError:
        return False

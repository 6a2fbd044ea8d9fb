"""asyncio and uvloop without OpenSSL.

Both import ``ssl``, for connections that a daemon does not have: its clients come over a Unix socket. That took 5 MB of
each daemon, a fifth of it, and 20 ms of its start. asyncio knows Pythons that have no ``ssl``. uvloop does not, and is
given a module that has whatever name it asks for.

So in such a process no loop does TLS, uvloop's or another. ``ssl`` itself is there, for blocking sockets. What is to
serve TLS from a daemon's loop has to be known before this is called, and to import ``ssl`` itself.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def import_loop() -> None:
    """Import asyncio and uvloop. ``import ssl`` is as it was afterwards, for whoever wants it."""
    if "ssl" in sys.modules or "asyncio" in sys.modules:
        return
    modules: dict[str, Any] = sys.modules
    try:
        modules["ssl"] = None  # so an import is told that there is no such module
        import asyncio  # noqa: F401

        modules["ssl"] = _Names("ssl")
        import uvloop  # noqa: F401
    finally:
        del modules["ssl"]


class _Absent(OSError):
    """What uvloop takes from ``ssl``: it may stand behind ``except``, and cannot be made."""

    def __init__(self, *_: Any) -> None:
        raise RuntimeError("the loops of this process have no TLS (poolmgr/daemon/without_tls.py)")


class _Names(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return 0 if name.isupper() else type(name, (_Absent,), {})

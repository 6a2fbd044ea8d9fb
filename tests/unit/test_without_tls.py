"""A daemon's loop is imported without OpenSSL, and nobody else is the poorer for it."""

from __future__ import annotations

import subprocess
import sys

SERVES = """
import asyncio, uvloop
async def main():
    gone = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda reader, writer: gone.set_result(writer.close()), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await gone
    assert await reader.read() == b""
    writer.close()
    server.close()
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


def _run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_loop_works_and_openssl_is_not_loaded() -> None:
    program = f"""
from poolmgr.daemon.without_tls import import_loop
import_loop()
{SERVES}
import poolmgr.daemon.life, sys
print("ssl" in sys.modules, any("libcrypto" in line or "libssl" in line for line in open("/proc/self/maps")))
"""
    assert _run(program).split() == ["False", "False"]


def test_who_wants_ssl_later_has_it() -> None:
    program = """
from poolmgr.daemon.without_tls import import_loop
import_loop()
import ssl
print(ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED)
"""
    assert _run(program).split() == ["True"]


def test_a_loop_without_tls_says_so() -> None:
    program = """
from poolmgr.daemon.without_tls import import_loop
import_loop()
import asyncio, socket, ssl, uvloop
listening = socket.create_server(("127.0.0.1", 0))
async def main():
    try:
        await asyncio.open_connection(*listening.getsockname(), ssl=ssl.create_default_context())
    except (RuntimeError, TypeError) as error:
        print(error)
    try:
        server = await asyncio.start_server(print, "127.0.0.1", 0, ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    except TypeError as error:
        print(error)
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""
    assert _run(program).splitlines() == [
        "the loops of this process have no TLS (poolmgr/daemon/without_tls.py)",
        "ssl argument must be an SSLContext or None",
    ]


def test_where_ssl_is_there_already_nothing_is_left_out() -> None:
    program = """
import ssl
from poolmgr.daemon.without_tls import import_loop
import_loop()
import asyncio.sslproto, sys
print(asyncio.sslproto.ssl is ssl, sys.modules["ssl"] is ssl)
"""
    assert _run(program).split() == ["True", "True"]

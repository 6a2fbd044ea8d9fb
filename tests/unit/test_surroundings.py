"""What a worker notices of a task's changes to its process. Each case runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import asyncio, builtins, concurrent.futures, ctypes, gc, locale, os, resource, signal, socket, subprocess, sys
import _thread, threading, time
from poolmgr.worker.surroundings import Surroundings

signal.signal(signal.SIGUSR1, lambda *_: None)
kept = os.pipe()
libc = ctypes.CDLL(None)
def death_signal():
    found = ctypes.c_int()
    libc.prctl(2, ctypes.byref(found), 0, 0, 0)
    return found.value
libc.prctl(1, 9, 0, 0, 0)
surroundings = Surroundings()
_thread.start_new_thread(time.sleep, (100,))  # the heart
surroundings.settle(kept)  # which may not have begun yet
while not _thread._count():
    time.sleep(0.0001)
assert surroundings.tidy()
assert surroundings.look() == ""
before = {before}
exec({change!r})
seen = not surroundings.tidy()
left = surroundings.look()
again = (surroundings.tidy(), surroundings.look())
print(repr((seen, left, again, {before} == before)), flush=True)
os._exit(0)
"""


def found(change: str, before: str = "None") -> tuple[bool, str, tuple[bool, str], bool]:
    """(Seen by the look after every task; what cannot be put back; both once more; whether it was put back)."""
    program = PROGRAM.format(change=change, before=before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    result = eval(done.stdout.splitlines()[-1])
    assert isinstance(result, tuple)
    return result


@pytest.mark.parametrize(
    ("change", "before"),
    [
        ("os.chdir('/')", "os.getcwd()"),
        ("os.umask(0o123)", "[os.umask(0), os.umask(surroundings._umask)]"),
        ("signal.alarm(100)", "signal.getitimer(signal.ITIMER_REAL)"),
        ("signal.signal(signal.SIGHUP, signal.SIG_IGN)", "signal.getsignal(signal.SIGHUP)"),
        ("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])", "signal.pthread_sigmask(signal.SIG_BLOCK, [])"),
        ("gc.disable()", "gc.isenabled()"),
        ("socket.setdefaulttimeout(1)", "socket.getdefaulttimeout()"),
        ("sys.path.clear()", "list(sys.path)"),
        ("sys.path = None", "list(sys.path)"),
        ("sys.modules.clear()", "len(sys.modules)"),
        ("os.environ.clear()", "dict(os.environ)"),
        ("os.environ = {}", "dict(os.environ)"),
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (100, kept and resource.getrlimit(resource.RLIMIT_NOFILE)[1]))",
         "resource.getrlimit(resource.RLIMIT_NOFILE)"),
        ("libc.prctl(1, 0, 0, 0, 0)", "death_signal()"),
        ("asyncio._set_running_loop(asyncio.new_event_loop())", "asyncio._get_running_loop()"),
    ],
)  # fmt: skip
def test_what_can_be_put_back_is(change: str, before: str) -> None:
    _, left, again, same = found(change, before)
    assert (left, again, same) == ("", (True, ""), True)


@pytest.mark.parametrize(
    ("change", "before"),
    [
        ("signal.signal(signal.SIGUSR1, signal.SIG_DFL)", "signal.getsignal(signal.SIGUSR1)"),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "signal.getsignal(signal.SIGTERM)"),
        ("out, sys.stdout = sys.stdout, None", "sys.stdout"),
    ],
)
def test_what_is_cheap_to_see_is_seen_after_every_task(change: str, before: str) -> None:
    assert found(change, before) == (True, "", (True, ""), True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("threading.Thread(target=time.sleep, args=(100,), name='left').start()", "threads were left: left"),
        ("subprocess.Popen(['sleep', '2'])", "processes were left"),
        ("time.time = None", "time.time was replaced"),
        ("builtins.print_ = print; builtins.len = lambda x: 1", "builtins.len was replaced"),
        ("os.dup2(0, kept[0])", "files that it needs were replaced"),
        ("os.close(kept[1])", "OSError"),
        ("os.nice(1)", "niceness"),
        ("ctypes.CDLL(None).signal(int(signal.SIGUSR1), 1)", "signal handlers"),
    ],
)
def test_what_cannot_be_put_back_is_named(change: str, why: str) -> None:
    _, left, _, _ = found(change)
    assert why in left


@pytest.mark.parametrize(
    "change",
    [
        "threading.Thread(target=time.sleep, args=(100,), daemon=True).start()",
        "pool = concurrent.futures.ThreadPoolExecutor(1); pool.submit(int).result()",
        "import colorsys; sys.path.append('/new'); os.environ['NEW'] = '1'",
        "subprocess.run(['true'])",
        "thread = threading.Thread(target=int); thread.start(); thread.join()",
    ],
)
def test_what_a_library_makes_for_itself_is_no_change(change: str) -> None:
    _, left, again, _ = found(change)
    assert (left, again) == ("", (True, ""))


def test_a_late_import_of_threading_brings_no_thread_that_was_left() -> None:
    program = PROGRAM.replace("asyncio, builtins, concurrent.futures, ", "builtins, ").replace(
        "socket, subprocess, ", ""
    )
    program = program.replace("import threading, time", "import time\nassert 'threading' not in sys.modules")
    program = program.format(change="import threading", before="None")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(False, '', (True, ''), True)"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(("change", "why"), [("os.setgid(65534)", "its user"), ("os.chroot('/proc')", "look")])
def test_another_user_or_root_cannot_be_put_back(change: str, why: str) -> None:
    assert why in found(change)[1] or "root" in found(change)[1]

"""The handlers that most integration tests run."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import msgpack

from poolmgr import Retry, SoftTimeout, current_task, task
from poolmgr.wire.messages import DONE, RESULT

calls = 0


@task
def add(a: Any, b: Any = 0) -> Any:
    return a + b


@task
def whoami() -> int:
    return os.getpid()


@task
def whoami_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@task
def echo(value: Any) -> Any:
    return value


@task
def size_of(value: bytes) -> int:
    return len(value)


@task
def note_size(file: str, number: int, value: bytes) -> None:
    with open(file, "a") as noted:
        noted.write(f"{number}:{len(value)}\n")


@task
def zeros(count: int) -> bytes:
    return bytes(count)


@task
def now() -> float:
    return time.time()


@task
def add_limited(a: Any, b: Any = 0) -> Any:
    """As ``add``, with a name of its own for the limits of its tasks."""
    return a + b


@task
def count_calls() -> int:
    """How many calls this process has had."""
    global calls
    calls += 1
    return calls


def _say(gate: str, label: str) -> None:
    with open(f"{gate}/begun", "w") as begun:
        begun.write(f"{label}\t{os.getpid()}\t{current_task().attempt}\t{current_task().worker}\n")


@task
def hold(gate: str, label: str = "") -> str:
    """Says that it has begun, and goes on when the gate is opened."""
    _say(gate, label)
    with open(f"{gate}/go", "rb", buffering=0) as go:
        go.read(1)
    return label


@task
def hold_at(gate: str | None, number: int) -> int:
    """As ``hold``, where there is a gate."""
    if gate is not None:
        hold(gate)
    return number


@task
def hold_for_zeros(gate: str, count: int) -> bytes:
    hold(gate)
    return bytes(count)


@task
def hold_limited(gate: str) -> None:
    """As ``hold``, with a name of its own for the limits of its tasks."""
    hold(gate)


@task
def hold_unless_cleaned(gate: str) -> str:
    """As ``hold``; a soft time-out is taken as a reason to clean up and return."""
    try:
        return hold(gate)
    except SoftTimeout:
        return "cleaned up"


@task
async def sleep_in_async() -> None:
    await asyncio.sleep(1000)


@task
def nap(seconds: float) -> None:
    time.sleep(seconds)


@task
async def gather(numbers: list[int]) -> int:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    return sum(await asyncio.gather(*map(double, numbers)))


@task
def spin() -> None:
    """Never ends, and lets nothing interrupt it."""
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


@task
def hold_the_gil() -> float:
    """Computes in one call of native code for a second or two; the CPU time that it took."""
    began = time.thread_time()
    pow(3, 6_000_000)
    return time.thread_time() - began


@task
def sleep_with_the_gil() -> None:
    ctypes.PyDLL(None).usleep(600_000_000)


class Throttled(Exception):
    """Somebody is asked too often."""


class SlowlyThrottled(Throttled):
    """... and knows since when."""


@task(retry_backoff_s=0.01)
def fail(text: str) -> None:
    raise ValueError(text)


@task(retry_backoff_s=0.01)
def fail_until(attempt: int) -> int:
    """Fails in each attempt before this one."""
    if current_task().attempt < attempt:
        raise ValueError(f"attempt {current_task().attempt}")
    return current_task().attempt


@task(retry_backoff_s=0.01, no_retry_on=(LookupError,))
def look_up(key: str) -> None:
    raise KeyError(key)


@task(retry_backoff_s=0.01, retry_on=(Throttled,))
def ask(kind: str) -> None:
    raise {"throttled": Throttled, "slowly": SlowlyThrottled, "other": RuntimeError}[kind](kind)


@task
def come_back(delay_s: float | None, attempts: int) -> int:
    if current_task().attempt < attempts:
        raise Retry("not yet", delay_s=delay_s)
    return current_task().attempt


@task(retry_backoff_s=0.01)
def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


@task
def leave(code: int) -> None:
    os._exit(code)


@task(retry_backoff_s=0.01)
def die_once() -> int:
    if current_task().attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    return current_task().attempt


@task
def leave_a_child(own_session: bool) -> int:
    """The pid of a process that lives on."""
    return subprocess.Popen(["sleep", "1000"], start_new_session=own_session).pid


@task
def chat(lines: int) -> str:
    for number in range(lines):
        print(f"line {number}")
    print("to stderr", file=sys.stderr)
    os.write(1, b"written past Python\n")
    print("unfinished", end="")
    return current_task().id


@task
def say_and_die(text: str) -> None:
    print(text, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


@task
def log(text: str) -> str:
    for level in ("debug", "info", "warning", "error"):
        getattr(current_task().log, level)("%s %s", level, text)
    return current_task().id


@task
def advance(gate: str) -> None:
    current_task().progress(0.25, "a quarter")
    hold(gate)
    current_task().progress(0.75, "three quarters")
    hold(gate)


@task
def describe_me() -> dict[str, Any]:
    me = current_task()
    return {"id": me.id, "name": me.name, "attempt": me.attempt, "worker": me.worker, "remaining_s": me.remaining_s}


@task(name="named.otherwise", priority=3)
def _named() -> str:
    return "named"


@task(retry_backoff_s=0.01)
def die_at_first(marker: str, value: Any) -> Any:
    """Dies where the file is not there yet, having made it."""
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    return value


@task
def lie_about_the_result(kind: str) -> None:
    """Says that a result is in a file, with a wrong one, or without."""
    # Other tasks may have left files open in this process: behind its own.
    control = next(fd for fd in _open_files() if _is_control(fd))
    results = next(fd for fd in _open_files() if fd > 2 and _is_writable_pipe(fd))
    fence, size = int(current_task()._fence), 1 << 20
    with socket.socket(fileno=os.dup(control)) as sock:
        told = [RESULT, fence + 1 if kind == "wrong fence" else fence]
        if kind == "unasked":
            for number in range(100):
                socket.send_fds(sock, [msgpack.packb([RESULT, number])], [_sealed(size)])
        elif kind == "two":
            socket.send_fds(sock, [msgpack.packb(told)], [_sealed(size), _sealed(size)])
        elif kind != "none":
            wrong = {"pipe": results, "unsealed": os.memfd_create("x"), "short": _sealed(size - 1)}
            wrong["unreadable"] = os.open(f"/proc/self/fd/{_sealed(size)}", 3)  # neither to read nor to write
            socket.send_fds(sock, [msgpack.packb(told)], [wrong.get(kind) or _sealed(size)])
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    os.write(results, msgpack.packb([DONE, fence, now, now, size]))
    signal.pause()


def _open_files() -> list[int]:
    return [fd for fd in range(1000) if os.path.lexists(f"/proc/self/fd/{fd}")]


def _is_control(fd: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    with socket.socket(fileno=os.dup(fd)) as sock:
        return sock.type == socket.SOCK_SEQPACKET


def _is_writable_pipe(fd: int) -> bool:
    mode: int = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    return stat.S_ISFIFO(os.fstat(fd).st_mode) and mode == os.O_WRONLY


def _sealed(size: int) -> int:
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


@task(ephemeral=True)
def fresh() -> tuple[int, int]:
    """This process, and how many calls it has had."""
    return os.getpid(), count_calls()


@task
def scribble() -> None:
    """Writes what the protocol does not know on every pipe that this process has."""
    for fd in range(3, 256):
        try:
            os.write(fd, b"\xc1 garbage")
        except OSError:
            continue
    time.sleep(1000)


@task
def threads() -> int:
    return threading.active_count()


@task
def use_logging(text: str) -> None:
    logging.getLogger("app").warning(text)


@task
def result_of_no_kind() -> object:
    return {"deep": [1, object()]}


@task
def retry_nonsense() -> None:
    raise Retry(delay_s="5")  # type: ignore[arg-type]


@task
def shrink_the_page() -> str:
    """Tries to make the manager die of the page that it shares with this worker."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if "poolmgr-page" in os.readlink(f"/proc/self/fd/{name}"):
                os.ftruncate(int(name), 0)
                return "shrunk"
        except PermissionError:
            return "refused"
        except OSError:
            continue
    return "no page"


@task
def leave_a_chatterer() -> None:
    """Starts a process that would fill the output pipe for ever, in a session of its own."""
    subprocess.Popen(["sh", "-c", "exec timeout 20 yes"], start_new_session=True)


@task
def swallow_soft_timeouts(seconds: float) -> str:
    """Takes a soft time-out as no reason to stop."""
    until = time.monotonic() + seconds
    caught = 0
    while time.monotonic() < until:
        try:
            time.sleep(0.005)
        except SoftTimeout:
            caught += 1
    return f"caught {caught}"


@task
async def catch_in_async() -> str:
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        return "cleaned up"
    return "slept"


@task
async def cancel_itself() -> None:
    raise asyncio.CancelledError("on its own account")


@task
def hold_until_cancelled(gate: str) -> str:
    """Says that it has begun, waits to be told that nobody wants it any more, and says so."""
    _say(gate, "begun")
    give_up_at = time.monotonic() + 20
    while not current_task().cancelled and time.monotonic() < give_up_at:
        time.sleep(0.01)
    heard = "told" if current_task().cancelled else "never told"
    _say(gate, heard)
    return heard


@task
async def hold_as_coroutine(gate: str, last_words: bool) -> str:
    """An async one is cancelled, and may have ``last_words``."""
    _say(gate, "begun")
    try:
        await asyncio.sleep(20)
    except asyncio.CancelledError:
        if not last_words:
            raise
        return f"told: {current_task().cancelled}"
    return "never told"


class _Holding:
    """A field that, set in a worker, holds at its gate."""

    def __get__(self, instance: Any, owner: type) -> str:
        if instance is None:
            raise AttributeError
        return str(instance.__dict__["gate"])

    def __set__(self, instance: Any, gate: str) -> None:
        instance.__dict__["gate"] = gate
        if current_task().id:
            hold(gate, "decoding")


@dataclass
class SlowToDecode:
    gate: _Holding = _Holding()


@task
def is_cancelled(value: SlowToDecode) -> bool:
    return current_task().cancelled


@task
async def begin_as_coroutine(value: SlowToDecode) -> str:
    return "begun"


@task
def exit_with_words(words: str, code: int) -> None:
    print(words)
    os._exit(code)


@task
def crash() -> None:
    print("it comes")
    ctypes.string_at(0)


@task
def print_and_raise(words: str) -> None:
    print(words)
    raise ValueError("after all")


@task
def print_without_end() -> None:
    while True:
        print("x")


@task
def print_lines(count: int) -> None:
    for number in range(count):
        print("line", number)


@task
def log_without_end() -> None:
    while True:
        current_task().log.error("and again")


@task
def fork_away(waited: bool = True) -> int:
    """Leaves a process behind that was forked only, in a session of its own, and is nobody's child; its pid. Its parent
    has ended, and is waited for or not."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if pid := os.fork():
            os.write(writer, b"%d" % pid)
            os._exit(0)
        os.close(reader)
        os.close(writer)
        time.sleep(1000)
    found = int(os.read(reader, 20))
    if waited:
        os.wait()
    else:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    os.close(reader)
    os.close(writer)
    return found


@task
def fork_away_and_hold(gate: str) -> None:
    hold(gate, str(fork_away()))


@task
def start_nameless() -> int:
    """Leaves a process behind that has thrown its environment away, too; its pid."""
    command = ["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"]
    return int(subprocess.run(command, env={}, start_new_session=True, stdout=subprocess.PIPE, check=True).stdout)


@task
def start_and_hold(gate: str) -> None:
    """Two processes, one of them in a session of its own, told at the gate; then it holds."""
    born = [subprocess.Popen(["sleep", "1000"], start_new_session=away).pid for away in (False, True)]
    hold(gate, " ".join(map(str, born)))


@task
def hide_and_hold(gate: str) -> None:
    """As ``start_and_hold``: a process and its child, in a session of their own and with no environment."""
    command = ["sh", "-c", "sleep 1000 & echo $!; wait"]
    hidden = subprocess.Popen(command, env={}, start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert hidden.stdout is not None
    hold(gate, f"{hidden.pid} {hidden.stdout.readline().strip()}")


@task
def wait_for_term(path: str) -> None:
    """Has a handler for SIGTERM, which writes to ``path``."""

    def tidy_up(number: int, frame: Any) -> None:
        with open(path, "w") as file:
            file.write("tidied up")
        os._exit(3)

    signal.signal(signal.SIGTERM, tidy_up)
    time.sleep(1000)


@task
def attempt() -> int:
    return current_task().attempt


@task
def leave_a_thread() -> int:
    """Leaves a thread that never ends, and that Python would wait for."""
    threading.Thread(target=time.sleep, args=(1000,)).start()
    return current_task().attempt


@task
def become_another_program() -> None:
    os.execvp("sleep", ["sleep", "1000"])


@task
def recall_itself() -> None:
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.readlink(f"/proc/self/fd/{name}").startswith("pipe:"):
                os.write(int(name), b"\x92\x40")
        except OSError:
            continue


@task
def report_at_length(size: int) -> int:
    """Reports progress with a message of so many characters."""
    current_task().progress(0.5, "x" * size)
    return size

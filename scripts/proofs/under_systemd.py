"""What the proof ``systemd`` does as root inside of a throw-away system.

It installs poolmgr as docs/how-to/run-under-systemd.md tells, and goes through a service's life. Run as
``python -m scripts.proofs.under_systemd ROUNDS``; it prints a line of JSON for each
figure: [label, value, unit, limits].
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from poolmgr import Client
from poolmgr.errors import NotAllowed, NotRunning, PoolError
from poolmgr.manager import procfs
from scripts.proofs.pool import HERE, until

ROOT: Final = HERE.parents[1]
SYSTEMD: Final = ROOT / "systemd"
UNITS: Final = Path("/etc/systemd/system")
ETC: Final = Path("/etc/poolmgr")
APP: Final = Path("/srv/poolmgr")
VENV: Final = Path("/opt/poolmgr")
NINE: Final = ("square_slowly", "3", "0")  # a task whose result is 9
MINE: Final = "/run/poolmgr/poolmgr.sock"
WORKERS: Final = 4
EXPOSURE: Final = 1.5
WATCHDOG_S: Final = 3
PATIENCE_S: Final = 40.0

SETTINGS: Final = f'app = ["served"]\npool_size = {WORKERS}\nsocket_group = "poolmgr"\n'
# A shorter watchdog to wait for, and a stop time-out that a drain must be granted more than.
QUICK: Final = f"[Service]\nWatchdogSec={WATCHDOG_S}\nTimeoutStopSec=1\n"


def figure(label: str, value: float, unit: str = "", **limits: float) -> None:
    """Hand a figure out."""
    print(json.dumps([label, value, unit, limits]), flush=True)


def holds(label: str, what: object) -> None:
    """Hand out whether something is so."""
    figure(label, int(bool(what)), at_least=1)


def run(*command: str, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command, with what it wrote. One that fails while it must not tells what it wrote."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environ})
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}{journal()}")
    return done


def systemctl(*arguments: str) -> None:
    """As the command. A service that fails shows its log."""
    run("systemctl", *arguments)


def show(unit: str, name: str) -> str:
    """A property of a unit."""
    return run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()


def journal(*arguments: str) -> str:
    """The messages of the service."""
    return subprocess.run(
        ["journalctl", "--no-pager", "--output=cat", "--unit=poolmgr*", *arguments],
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def main(rounds: int) -> None:
    """A service's life in its order. One round, which the tests run, leaves out what differs from that but little."""
    _install()
    _files()
    _start()
    _control_groups()
    _reload()
    _restarts("SIGSTOP of the daemon (the watchdog)", signal.SIGSTOP, rounds)
    if rounds > 1:
        _restarts("SIGKILL of the daemon", signal.SIGKILL, rounds)
    _stop()
    _activation(rounds)
    if rounds > 1:
        _side_by_side()
        _user_unit()


def _install() -> None:
    """The Python of this process and the project's dependencies are borrowed; the places are those of the how-to."""
    for name in ("poolmgr", "guest", "stranger"):
        run("useradd", "--system", "--user-group", "--create-home", "--shell", "/bin/sh", name)
    run("usermod", "--append", "--groups", "poolmgr", "guest")
    for source, target in ((sys.base_prefix, "/opt/python"), (str(ROOT), "/opt/checkout")):
        os.makedirs(target)
        run("mount", "--bind", source, target)
    # A Python that was built for a directory which services may not see looks for its library where the machine does.
    Path("/etc/ld.so.conf.d/00-python.conf").write_text("/opt/python/lib\n")
    run("ldconfig")
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    run(f"/opt/python/bin/{python}", "-m", "venv", "--without-pip", str(VENV))
    packages = Path("lib", python, "site-packages")
    borrowed = [Path("/opt/checkout"), "/opt/checkout" / Path(sys.prefix).relative_to(ROOT) / packages]
    (VENV / packages / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
    command = VENV / "bin" / "poolmgr"
    command.write_text(f"#!{VENV}/bin/python\nimport sys\nfrom poolmgr.cli import main\nsys.exit(main())\n")
    command.chmod(0o755)
    for left_by_others in ("/var/lib/poolmgr", "/var/cache/poolmgr", ETC, APP):
        shutil.rmtree(left_by_others, ignore_errors=True)
    for directory in (ETC, APP, UNITS / "poolmgr.service.d"):
        directory.mkdir(parents=True)
    (ETC / "poolmgr.toml").write_text(SETTINGS)
    (UNITS / "poolmgr.service.d" / "quick.conf").write_text(QUICK)
    _write_app(1)
    for unit in units():
        shutil.copy(unit, UNITS)
    if systemd_version() >= 253:
        shutil.copy(SYSTEMD / "drop-ins" / "notify-reload.conf", UNITS / "poolmgr.service.d")
    if systemd_version() >= 254:
        shutil.copy(SYSTEMD / "drop-ins" / "subgroup.conf", UNITS / "poolmgr.service.d")
    systemctl("daemon-reload")


def units() -> list[Path]:
    """The unit files of the machine's services."""
    return [path for path in sorted(SYSTEMD.iterdir()) if path.is_file()]


def systemd_version() -> int:
    """Of the running one."""
    return int(run("systemctl", "--version").stdout.split()[1])


def _write_app(number: int, more: str = "") -> None:
    text = (HERE / "served.py").read_text().replace("VERSION = 1\n", f"VERSION = {number}\n")
    (APP / "served.py").write_text(text + more)


def _files() -> None:
    """What systemd has to say of the unit files."""
    names = [unit.name.replace("@", "@blue") for unit in units()]
    complaints = [
        line
        for name in names
        for line in run(
            "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", name, check=False
        ).stderr.splitlines()
    ]
    for line in complaints:
        print(line, file=sys.stderr)
    figure("complaints of systemd-analyze verify", len(complaints), at_most=0)
    for name in ("poolmgr.service", "poolmgr@.service"):
        told = run("systemd-analyze", "security", "--offline=true", "--threshold=100", str(UNITS / name)).stdout
        found = re.search(r"Overall exposure level .*: (\d+\.\d+)", told)
        figure(f"exposure of {name}", float(found[1]) if found else float("nan"), at_most=EXPOSURE)


def _start() -> None:
    began = time.monotonic()
    systemctl("start", "poolmgr")
    figure("systemctl start", time.monotonic() - began, "s")
    holds("it is active, its workers ready", show("poolmgr", "StatusText").startswith(f"{WORKERS} workers ready"))
    with Client(MINE) as pool:
        for failed in pool.run("fails_at"):
            print(f"a task cannot: {failed}", file=sys.stderr)
        figure("of what handlers may do, refused", len(pool.run("fails_at")), at_most=0)
        for granted in pool.run("gets_away_with"):
            print(f"a task can: {granted}", file=sys.stderr)
        figure("of what they should not, granted", len(pool.run("gets_away_with")), at_most=0)
        handed_on = pool.run("hand_on", 6)
        holds("a task that submits finds its own pool", pool.result(handed_on, timeout=10) == 36)
        future = pool.submit("square_slowly", 1, 1000.0)
        until(lambda: "1 running" in show("poolmgr", "StatusText"), "the status says what runs", PATIENCE_S)
        holds("the status text follows the pool", True)
        pool.cancel(future.id, kill=True)
    holds("a member of the group may submit", _submits("guest", MINE))
    holds("a stranger may not", not _submits("stranger", MINE))


def _control_groups() -> None:
    """Each worker has one, and what a task has hidden goes with its worker, and so does the group."""
    with Client(MINE) as pool:
        group = Path(pool.metrics()["cgroup"] or "/none")
        until(lambda: all(map(_members, [group / each for each in _labels(pool)])), "workers are in groups")
        worker, hidden = pool.run("hide")  # as it has left processes, its worker is replaced
        holds("workers have control groups", worker.startswith("worker-") and group.name.startswith("poolmgr."))
        until(lambda: worker not in _labels(pool), "its worker has ended")
        began = time.monotonic()
        until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in hidden), "what it has hidden is gone")
        figure("  what it has hidden is gone, after its worker", time.monotonic() - began, "s", at_most=2)
        until(lambda: _groups_in(group) == _labels(pool), "each worker has a group, and nobody else")
        holds("  no group is left of a worker that has ended", True)


def _labels(pool: Client) -> list[str]:
    return sorted(f"{each.id}.{each.incarnation}" for each in pool.workers())


def _members(group: Path) -> list[str]:
    return (group / "cgroup.procs").read_text().split() if group.exists() else []


def _groups_in(group: Path) -> list[str]:
    return sorted(each.name for each in group.iterdir() if each.is_dir())


def _submits(user: str, socket: str) -> bool:
    """Whether a user can have a task done by the pool. Who may not is told so."""
    command = (f"{VENV}/bin/poolmgr", "--json", "--socket", socket, "submit", *NINE, "--wait")
    done = run("runuser", "-u", user, "--", *command, check=False)
    assert not done.returncode or NotAllowed.code in done.stderr, done.stderr
    return not done.returncode and json.loads(done.stdout)["result"] == 9


def _reload() -> None:
    with Client(MINE) as pool:
        slow = pool.submit("square_slowly", 5, 1.0)
        before = daemon()
        _write_app(2)
        systemctl("reload", "poolmgr")
        holds("after systemctl reload, the new code runs", pool.run("version") == 2)
        holds("in the same daemon", daemon() == before and show("poolmgr", "ActiveState") == "active")
        holds("what ran has completed", slow.result(timeout=10) == 25)
        _write_app(3, "import no_such_module\n")
        tried = run("systemctl", "reload", "poolmgr", check=False)
        holds("a broken version is refused, in words", "refused" in show("poolmgr", "StatusText"))
        holds("  by systemctl reload, too", tried.returncode or show("poolmgr", "Type") == "notify-reload")
        holds("and the old one serves", pool.run("version") == 2 and daemon() == before)
        _write_app(2)


def daemon(unit: str = "poolmgr") -> int:
    """The process id of the service's daemon; 0 while it has none."""
    return int(show(unit, "MainPID"))


def _restarts(what: str, number: int, rounds: int) -> None:
    """The daemon is hit while it has acknowledged work; systemd has to notice, and the next one to do the work."""
    done = left = 0
    took_s = 0.0
    for each in range(rounds):
        systemctl("reset-failed", "poolmgr")  # no start limit: that many failures are the purpose
        with Client(MINE) as pool:
            future = pool.using(restartable=True).submit("square_slowly", each, 1.0)
            future.accepted(timeout=10)
        before = daemon()
        family = procfs.children(before)
        began = time.monotonic()
        os.kill(before, number)
        until(lambda was=before: daemon() not in (0, was) and show("poolmgr", "ActiveState") == "active",  # type: ignore[misc]
              f"a new daemon after {what}", PATIENCE_S)  # fmt: skip
        took_s = max(took_s, time.monotonic() - began)
        left += sum(os.path.exists(f"/proc/{pid}") for pid in (before, *family))
        with Client(MINE) as pool:
            done += pool.result(future.id, timeout=30) == each * each
            group = Path(pool.metrics()["cgroup"])
            left += len([name for name in _groups_in(group.parent) if name.startswith("poolmgr.")]) - 1
    figure(f"{what}: restarts", rounds, at_least=rounds)
    figure("  until it was ready again, longest", took_s, "s", at_most=PATIENCE_S)
    figure("  processes and groups left of it", left, at_most=0)
    figure("  acknowledged tasks completed after it", done, at_least=rounds)
    if number == signal.SIGSTOP:
        stacks = journal().count("Fatal Python error: Aborted")
        figure("  stacks of the killed in the journal", stacks, at_least=rounds)


def _stop() -> None:
    """It takes longer than the unit's stop time-out, and is granted that."""
    with Client(MINE) as pool:
        future = pool.submit("square_slowly", 7, 3.0)
        waiting = pool.using(delay_s=3600).submit("version")
        pool.flush()
        until(lambda: pool.metrics()["tasks"]["running"] == 1, "it runs")
        stopping = threading.Thread(target=systemctl, args=("stop", "poolmgr"))
        stopping.start()
        holds("systemctl stop drains what runs", future.result(timeout=30) == 49)
    stopping.join()
    holds("and ends well", show("poolmgr", "Result") == "success" and not Path(MINE).exists())
    systemctl("start", "poolmgr")
    with Client(MINE) as pool:
        holds("what waited is there at the next start", pool.cancel(waiting.id))
    systemctl("stop", "poolmgr")


def _activation(rounds: int) -> None:
    systemctl("start", "poolmgr.socket")
    holds("the socket is there without the service", show("poolmgr", "ActiveState") == "inactive")
    with Client(MINE) as pool:
        holds("the first client starts it", _answers(pool) and show("poolmgr", "ActiveState") == "active")
    refused: list[str] = []
    answered: list[bool] = []
    with _callers(refused, answered):
        for _ in range(rounds):
            systemctl("reset-failed", "poolmgr")
            before = len(answered)
            systemctl("restart", "poolmgr")
            until(lambda count=before: len(answered) > count + 5, "callers are answered")  # type: ignore[misc]
    figure("restarts under callers", rounds, at_least=rounds)
    figure("callers that found nobody", len(refused), at_most=0)
    systemctl("stop", "poolmgr.service")
    until(lambda: show("poolmgr", "ActiveState") == "inactive", "it has stopped")
    again = _submits("guest", MINE)
    holds("after its stop, a client starts it again", again and show("poolmgr", "ActiveState") == "active")
    systemctl("stop", "poolmgr.socket", "poolmgr.service")
    holds("nothing is left when both are stopped", not Path(MINE).exists())


@contextmanager
def _callers(refused: list[str], answered: list[bool]) -> Iterator[None]:
    """Clients that come one after the other. A daemon that drains may turn a call down; nobody there it may not be."""
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            try:
                with Client(MINE) as pool:
                    answered.append(_answers(pool))
            except NotRunning as error:
                refused.append(str(error))
            except PoolError:
                pass

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _side_by_side() -> None:
    colours = {"blue": 2, "green": 3}
    for colour, workers in colours.items():
        (ETC / f"{colour}.toml").write_text(SETTINGS.replace(f"pool_size = {WORKERS}", f"pool_size = {workers}"))
        shutil.copytree(APP, f"/srv/poolmgr-{colour}")
    systemctl("start", *(f"poolmgr@{colour}" for colour in colours))
    sizes = {colour: _ask(colour, lambda pool: pool.metrics()["pool"]["size"]) for colour in colours}
    figure("pools side by side, each with its settings", sum(sizes[c] == colours[c] for c in colours), at_least=2)
    other = daemon("poolmgr@green")
    os.kill(before := daemon("poolmgr@blue"), signal.SIGKILL)
    until(lambda: daemon("poolmgr@blue") not in (0, before), "it is back", PATIENCE_S)
    until(lambda: show("poolmgr@blue", "ActiveState") == "active", "it is ready", PATIENCE_S)
    holds("one is killed, the other notices nothing", daemon("poolmgr@green") == other)
    holds("both answer", all(_ask(colour, _answers) for colour in colours))
    holds("a member of the group may submit to either", _submits("guest", _socket("blue")))
    systemctl("stop", *(f"poolmgr@{colour}" for colour in colours))
    systemctl("start", "poolmgr@blue.socket")
    holds("an instance is started by its socket", _ask("blue", _answers))
    systemctl("stop", "poolmgr@blue.socket", "poolmgr@blue.service")


def _answers(pool: Client) -> bool:
    return bool(pool.run("square_slowly", 3, 0.0) == 9)


def _ask(colour: str, what: Callable[[Client], Any]) -> Any:
    with Client(_socket(colour)) as pool:
        return what(pool)


def _socket(colour: str) -> str:
    return f"/run/poolmgr-{colour}/poolmgr.sock"


def _user_unit() -> None:
    """A user's own service manager, without a login session around it."""
    home, runtime = Path("/home/guest"), Path("/run/guest")
    units_of_guest = home / ".config" / "systemd" / "user"
    settings = home / ".config" / "poolmgr" / "poolmgr.toml"
    for directory in (units_of_guest, settings.parent, home / ".local" / "bin", runtime):
        directory.mkdir(parents=True, mode=0o700)
    shutil.copy(SYSTEMD / "user" / "poolmgr.service", units_of_guest)
    (home / ".local" / "bin" / "poolmgr").symlink_to(VENV / "bin" / "poolmgr")
    shutil.copy(APP / "served.py", home)
    settings.write_text('app = ["served"]\npool_size = 2\n')
    run("chown", "--recursive", "guest:", str(home), str(runtime))
    manager = ("--property=User=guest", "--property=Delegate=yes", "--property=Type=notify")
    places = (f"--setenv=XDG_RUNTIME_DIR={runtime}", f"--setenv=HOME={home}")
    run("systemd-run", "--unit=guest-manager", *manager, *places, "/lib/systemd/systemd", "--user")

    def as_guest(*command: str) -> str:
        return run("runuser", "-u", "guest", "--", *command, XDG_RUNTIME_DIR=str(runtime), HOME=str(home)).stdout

    as_guest("systemctl", "--user", "start", "poolmgr")
    answer = as_guest(f"{VENV}/bin/poolmgr", "submit", *NINE, "--wait")
    holds("a user's own service answers that user", answer == "9\n")
    as_guest("systemctl", "--user", "stop", "poolmgr")
    systemctl("stop", "guest-manager")


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""New code without a restart. What does not come up is refused; nothing that runs or waits is lost."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from poolmgr import Client
from poolmgr.client.results import EventStream
from poolmgr.errors import ConfigError, PoolError, ReloadFailed, ShuttingDown, UnknownTask
from poolmgr.model import TaskState
from scripts.proofs.pool import Pool, until
from tests.integration.conftest import APPS, Gate

Make = Callable[..., Pool]

TELL = """
from poolmgr import task, worker_startup
from handlers import hold

@task(priority={priority})
def version():
    return "{version}"
"""
SLOW_HOOK = """
@worker_startup
def connect():
    with open({gate!r} + "/begun", "w") as begun:
        begun.write("hook\\t0\\t0\\t-\\n")
    with open({gate!r} + "/go", "rb", buffering=0) as go:
        go.read(1)
"""


class Deployed:
    """A daemon of two workers, whose app is in a directory of its own."""

    def __init__(self, make_pool: Make, directory: Path, **settings: object) -> None:
        self.directory = directory / "app"
        self.directory.mkdir()
        self.write("one")
        self.pool = make_pool(directory=directory, app="evolving", app_directory=self.directory, **settings)
        self.pool.environ["PYTHONPATH"] = str(APPS)
        # Two versions of one length, written in one second, are one to Python's cache of compiled modules.
        self.pool.environ["PYTHONDONTWRITEBYTECODE"] = "1"

    def write(self, version: str, more: str = "", *, priority: int = 10, module: str = "evolving") -> None:
        text = TELL.format(version=version, priority=priority) + more
        (self.directory / f"{module}.py").write_text(text)

    def versions(self, client: Client) -> set[str]:
        return {future.result(timeout=10) for future in [client.submit("version") for _ in range(8)]}


@pytest.fixture
def deploy(make_pool: Make, short_path: Callable[[], Path]) -> Callable[..., Deployed]:
    def deploy(**settings: object) -> Deployed:
        deployed = Deployed(make_pool, short_path(), **settings)
        deployed.pool.start()
        return deployed

    return deploy


Deploy = Callable[..., Deployed]


def heard(client: Client) -> closing[EventStream]:
    """How each reload from now on ends."""
    return closing(client.events("code-reloaded", "reload-refused"))


def test_a_reload_brings_new_code_names_and_options_and_drops_old_names(deploy: Deploy) -> None:
    deployed = deploy()
    old = "\n@task\ndef old():\n    pass\n"
    deployed.write("two", old)
    with deployed.pool.client() as client, heard(client) as events:
        assert deployed.versions(client) == {"one"}
        with pytest.raises(UnknownTask):
            client.run("old")
        assert client.reload()["tasks_added"] == ["old"]
        assert next(events).fields["generation"] == 2
        assert deployed.versions(client) == {"two"}
        client.run("old")
        waiting = client.using(delay_s=1000).submit("old")
        client.flush()
        deployed.write("three", "\n@task\ndef new():\n    return 'new'\n", priority=3)
        answer = client.reload()
        assert answer["generation"] == 3
        assert (answer["workers"], answer["draining"], answer["tasks_dropped"]) == (2, [], 1)
        assert (answer["tasks_added"], answer["tasks_removed"]) == (["new"], ["old"])
        assert next(events).fields == {"generation": 3, "draining": [], "dropped": 1}
        assert client.run("new") == "new"
        with pytest.raises(PoolError, match="the app has no task 'old' any more"):
            waiting.result(timeout=10)
        assert (client.task(waiting.id).state, client.task(waiting.id).cause) == (TaskState.DEAD, "unknown_task")
        with pytest.raises(UnknownTask):
            client.run("old")
        assert client.task(client.submit("version").id).priority == 3
        assert {worker.generation for worker in client.workers()} == {3}
        assert client.metrics()["pool"]["generation"] == 3
    until(lambda: len(deployed.pool.children()) == 3, "one template is left")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("\nimport no_such_module_anywhere\n", "No module named 'no_such_module_anywhere'"),
        ("\n@worker_startup\ndef connect():\n    raise OSError('no database')\n", "OSError: no database"),
        ("\nimport os\nos._exit(3)\n", "the template ended while it imported the app: exit code 3"),
        ("\n@worker_startup\ndef die():\n    import os\n    os._exit(7)\n", "exit code 7"),
        ("\n@task(name='hold')\ndef other():\n    pass\n", "two handlers have the name 'hold'"),
    ],
    ids=["import", "hook", "exit", "dying-hook", "same-names"],
)  # fmt: skip
def test_code_that_does_not_come_up_is_refused(deploy: Deploy, more: str, reason: str) -> None:
    deployed = deploy()
    deployed.write("bad", more)
    with deployed.pool.client() as client, heard(client) as events:
        before = {worker.pid for worker in client.workers()}
        with pytest.raises(ReloadFailed, match="the old code goes on") as refused:
            client.reload()
        assert reason in str(refused.value)
        assert reason in next(events).fields["error"]
        assert reason in deployed.pool.log.read_text()
        assert deployed.versions(client) == {"one"}
        until(lambda: len(client.workers()) == 2, "the trial has gone")
        assert {worker.pid for worker in client.workers()} == before
        until(lambda: len(deployed.pool.children()) == 3, "nothing is left of the bad version")
        deployed.write("two")
        client.reload()
        assert deployed.versions(client) == {"two"}


def test_a_daemon_without_a_free_descriptor_refuses_and_can_be_reloaded_later(deploy: Deploy) -> None:
    deployed = deploy()
    deployed.write("two")
    pid = deployed.pool.pid
    with deployed.pool.client() as client, heard(client) as events:
        assert deployed.versions(client) == {"one"}
        open_ones = {int(number) for number in os.listdir(f"/proc/{pid}/fd")}
        free = next(number for number in range(len(open_ones) + 1) if number not in open_ones)
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
        with pytest.raises(
            ReloadFailed, match=r"the old code goes on, since no template can be started: .*Too many open"
        ):
            client.reload()
        assert "Too many open files" in next(events).fields["error"]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        client.reload()
        assert deployed.versions(client) == {"two"}


def test_what_an_apps_modules_have_started_goes_with_their_version(deploy: Deploy, tmp_path: Path) -> None:
    """A child of the import, and one that has left its parent. A refused version's go, too; those of the version that
    runs stay, also where its template is replaced: the workers that it has forked may use them."""
    deployed = deploy()
    pids = tmp_path / "pids"
    start = """
import subprocess
child = subprocess.Popen(["sleep", "1000"]).pid
away = int(subprocess.check_output("setsid sleep 1000 >/dev/null & echo $!", shell=True))
with open({pids!r}, "a") as file:
    print(child, away, file=file)
"""

    def started() -> list[list[int]]:
        return [[int(pid) for pid in line.split()] for line in pids.read_text().splitlines()]

    def swept(versions: list[list[int]]) -> bool:
        return not any(_lives(pid) for version in versions for pid in version)

    with deployed.pool.client() as client:
        for version in ("two", "three"):
            deployed.write(version, start.format(pids=str(pids)))
            client.reload()
        deployed.write("bad", start.format(pids=str(pids)) + "raise OSError")
        with pytest.raises(ReloadFailed):
            client.reload()
        two, three, bad = started()
        until(lambda: swept([two, bad]), "they are swept")
        assert all(_lives(pid) for pid in three)
        deployed.write("three", start.format(pids=str(pids)))
        template = deployed.pool.template()
        os.kill(template, signal.SIGKILL)
        until(lambda: len(started()) == 4, "another imports the app")
        lost = client.workers()[0]
        os.kill(lost.pid or 0, signal.SIGKILL)  # a sweep
        until(lambda: client.worker(lost.id).incarnation > lost.incarnation, "another is asked for")
        until(lambda: client.worker(lost.id).state == "ready", "it is forked")
        assert deployed.versions(client) == {"three"}
        assert all(_lives(pid) for pid in (*three, *started()[3]))
        deployed.write("four")
        client.reload()
        until(lambda: swept(started()), "all are swept")


def test_sighup_reloads(deploy: Deploy) -> None:
    deployed = deploy()
    deployed.write("two")
    with deployed.pool.client() as client, heard(client) as events:
        deployed.pool.signal(signal.SIGHUP)
        assert next(events).name == "code-reloaded"
        assert deployed.versions(client) == {"two"}
        deployed.write("bad", "\n1 / 0\n")
        deployed.pool.signal(signal.SIGHUP)
        assert "ZeroDivisionError" in next(events).fields["error"]
        assert deployed.versions(client) == {"two"}


def test_code_that_cannot_be_forked_is_spawned_until_it_can(deploy: Deploy) -> None:
    deployed = deploy()
    deployed.write("two", "\nimport threading as t\nt.Thread(target=t.Event().wait, daemon=True).start()\n")
    with deployed.pool.client() as client:
        client.reload()
        assert deployed.versions(client) == {"two"}
        assert ["has started threads" in alert for alert in client.health()["alerts"]] == [True]
        deployed.write("three")
        client.reload()
        assert deployed.versions(client) == {"three"}
        assert client.health()["alerts"] == []


def test_spawned_workers_are_rolled_over_like_forked_ones(deploy: Deploy) -> None:
    deployed = deploy(start_method="spawn")
    deployed.write("two")
    with deployed.pool.client() as client:
        client.reload()
        assert deployed.versions(client) == {"two"}


def test_a_busy_worker_finishes_with_its_code_and_nobody_waits_for_it(deploy: Deploy, gate: Gate) -> None:
    deployed = deploy()
    with deployed.pool.client() as client:
        held = client.submit("hold", gate.path, "old")
        begun = gate.begun()
        deployed.write("two")
        assert client.reload()["draining"] == [begun.worker]
        assert deployed.versions(client) == {"two"}
        assert client.worker(begun.worker).generation == 1
        deployed.write("three")
        assert client.reload()["draining"] == [begun.worker]
        assert deployed.versions(client) == {"three"}
        gate.open()
        assert held.result(timeout=10) == "old"
        until(lambda: client.worker(begun.worker).generation == 3, "its place has the latest code")
    until(lambda: len(deployed.pool.children()) == 3, "the old templates are gone")


def test_all_busy_workers_are_told_to_finish_and_queued_tasks_run_on_the_new_code(deploy: Deploy, gate: Gate) -> None:
    deployed = deploy(workers=1)
    with deployed.pool.client() as client:
        held = client.submit("hold", gate.path)
        gate.begun()
        queued = client.submit("version")
        deployed.write("two")
        assert client.reload()["draining"] == ["worker-0"]
        gate.open()
        held.result(timeout=10)
        assert queued.result(timeout=10) == "two"


def test_a_kill_of_the_daemon_in_the_middle_of_a_reload_leaves_nothing(deploy: Deploy, gate: Gate) -> None:
    """With two templates, a worker of each, and processes that have thrown the pool's mark away."""
    deployed = deploy()
    lost = """
@task
def lose_a_child():
    import subprocess
    return subprocess.Popen(["/usr/bin/env", "-i", "sleep", "1000"]).pid
"""
    with deployed.pool.client() as client:
        deployed.write("two", lost)
        client.reload()
        child = client.run("lose_a_child")
        client.submit("hold", gate.path)
        gate.begun()
        deployed.write("three", lost + SLOW_HOOK.format(gate=gate.path))
        with ThreadPoolExecutor(1) as executor:
            reload = executor.submit(client.reload)
            assert gate.begun().label == "hook"
            deployed.pool.kill()
            assert isinstance(reload.exception(timeout=10), PoolError)
    until(lambda: not deployed.pool.processes() and not _lives(child), "nothing is left", 2)


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_new_template_that_dies_in_the_middle_is_a_refusal(deploy: Deploy, gate: Gate) -> None:
    deployed = deploy()
    before = set(deployed.pool.children())
    deployed.write("two", SLOW_HOOK.format(gate=gate.path))
    with deployed.pool.client() as client, ThreadPoolExecutor(1) as executor:
        reload = executor.submit(client.reload)
        gate.begun()
        new = [pid for pid in deployed.pool.children() if pid not in before]
        template = next(pid for pid in new if Path(f"/proc/{pid}/comm").read_text() == "pool-template\n")
        os.kill(template, signal.SIGKILL)
        with pytest.raises(ReloadFailed, match="the template of the new code ended"):
            reload.result(timeout=10)
        assert deployed.versions(client) == {"one"}
        gate.open()
        until(lambda: set(deployed.pool.children()) == before, "nothing of it is left")


def test_reloads_come_one_after_the_other_and_those_that_wait_share_one(deploy: Deploy, gate: Gate) -> None:
    deployed = deploy()
    deployed.write("two", SLOW_HOOK.format(gate=gate.path))
    clients = [deployed.pool.client() for _ in range(4)]
    with ThreadPoolExecutor(4) as executor:
        first = executor.submit(clients[0].reload)
        gate.begun()
        others = [executor.submit(client.reload) for client in clients[1:]]
        deployed.write("three")
        # The last command before this answer was taken in before it: each has its connection, so ask on all of them.
        until(lambda: clients[0].metrics()["pool"]["generation"] == 1)
        gate.open(10)
        assert first.result(timeout=10)["generation"] == 2
        assert {other.result(timeout=10)["generation"] for other in others} <= {3, 4}
    assert deployed.versions(clients[0]) == {"three"}
    for client in clients:
        client.close()


def test_a_daemon_that_drains_ends_its_reload_and_begins_none(deploy: Deploy, gate: Gate) -> None:
    deployed = deploy()
    with deployed.pool.client() as client, ThreadPoolExecutor(1) as executor:
        held = client.submit("hold", gate.path, "done")
        gate.begun()
        deployed.write("two", "\nimport time\ntime.sleep(1000)\n")
        reload = executor.submit(client.reload)
        until(lambda: "reloading the code" in deployed.pool.log.read_text(), "the import has begun")
        deployed.pool.signal(signal.SIGTERM)
        with pytest.raises(ShuttingDown):
            reload.result(timeout=10)
        with pytest.raises(ShuttingDown):
            client.reload()
        gate.open()
        assert held.result(timeout=10) == "done"
    assert deployed.pool.wait() == 0
    assert deployed.pool.processes() == []


def test_the_settings_file_is_read_anew(deploy: Deploy, tmp_path: Path) -> None:
    file = tmp_path / "poolmgr.toml"
    file.write_text('app = ["evolving"]\n')
    deployed = deploy(config=file)
    deployed.pool.end()
    del deployed.pool.command[-2:]  # --app: a flag would win
    deployed.pool.start()
    with deployed.pool.client() as client:
        file.write_text("app = [")
        with pytest.raises(ConfigError, match="is not TOML"):
            client.reload()
        file.write_text('app = ["evolving"]\npoolsize = 3\n')
        with pytest.raises(ConfigError, match="did you mean 'pool_size'"):
            client.reload()
        assert deployed.versions(client) == {"one"}
        (deployed.directory / "more.py").write_text("from poolmgr import task\n@task\ndef added():\n    return 1\n")
        file.write_text('app = ["evolving", "more"]\nmax_task_retries = 7\npoison_after = 9\n')
        answer = client.reload()
        assert answer["restart_needed"] == ["poison_after"]
        assert client.run("added") == 1
        assert client.task(client.submit("added").id).max_retries == 7
        assert (client.config()["max_task_retries"], client.config()["poison_after"]) == (7, 3)
        assert client.metrics()["pool"]["app"] == ["evolving", "more"]

"""The installed command against a real daemon, as people and scripts use it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess

import pytest

from tests.acceptance.shell import POOLMGR, Shell, await_end, end

NO_TASK = "0" * 32


# ------------------------------------------------------------------------------------------------ start and stop


def test_start_status_stop(shell: Shell) -> None:
    said = shell.run("start", "--app", "app", "--workers", "3")
    pid = int(shell.pid_file.read_text())
    assert said.startswith(f"poolmgr: 3 workers ready (pid {pid}, ")
    assert said.endswith(f" s), socket {shell.socket}\n")

    status = shell.ask("status")
    assert (status["pid"], status["epoch"], status["mode"]) == (pid, 1, "managed")
    assert status["pool"]["size"] == 3
    assert status["pool"]["app"] == ["app"]
    assert {"add", "fail", "read", "where"} <= set(status["pool"]["tasks_known"])
    assert (status["workers"]["total"], status["workers"]["ready"]) == (3, 3)
    assert status["health"] == {"status": "healthy", "capacity": 1.0, "alerts": []}
    assert len(status["worker_list"]) == 3

    page = shell.run("status").splitlines()
    assert page[0].startswith("poolmgr ")
    assert max(map(len, page)) <= 80
    assert len([line for line in page if line.startswith("worker-")]) == 3

    assert shell.run("stop") == f"poolmgr: stopped (pid {pid})\n"
    assert not shell.socket.exists()
    assert not shell.pid_file.exists()
    await_end(pid, timeout_s=0)


def test_without_a_daemon_commands_exit_3_and_say_what_to_do(shell: Shell) -> None:
    for command in (["status"], ["stop"], ["restart"], ["submit", "add", "1"], ["result", NO_TASK]):
        said = shell.run(*command, code=3)
        assert said.startswith("poolmgr: ")
        assert "poolmgr start" in said
    assert json.loads(shell.run("status", "--json", code=3))["error"]["code"] == "not_running"


def test_a_second_daemon_is_refused_and_harms_nobody(pool: Shell) -> None:
    pid = pool.pid_file.read_text().strip()
    said = pool.run("start", "--app", "app", code=1)
    assert said == f"poolmgr: a daemon (pid {pid}) already holds the state directory {pool.directory}/state\n"
    other = str(pool.directory / "other")
    said = pool.run("start", "--app", "app", "--state-dir", other, "--json", code=1)
    assert json.loads(said)["error"]["code"] == "already_running"
    assert pool.run("submit", "add", "1", "2", "--wait") == "3\n"


def test_an_app_that_cannot_be_imported_fails_the_start_with_its_traceback(shell: Shell) -> None:
    (shell.directory / "broken.py").write_text("import no_such_module_anywhere\n")
    said = shell.run("start", "--app", "broken", code=1)
    assert "Traceback (most recent call last)" in said
    assert "No module named 'no_such_module_anywhere'" in said
    assert not shell.pid_file.exists()
    assert not shell.socket.exists()
    shell.start()


def test_after_a_kill_what_it_left_behind_is_in_nobody_s_way(shell: Shell) -> None:
    pid = shell.start()
    os.kill(pid, signal.SIGKILL)
    await_end(pid)
    assert shell.socket.exists()
    assert shell.pid_file.exists()
    shell.run("status", code=3)
    assert shell.start() != pid
    assert shell.ask("status")["epoch"] == 2


def test_queued_durable_tasks_wait_for_the_next_daemon(shell: Shell) -> None:
    shell.start()
    id = shell.run("submit", "add", "20", "22", "--delay", "1").strip()
    shell.run("stop")
    shell.start()
    assert shell.run("result", id, "--timeout", "30") == "42\n"


def test_restart_keeps_flags_directory_and_environment(shell: Shell) -> None:
    pid = shell.start()
    elsewhere = {**shell.environ, "POOLMGR_STATE_DIR": ""}
    done = subprocess.run(
        [POOLMGR, "restart", "--workers", "2", "--json"], cwd="/", env=elsewhere, capture_output=True, check=True
    )
    started = json.loads(done.stdout)
    assert started["pid"] != pid
    assert (started["epoch"], started["workers"], started["socket"]) == (2, 2, str(shell.socket))
    assert shell.run("submit", "where", "--wait") == f"{shell.directory}\n"


def test_restart_with_wrong_settings_stops_nothing(shell: Shell) -> None:
    pid = shell.start()
    (shell.directory / "wrong.toml").write_text("poolsize = 3\n")
    assert "did you mean 'pool_size'" in shell.run("restart", "--config", "wrong.toml", code=2)
    assert shell.ask("status")["pid"] == pid


def test_restart_with_an_app_that_cannot_be_imported_stops_nothing(shell: Shell) -> None:
    pid = shell.start()
    with (shell.directory / "app.py").open("a") as app:
        app.write("import no_such_module_anywhere\n")
    said = shell.run("restart", code=1)
    assert "Traceback (most recent call last)" in said
    assert "No module named 'no_such_module_anywhere'" in said
    assert shell.ask("status")["pid"] == pid


@pytest.mark.parametrize("balancer", ["app:NoSuchClass", "no_such_module:Fewest"])
def test_restart_with_a_balancer_that_cannot_be_loaded_stops_nothing(shell: Shell, balancer: str) -> None:
    pid = shell.start()
    (shell.directory / "new.toml").write_text(f'load_balancing = "{balancer}"\n')
    assert f"load_balancing: '{balancer}' cannot be loaded" in shell.run("restart", "--config", "new.toml", code=2)
    assert shell.ask("status")["pid"] == pid


def test_an_interrupted_restart_says_that_there_is_no_daemon_and_how_to_start_it(shell: Shell) -> None:
    pid = shell.start()
    os.mkfifo(shell.directory / "fifo")
    shell.run("submit", "read", "fifo")
    command = [str(POOLMGR), "restart"]
    with subprocess.Popen(
        command, env=shell.environ, cwd=shell.directory, stderr=subprocess.PIPE, text=True
    ) as restart:
        assert restart.stderr is not None
        assert "waiting for the daemon to end" in restart.stderr.readline()
        restart.send_signal(signal.SIGINT)
        said = restart.stderr.read()
    assert f"to start it: cd {shell.directory} && poolmgr start --workers 3 --app app\n" in said
    assert restart.returncode
    end(pid)


def test_restart_runs_what_was_queued(shell: Shell) -> None:
    shell.start()
    id = shell.run("submit", "add", "20", "22", "--delay", "1").strip()
    shell.run("restart")
    assert shell.run("result", id, "--timeout", "30") == "42\n"


def test_reload_brings_new_code_and_refuses_what_is_broken(shell: Shell) -> None:
    shell.start()
    app = shell.directory / "app.py"
    before = app.read_text()
    app.write_text(f"{before}\n\n@task\ndef brand_new() -> int:\n    return 7\n")
    told = shell.run("reload")
    assert "3 workers, generation 2 of the code" in told
    assert "new tasks: brand_new" in told
    assert shell.run("submit", "brand_new", "--wait") == "7\n"
    app.write_text(f"{before}\n\nimport no_such_module_anywhere\n")
    refused = shell.run("reload", code=1)
    assert "poolmgr: the old code goes on, since" in refused
    assert "No module named 'no_such_module_anywhere'" in refused
    assert shell.run("submit", "brand_new", "--wait") == "7\n"
    assert ", generation 2, up" in shell.run("status")


def test_in_the_foreground_systemd_is_told_and_sigterm_drains(shell: Shell) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(shell.directory / "notify"))
        systemd.settimeout(30)
        environ = {**shell.environ, "NOTIFY_SOCKET": str(shell.directory / "notify")}
        line = [str(POOLMGR), "start", "--foreground", "--app", "app", "--workers", "3"]
        with subprocess.Popen(line, cwd=shell.directory, env=environ, stderr=subprocess.PIPE) as process:
            try:
                assert b"READY=1" in systemd.recv(1000).split(b"\n")
                assert shell.ask("status")["pid"] == process.pid
                assert "runs in the foreground" in shell.run("restart", code=1)
                process.terminate()
                assert b"STOPPING=1" in systemd.recv(1000).split(b"\n")
                _, log = process.communicate(timeout=30)
            finally:
                process.kill()
    assert process.returncode == 0
    assert b"3 workers ready" in log
    assert not shell.socket.exists()
    assert not shell.pid_file.exists()


def test_stop_waits_for_running_tasks_and_stop_now_does_not(shell: Shell) -> None:
    shell.start()
    fifo = shell.directory / "fifo"
    os.mkfifo(fifo)
    id = shell.run("submit", "read", str(fifo)).strip()
    writer = os.open(fifo, os.O_WRONLY)  # returns once the task has opened it, too: it runs
    try:
        assert "still runs after 0.2 s" in shell.run("stop", "--timeout", "0.2", code=1)
        assert shell.run("stop", "--now").startswith("poolmgr: stopped")
    finally:
        os.close(writer)
    shell.start()  # a durable task that was cut short runs again
    with open(fifo, "w") as again:
        again.write("done")
    assert shell.run("result", id, "--timeout", "30") == "done\n"


def test_wrong_settings_are_told_before_anything_is_started(shell: Shell) -> None:
    (shell.directory / "p.toml").write_text("pool_sise = 3\n")
    said = shell.run("start", "--config", "p.toml", code=2)
    assert said == "poolmgr: p.toml: unknown setting 'pool_sise'; did you mean 'pool_size'?\n"
    assert shell.run("config", "check", "--config", "p.toml", code=2) == said
    (shell.directory / "p.toml").write_text("pool_size = 3\n")
    assert shell.run("config", "check", "--config", "p.toml") == "the settings are in order\n"
    assert "pool_size = 3\n" in shell.run("config", "show", "--config", "p.toml")
    assert not shell.pid_file.exists()


# ------------------------------------------------------------------------------------------------ tasks


def test_a_task_goes_in_and_its_result_comes_out(pool: Shell) -> None:
    assert pool.run("submit", "add", "1", "--kwargs", '{"b": 2}', "--wait") == "3\n"
    assert pool.run("submit", "add", "con", "cat", "--wait") == "concat\n"
    id = pool.run("submit", "add", "[1]", "[2]").strip()
    assert pool.ask("result", id, "--timeout", "30") == {"id": id, "result": [1, 2]}
    task = pool.ask("task", id)
    assert (task["id"], task["name"], task["state"], task["durable"]) == (id, "add", "completed", True)
    assert id in [each["id"] for each in pool.ask("tasks", "--state", "completed", "--name", "add")]


def test_a_stream_is_printed_as_it_comes_and_again_from_any_chunk(pool: Shell) -> None:
    assert pool.run("submit", "count", "4", "--stream").splitlines() == ["[0]", "line 1", "[2]", "line 3", "end"]
    lines = [json.loads(line) for line in pool.run("submit", "count", "2", "--stream", "--json").splitlines()]
    id = lines[2]["id"]
    assert lines == [
        {"seq": 0, "chunk": [0]},
        {"seq": 1, "chunk": "line 1"},
        {"id": id, "state": "completed", "result": "end"},
    ]
    assert pool.run("chunks", id) == "[0]\nline 1\n"
    assert pool.run("chunks", id, "--offset", "1") == "line 1\n"
    assert pool.run("chunks", id, "--follow", "--offset", "2") == ""
    assert json.loads(pool.run("chunks", id, "--offset", "1", "--json")) == {"seq": 1, "chunk": "line 1"}
    assert pool.ask("task", id)["chunks"] == 2
    assert "stream     2 chunks\n" in pool.run("task", id)
    assert "no end" in pool.run("submit", "count", "2", "badly", "--stream", code=1)
    assert pool.ask("dlq", "purge", "--all") == {"purged": 1}
    pool.run("breakers", "reset", "count")
    assert pool.run("submit", "add", "1", "2", "--stream") == "3\n"
    assert pool.run("chunks", NO_TASK, code=1).startswith("poolmgr: no task")


def test_a_dead_letter_is_shown_requeued_and_purged(pool: Shell) -> None:
    said = pool.run("submit", "fail", "no luck", "--wait", code=1)
    assert said.startswith("poolmgr: ValueError: no luck\n")
    [letter] = pool.ask("dlq", "list")
    assert (letter["name"], letter["state"], letter["cause"]) == ("fail", "dead", "task_failed")
    assert "ValueError: no luck" in pool.run("dlq", "show", letter["id"])
    made = pool.ask("dlq", "requeue", letter["id"])["requeued"][letter["id"]]
    assert "no luck" in pool.run("result", made, "--timeout", "30", code=1)
    assert pool.ask("task", made)["origin"] == letter["id"]
    assert pool.ask("dlq", "purge", "--all") == {"purged": 2}
    assert pool.ask("dlq", "list") == []


def test_wrong_requests_have_a_code(pool: Shell) -> None:
    for line, code, exit_code in (
        (["submit", "no_such_task"], "unknown_task", 1),
        (["submit", "add", "1", "--priority", "101"], "bad_option", 2),
        (["submit", "add", "--wait"], "bad_arguments", 1),
        (["task", NO_TASK], "not_found", 1),
        (["worker", "stop", "worker-99"], "not_found", 1),
    ):
        error = json.loads(pool.run(*line, "--json", code=exit_code))["error"]
        assert error["code"] == code
        assert error["message"]
    assert pool.ask("dlq", "purge", "--all") == {"purged": 1}


def test_only_what_runs_can_be_preempted(pool: Shell) -> None:
    id = pool.ask("submit", "add", "1", "2", "--wait")["id"]
    assert pool.run("preempt", id, code=1) == ""


def test_a_waiting_task_can_be_cancelled_and_all_can_be_cleared(pool: Shell) -> None:
    pool.run("pause", "add")
    ids = [pool.run("submit", "add", "1").strip() for _ in range(3)]
    assert pool.ask("status")["queue"]["paused"] == ["add"]
    assert pool.run("cancel", ids[0]) == "cancelled\n"
    assert pool.ask("clear") == {"cancelled": 2}
    assert {pool.ask("task", id)["state"] for id in ids} == {"cancelled"}
    pool.run("resume", "add")
    assert pool.run("submit", "add", "1", "--wait") == "1\n"


def test_a_schedule_is_added_listed_held_back_and_removed(pool: Shell) -> None:
    assert pool.run("schedule", "list") == "no schedules\n"
    line = ["schedule", "add", "noon", "add", "1", "--kwargs", '{"b": 2}', "--priority", "4"]
    made = pool.ask(*line, "--cron", "0 12 * * *", "--timezone", "Europe/Berlin")
    assert (made["id"], made["cron"], made["missed"], made["trouble"]) == ("noon", "0 12 * * *", "once", "")
    assert pool.ask("schedule", "list") == [made]
    assert pool.ask("schedule", "next", "noon", "--count", "3")["upcoming"][0] == made["upcoming"][0]
    assert len(pool.run("schedule", "next", "noon").splitlines()) == 5
    assert pool.run("schedule", "pause", "noon") == "noon: paused\n"
    head, row = pool.run("schedule", "list").splitlines()
    assert head.split() == ["id", "task", "when", "last", "next"]
    assert row.split() == ["noon", "add", "0", "12", "*", "*", "*", "Europe/Berlin", "-", "paused"]
    assert pool.ask("schedule", "resume", "noon") == made
    assert pool.run("schedule", "remove", "noon") == "removed\n"
    for wrong, code, exit_code in (
        (["remove", "noon"], "not_found", 1),
        (["next", "noon"], "not_found", 1),
        (["add", "noon", "add", "--cron", "noon"], "bad_option", 2),
        (["add", "noon", "add"], "bad_option", 2),
    ):
        assert json.loads(pool.run("schedule", *wrong, "--json", code=exit_code))["error"]["code"] == code


def test_a_submit_to_a_full_queue_is_refused_or_waits_for_room(shell: Shell) -> None:
    shell.environ["POOLMGR_MAX_QUEUE_DEPTH"] = "1"
    shell.start()
    shell.run("pause", "add")
    shell.run("submit", "add", "1")
    assert "max_queue_depth" in shell.run("submit", "add", "2", code=1)
    assert "max_queue_depth" in shell.run("submit", "add", "2", "--block", "0.1", code=1)
    line = [str(POOLMGR), "submit", "add", "2", "--block", "--wait"]
    with subprocess.Popen(line, env=shell.environ, stdout=subprocess.PIPE, text=True) as waits:
        assert waits.stdout is not None
        while not shell.ask("status")["queue"]["waiting_for_room"]:
            assert waits.poll() is None
        shell.run("resume", "add")
        assert waits.stdout.read() == "2\n"
    assert waits.returncode == 0


# ------------------------------------------------------------------------------------------------ the pool


def test_the_pool_grows_and_shrinks(shell: Shell) -> None:
    shell.start()
    assert shell.ask("scale", "5") == {"size": 5}
    assert shell.ask("scale", "-1") == {"size": 4}
    assert shell.ask("scale", "+2") == {"size": 6}
    id = shell.ask("worker", "start")["id"]
    assert id in [worker["id"] for worker in shell.ask("workers")]
    shell.run("worker", "stop", id)
    shell.run("gc")


def test_health_and_metrics(pool: Shell) -> None:
    health = pool.ask("health")
    assert (health["status"], health["capacity"], health["alerts"]) == ("healthy", 1.0, [])
    assert health["workers"] == {"total": 3, "healthy": 3, "unhealthy": 0}
    metrics = pool.ask("metrics")
    assert "worker_list" not in metrics
    assert set(metrics["performance"]) == {"throughput_per_s", "run_s", "wait_s", "worker_reuse_rate"}
    assert pool.run("health").startswith("health   healthy, capacity 100%, 3 of 3 workers healthy")
    assert pool.run("metrics").startswith("poolmgr ")


def test_workers_are_listed_with_all_that_operators_ask(pool: Shell) -> None:
    for worker in pool.ask("workers"):
        assert {
            "id", "pid", "state", "healthy", "tasks_executed", "current_task", "uptime_s", "last_activity_s",
            "cpu_percent", "memory_mb", "restarts",
        } <= set(worker)  # fmt: skip
        assert (worker["state"], worker["healthy"]) == ("ready", True)
        os.kill(worker["pid"], 0)


def test_events_are_printed_as_they_happen(pool: Shell) -> None:
    line = [str(POOLMGR), "events", "--json"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores SIGINT ...
    try:
        process = subprocess.Popen(line, env=pool.environ, stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:  # ... this must not
        try:
            assert process.stdout is not None
            # The subscription is in force when the first event arrives; until then, tasks are submitted.
            while not select.select([process.stdout], [], [], 0)[0]:
                pool.run("submit", "add", "1", "--wait")
            event = json.loads(process.stdout.readline())
            assert event["name"].startswith("task-")
            assert event["fields"]["task_id"]
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0


def test_circuit_breakers_are_shown_and_reset(pool: Shell) -> None:
    pool.run("breakers", "reset", "fail")  # other tests let it fail, too
    assert pool.run("breakers") == "all breakers are closed\n"
    assert pool.ask("breakers") == []
    for _ in range(3):
        pool.run("submit", "fail", "no luck", "--wait", code=1)
    [found] = pool.ask("breakers")
    assert (found["name"], found["state"], found["failures"]) == ("fail", "open", 3)
    row = pool.run("breakers").splitlines()[1]
    assert row.split()[:3] == ["fail", "open", "3"]
    assert row.endswith("ValueError: no luck")
    assert "fail open, 3 failures" in pool.run("status")
    assert pool.run("breakers", "reset", "fail") == "the breaker of fail is closed\n"
    assert pool.ask("breakers", "reset", "fail") == {"name": "fail", "reset": True}
    assert pool.ask("breakers") == []
    assert pool.ask("dlq", "purge", "--all") == {"purged": 3}

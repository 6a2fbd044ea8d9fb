"""What is kept of an attempt that ended badly, for whoever wants to know why."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolmgr import Client, TaskFailed, TaskFuture
from poolmgr.cli.root import run
from poolmgr.errors import TaskTimeout, WorkerDied
from poolmgr.post_mortem import OUTPUT_LIMIT, PostMortem
from scripts.proofs.pool import Pool, until
from tests.integration.conftest import Gate

Start = Callable[..., Pool]


def remains(client: Client, future: TaskFuture[Any]) -> PostMortem:
    """Of the only attempt of a task that fails."""
    with pytest.raises(TaskFailed):
        future.result(timeout=10)
    [attempt] = client.task(future.id).attempts
    assert attempt.post_mortem is not None
    return attempt.post_mortem


def test_a_crash_leaves_its_stacks_and_last_words(lone: Client) -> None:
    before = [lone.submit("add", number) for number in range(7)]
    for each in before:
        each.result(timeout=10)
    found = remains(lone, lone.using(max_retries=0).submit("crash"))
    assert (found.signal, found.signal_name, found.exit_code) == (signal.SIGSEGV, "SIGSEGV", None)
    assert found.stacks.startswith("Fatal Python error: Segmentation fault")
    assert " in crash\n" in found.stacks
    assert found.output == "it comes\n"
    assert 1 < found.peak_memory_mb < 1000
    assert found.ran_before == tuple((each.id, "add") for each in before[-5:])
    lone.purge()


def test_an_exit_leaves_its_code(client: Client) -> None:
    found = remains(client, client.using(max_retries=0).submit("exit_with_words", "so long", 7))
    assert (found.exit_code, found.signal, found.signal_name, found.stacks) == (7, None, "", "")
    assert found.output == "so long\n"
    client.purge()


@pytest.mark.parametrize("handler", ["spin", "sleep_with_the_gil"])
def test_one_that_is_killed_says_where_it_was(client: Client, handler: str) -> None:
    future = client.using(timeout_s=0.1, max_retries=0).submit(handler)
    found = remains(client, future)
    assert f" in {handler}\n" in found.stacks
    assert found.signal is not None
    client.purge()


def test_one_that_was_cancelled_says_where_it_was(client: Client, gate: Gate) -> None:
    future = client.submit("hold", gate.path)
    gate.begun()
    assert client.cancel(future.id, kill=True)
    assert " in hold\n" in remains(client, future).stacks


def test_a_handler_for_sigterm_may_tidy_up(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "note"
    future = client.using(timeout_s=0.3, max_retries=0).submit("wait_for_term", str(path))
    with pytest.raises(TaskTimeout):
        future.result(timeout=10)
    assert path.read_text() == "tidied up"
    [attempt] = client.task(future.id).attempts
    assert attempt.post_mortem is not None
    assert attempt.post_mortem.exit_code == 3
    client.purge()


def test_an_exception_leaves_what_was_printed(client: Client) -> None:
    found = remains(client, client.using(max_retries=0).submit("print_and_raise", "first this"))
    assert found == PostMortem(output="first this\n")
    quiet = client.using(max_retries=0).submit("fail", "no")
    with pytest.raises(TaskFailed):
        quiet.result(timeout=10)
    assert client.task(quiet.id).attempts[0].post_mortem is None
    client.purge()


def test_only_the_attempts_own_output_is_kept_and_only_its_end(lone: Client) -> None:
    with pytest.raises(TaskFailed):
        lone.using(max_retries=0).run("print_and_raise", "somebody else's words")
    found = remains(lone, lone.using(max_retries=0).submit("print_and_raise", "é" * 40_000))
    assert len(found.output.encode()) == OUTPUT_LIMIT - 1  # which cuts a character in two
    assert found.output.endswith("é\n")
    assert "somebody" not in found.output
    lone.purge()


def test_it_is_kept_on_disk(start_pool: Start) -> None:
    pool = start_pool(workers=1)
    with pool.client() as client:
        future = client.using(max_retries=0, durable=True).submit("exit_with_words", "kept", 9)
        found = remains(client, future)
    pool.stop()
    pool.start()
    with pool.client() as client:
        [attempt] = client.task(future.id).attempts
        assert attempt.post_mortem == found
        assert found.output == "kept\n"


def test_the_command_line_shows_it(client: Client, shared_pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    future = client.using(max_retries=0).submit("crash")
    with pytest.raises(WorkerDied):
        future.result(timeout=10)
    assert run(["--socket", str(shared_pool.socket), "task", future.id]) == 0
    page = capsys.readouterr().out
    for each in ("process: signal 11 (SIGSEGV)", "peak memory", "stacks:", " in crash", "output:\n    it comes"):
        assert each in page
    assert run(["--socket", str(shared_pool.socket), "task", future.id, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["attempts"][0]["post_mortem"]["signal_name"] == "SIGSEGV"
    client.purge()


def test_a_worker_that_dies_idle_leaves_it_in_the_log(client: Client, shared_pool: Pool) -> None:
    pid = client.run("whoami")
    size = len(shared_pool.log.read_text())
    os.kill(pid, signal.SIGSEGV)
    until(lambda: "stacks| Fatal Python error" in shared_pool.log.read_text()[size:], "its stacks are logged")

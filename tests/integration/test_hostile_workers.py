"""What a task can do to the pipes and the page of its worker costs its worker alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolmgr import Client
from poolmgr.errors import TaskFailed, WorkerDied
from scripts.proofs.pool import until


def test_a_retry_of_nonsense_fails_its_task_alone(client: Client) -> None:
    with pytest.raises(TaskFailed, match="takes seconds"):
        client.using(max_retries=0).run("retry_nonsense")
    assert client.run("add", 1, 2) == 3
    client.purge()


def test_a_page_cannot_be_shrunk(client: Client) -> None:
    assert client.run("shrink_the_page") == "refused"
    assert client.run("add", 1, 2) == 3


def test_a_chatty_orphan_does_not_hold_its_workers_end_up(client: Client) -> None:
    client.using(max_retries=0, ephemeral=True).run("leave_a_chatterer")
    assert client.run("add", 1, 2) == 3


def test_a_worker_that_was_changed_for_good_is_replaced_and_the_result_is_kept(lone: Client) -> None:
    before = lone.worker("worker-0")
    child = lone.run("leave_a_child", True)
    until(lambda: lone.worker("worker-0").incarnation == before.incarnation + 1, "it is replaced")
    until(lambda: not Path(f"/proc/{child}").exists(), "what it has left is gone")
    assert lone.run("add", 1, 2) == 3


def test_what_waited_behind_such_a_task_runs_once_elsewhere(lone: Client) -> None:
    calls = lone.using(durable=False, max_retries=0)
    futures = [calls.submit("leave_a_thread" if number % 10 == 0 else "attempt") for number in range(100)]
    assert {future.result(timeout=20) for future in futures} == {1}


def test_a_process_that_has_become_another_program_is_killed(client: Client) -> None:
    with pytest.raises(WorkerDied, match="what the protocol does not know"):
        client.using(max_retries=0).run("become_another_program")
    assert client.run("add", 1, 2) == 3
    client.purge()


def test_a_task_that_has_itself_recalled_is_charged_and_not_run_for_ever(client: Client) -> None:
    """It leaves the head of a RECALLED in the pipe, of which its own result then becomes the list of fences."""
    with pytest.raises(WorkerDied, match="what the protocol does not know"):
        client.using(max_retries=0).run("recall_itself")
    assert client.run("add", 1, 2) == 3
    client.purge()

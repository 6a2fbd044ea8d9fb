"""What a task can do to the pipes and the page of its worker costs its worker alone."""

from __future__ import annotations

import pytest

from poolmgr import Client
from poolmgr.errors import TaskFailed


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

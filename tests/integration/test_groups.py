"""Groups of a running pool: their workers, what these are capable of, and scaling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolmgr import Client
from poolmgr.errors import BadOption, NotFound
from scripts.proofs.pool import Pool, until

Make = Callable[..., Pool]

GROUPS = """
[[groups]]
name = "gpu"
size = 1
start_method = "spawn"
reserved = true

[[groups]]
name = "brief"
size = 1
capabilities = ["small"]
max_tasks_per_worker = 1
"""


@pytest.fixture
def pool(make_pool: Make, tmp_path: Path) -> Pool:
    file = tmp_path / "poolmgr.toml"
    file.write_text(GROUPS)
    return make_pool(app="declaring", workers=3, min_workers=1, config=file).start()


@pytest.fixture
def client(pool: Pool) -> Iterator[Client]:
    with pool.client() as client:
        yield client


def workers_of(client: Client, group: str) -> list[str]:
    return [each.id for each in client.workers() if each.group == group]


def test_each_worker_knows_its_group_and_says_what_it_can(client: Client) -> None:
    assert {each.id: (each.group, each.capabilities) for each in client.workers()} == {
        "worker-0": ("default", ("default",)),
        "worker-1": ("gpu", ("cuda", "gpu")),
        "worker-2": ("brief", ("brief", "small")),
    }
    assert {client.run("embed")[0] for _ in range(5)} == {"gpu"}
    assert {client.using(requires={"small"}).run("whereami")[0] for _ in range(3)} == {"brief"}


def test_each_has_its_own_limits_and_way_of_starting(pool: Pool, client: Client) -> None:
    brief = {client.using(requires={"brief"}).run("whereami")[1] for _ in range(3)}
    default = {client.using(requires={"default"}).run("whereami")[1] for _ in range(3)}
    gpu = {client.run("embed")[1] for _ in range(3)}
    assert (len(brief), len(default), len(gpu)) == (3, 1, 1)
    assert "poolmgr.worker.spawned" in Path(f"/proc/{gpu.pop()}/cmdline").read_text()
    assert "poolmgr.worker.template" in Path(f"/proc/{default.pop()}/cmdline").read_text()


def test_groups_are_scaled_each_on_its_own(client: Client) -> None:
    assert client.scale(2, "gpu") == 2
    assert client.scale("+1", group="brief") == 2
    assert client.start_worker("gpu") == "worker-5"
    until(lambda: all(each.state == "ready" for each in client.workers()))
    assert workers_of(client, "gpu") == ["worker-1", "worker-3", "worker-5"]
    assert client.scale(0, "gpu") == 0
    until(lambda: workers_of(client, "gpu") == [])
    assert client.scale(5) == 5
    assert len(workers_of(client, "default")) == 3
    with pytest.raises(BadOption, match="groups are larger"):
        client.scale(1)
    with pytest.raises(NotFound, match="no group 'cpu'; there are: default, gpu, brief"):
        client.scale(1, "cpu")


def test_what_no_worker_can_run_waits_and_is_told_of(client: Client) -> None:
    late = client.submit("embed")
    future = client.submit("impossible")
    assert late.result(timeout=10)[0] == "gpu"
    assert client.health()["alerts"] == ["1 tasks wait in vain: no worker has tpu (impossible)"]
    assert future.cancel()
    assert client.health()["alerts"] == []


def test_what_waits_for_a_group_runs_when_that_grows(client: Client) -> None:
    client.scale(0, "gpu")
    until(lambda: workers_of(client, "gpu") == [])
    future = client.submit("embed")
    until(lambda: client.health()["alerts"])
    client.scale(1, "gpu")
    assert future.result(timeout=10)[0] == "gpu"


def test_status_and_config_tell_of_groups(client: Client) -> None:
    assert client.status()["groups"]["gpu"] == {
        "size": 1, "of_use": 1, "capabilities": ["cuda", "gpu"], "reserved": True,
    }  # fmt: skip
    assert [group["name"] for group in client.config()["groups"]] == ["gpu", "brief"]

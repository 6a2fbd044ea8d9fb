"""Worker groups: sizes, capabilities and limits of their own, and tasks that only some of the workers may run."""

from __future__ import annotations

from typing import Any

import pytest

from poolmgr.config import Group
from poolmgr.core import views
from poolmgr.core.effects import Spawn
from poolmgr.errors import BadOption, NotFound
from tests.unit.driver import Pool


def gpu(**settings: Any) -> Group:
    return Group(**{"name": "gpu", "size": 1, **settings})


def alerts(pool: Pool) -> list[str]:
    found: list[str] = views.health(pool.scheduler.state, pool.now)["alerts"]
    return found


def workers_of(pool: Pool, group: str) -> list[str]:
    return [slot.id for slot in pool.scheduler.state.slots.values() if slot.group.name == group and not slot.leaving]


def test_groups_are_part_of_the_pool_and_the_rest_comes_first() -> None:
    pool = Pool(workers=4, groups=(gpu(), Group(name="big", size=2)))
    assert [spawn.group for spawn in pool.all(Spawn)] == ["default", "gpu", "big", "big"]
    assert {worker: pool.slot(worker).group.name for worker in pool.scheduler.state.slots} == {
        "worker-0": "default", "worker-1": "gpu", "worker-2": "big", "worker-3": "big",
    }  # fmt: skip


def test_a_workers_capabilities_are_its_groups_name_what_that_offers_and_what_it_says_itself() -> None:
    pool = Pool(workers=2, groups=(gpu(capabilities=("cuda",)),), capabilities={"worker-1": {"a100"}})
    assert pool.slot("worker-0").capabilities == {"default"}
    assert pool.slot("worker-1").capabilities == {"gpu", "cuda", "a100"}
    pool.done(pool.submit(requires=frozenset({"gpu", "a100"})))
    assert pool.slot("worker-1").executed == 1


def test_a_group_that_is_not_reserved_helps_with_everything() -> None:
    pool = Pool(workers=2, groups=(gpu(),))
    assert {pool.worker_of(task) for task in pool.submit_many(2)} == {"worker-0", "worker-1"}


@pytest.mark.parametrize("group", [gpu(reserved=True), gpu(worker_command=("node", "worker.js"))], ids=str)
def test_a_reserved_group_takes_only_what_requires_something_of_it(group: Group) -> None:
    pool = Pool(workers=2, groups=(group,))
    plain = pool.submit_many(2)
    assert [pool.state(task) for task in plain] == ["running", "queued"]
    assert pool.worker_of(pool.submit(requires=frozenset({"gpu"}))) == "worker-1"


def test_nothing_is_prefetched_to_a_worker_that_is_not_fit_for_it() -> None:
    pool = Pool(workers=2, groups=(gpu(reserved=True),))
    pool.teach("fast", 0.0001)
    pool.submit_many(12, "fast")
    assert not pool.slot("worker-1").in_flight
    assert len(pool.slot("worker-0").in_flight) > 1


def test_each_group_has_its_own_limits() -> None:
    limits = {"max_tasks_per_worker": 2, "max_worker_age_s": 50.0}
    pool = Pool(workers=2, groups=(gpu(**limits),))
    for _ in range(2):
        pool.done(pool.submit(requires=frozenset({"gpu"})))
        pool.done(pool.submit(requires=frozenset({"default"})))
    assert pool.retired() == ["worker-1"]
    pool.die("worker-1", "exit code 0")
    pool.advance(60)
    assert pool.retired() == ["worker-1", "worker-1"]


def test_an_ephemeral_task_wears_out_only_a_worker_that_is_fit_for_it() -> None:
    pool = Pool(workers=3, groups=(gpu(reserved=True),))
    for requires in ({"gpu"}, {"default"}, {"default"}):
        pool.done(pool.submit(requires=frozenset(requires)))
    for worker in ("worker-0", "worker-1", "worker-2"):
        pool.slot(worker).executed = 1
    task = pool.submit(ephemeral=True, requires=frozenset({"gpu"}))
    assert pool.retired() == ["worker-2"]
    pool.die("worker-2", "exit code 0")
    assert pool.worker_of(task) == "worker-2"


def test_a_dead_worker_is_replaced_by_one_of_its_group() -> None:
    pool = Pool(workers=2, groups=(gpu(),), restart_cooldown_s=1.0)
    pool.die("worker-1")
    pool.advance(1.0)
    assert pool.all(Spawn)[-1] == Spawn("worker-1", 2, 1, "gpu")


def test_a_group_is_scaled_by_its_name_and_the_whole_pool_by_its_rest() -> None:
    pool = Pool(workers=3, groups=(gpu(),))
    supervisor = pool.scheduler.supervisor
    supervisor.scale(3, pool.now, "gpu")
    pool.flush()
    assert (supervisor.size(), supervisor.size("gpu"), supervisor.size("default")) == (5, 3, 2)
    supervisor.scale(4, pool.now)
    pool.flush()
    assert (workers_of(pool, "gpu"), workers_of(pool, "default")) == (
        ["worker-2", "worker-3", "worker-4"],
        ["worker-0"],
    )
    assert pool.scheduler.start_worker(pool.now, "gpu") == "worker-5"
    supervisor.scale(0, pool.now, "gpu")
    pool.flush()
    assert workers_of(pool, "gpu") == []
    assert [event["group"] for event in pool.events("pool-scaled-down")] == ["default", "gpu"]


def test_a_pool_is_not_scaled_below_its_groups_nor_a_group_that_is_not_there() -> None:
    pool = Pool(workers=3, groups=(gpu(size=2),))
    with pytest.raises(BadOption, match="groups are larger"):
        pool.scheduler.supervisor.scale(1, pool.now)
    with pytest.raises(NotFound, match="no group 'gpus'; there are: default, gpu"):
        pool.scheduler.supervisor.scale(1, pool.now, "gpus")
    with pytest.raises(BadOption, match="a pool of 51 workers"):
        pool.scheduler.supervisor.scale(50, pool.now, "gpu")
    assert pool.scheduler.supervisor.size() == 3


def test_tasks_that_no_worker_can_ever_run_are_an_alert_and_go_when_one_can() -> None:
    pool = Pool(workers=2, groups=(gpu(size=0),))
    tasks = [pool.submit("embed", requires=frozenset({"gpu"})), pool.submit("draw", requires=frozenset({"gpu"}))]
    assert alerts(pool) == ["2 tasks wait in vain: no worker has gpu (draw, embed)"]
    assert views.health(pool.scheduler.state, pool.now)["status"] == "degraded"
    pool.scheduler.supervisor.scale(1, pool.now, "gpu")
    pool.flush()
    assert pool.state(tasks[0]) == "running"
    assert alerts(pool) == []


def test_a_busy_or_starting_worker_that_is_fit_is_no_alert() -> None:
    pool = Pool(workers=2, groups=(gpu(),), capabilities={"worker-1": {"cuda"}})
    pool.submit_many(2, requires=frozenset({"cuda"}))
    assert alerts(pool) == []
    pool.comes_up = False
    pool.die("worker-1")
    assert pool.slot("worker-1").state == "starting"
    assert alerts(pool) == []


def test_tasks_that_require_nothing_wait_in_vain_where_all_is_reserved() -> None:
    pool = Pool(workers=1, groups=(gpu(reserved=True),))
    pool.submit()
    assert alerts(pool) == ["1 tasks wait in vain: no worker takes tasks that require nothing (work)"]


def test_the_metrics_tell_of_each_group() -> None:
    pool = Pool(workers=2, groups=(gpu(capabilities=("cuda",), reserved=True),), capabilities={"worker-1": {"a100"}})
    assert views.metrics(pool.scheduler.state, pool.now)["groups"] == {
        "default": {"size": 1, "of_use": 1, "capabilities": ["default"], "reserved": False},
        "gpu": {"size": 1, "of_use": 1, "capabilities": ["a100", "cuda", "gpu"], "reserved": True},
    }

"""[[groups]]: what they take, what they inherit, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolmgr.cli.settings import as_toml
from poolmgr.config import Group, Settings
from poolmgr.errors import ConfigError


def load(tmp_path: Path, toml: str) -> Settings:
    file = tmp_path / "poolmgr.toml"
    file.write_text(toml)
    return Settings.load(file=str(file), environ={})


def group(**settings: object) -> str:
    return "[[groups]]\n" + as_toml({"name": "gpu", "size": 2, **settings}) + "\n"


def test_what_a_group_does_not_say_is_as_for_the_pool(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        'max_tasks_per_worker = 7\nstart_method = "spawn"\n' + group(capabilities=["cuda"], idle_timeout_s=9),
    )
    assert settings.groups == (
        Group(
            name="gpu", size=2, capabilities=("cuda",), start_method="spawn", max_tasks_per_worker=7, idle_timeout_s=9.0
        ),
    )


def test_the_rest_of_the_pool_is_the_first_group(tmp_path: Path) -> None:
    rest, gpu = load(tmp_path, "pool_size = 5\nmax_worker_age_s = 3\n" + group()).worker_groups()
    assert (rest.name, rest.size, rest.max_worker_age_s) == ("default", 3, 3.0)
    assert (gpu.name, gpu.size, gpu.max_worker_age_s) == ("gpu", 2, 3.0)
    assert gpu.offers == {"gpu"}


def test_a_pool_without_groups_is_all_rest() -> None:
    assert Settings().worker_groups() == (Group(size=20),)


def test_a_group_may_go_back_to_workers_of_the_app(tmp_path: Path) -> None:
    toml = 'worker_command = ["./serve"]\n' + group(worker_command=[]) + group(name="more")
    assert [each.worker_command for each in load(tmp_path, toml).worker_groups()] == [("./serve",), (), ("./serve",)]


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (group(sise=1), "group 'gpu': unknown setting 'sise'; did you mean 'size'?"),
        (group(size=-1), "group 'gpu': size takes a whole number, at least 0, got -1"),
        (group(name="g p u"), "group 'g p u': name takes a name, such as 'gpu', got 'g p u'"),
        (group(capabilities="cuda"), "capabilities takes a list of names, such as ['gpu'], got 'cuda'"),
        (group(worker_command="node x.js"), "worker_command takes a list of an executable and its arguments"),
        (group(worker_command=[""]), "worker_command takes a list of an executable and its arguments"),
        ('[[groups]]\nname = "a"', "group 'a': size is missing; each of [[groups]] has a name and a size"),
        ("[[groups]]\nsize = 1", "group 'without a name': name is missing"),
        ("[groups]\nsize = 1", "groups takes [[groups]] in the settings file"),
        (group(name="default"), "a group cannot be named 'default': so is called what belongs to no other"),
        (group() + group(), "two groups are named 'gpu'"),
        (group(size=30), "the groups have 30 workers and pool_size is 20: it counts them all"),
        (group(worker_tasks=["draw"]), "group 'gpu' has worker_tasks and no worker_command"),
        (
            group(worker_command=["x"], worker_tasks=["draw"])
            + group(name="more", worker_command=["y"], worker_tasks=["draw"]),
            "the task 'draw' is in the worker_tasks of 'gpu' and of 'more'",
        ),
        ('worker_tasks = ["draw"]', "group 'default' has worker_tasks and no worker_command"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, toml)
    assert message in str(raised.value)


def test_groups_are_for_the_settings_file() -> None:
    with pytest.raises(ConfigError, match=r"POOLMGR_GROUPS takes \[\[groups\]\] in the settings file"):
        Settings.load(environ={"POOLMGR_GROUPS": "gpu"})


def test_a_command_in_a_variable_is_quoted_as_for_a_shell() -> None:
    settings = Settings.load(environ={"POOLMGR_WORKER_COMMAND": "node 'a worker.js'", "POOLMGR_WORKER_TASKS": "a,b"})
    assert settings.worker_command == ("node", "a worker.js")
    assert settings.worker_tasks == ("a", "b")
    assert settings.worker_groups()[0].is_reserved


def test_what_config_show_prints_is_a_settings_file(tmp_path: Path) -> None:
    from dataclasses import asdict

    settings = load(tmp_path, group(capabilities=["cuda"]) + group(name="node", worker_command=["node", "worker.js"]))
    assert load(tmp_path, as_toml(asdict(settings))) == settings

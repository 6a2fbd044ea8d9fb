"""Settings: defaults, where values come from and win, what is refused and in which words; places of the socket."""

from __future__ import annotations

import socket
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from poolmgr.config import Settings, find_socket, listen_socket, locations, state_dir, task_options
from poolmgr.config.locations import is_system_socket
from poolmgr.config.settings import KINDS
from poolmgr.errors import ConfigError, NotRunning


def load(**flags: Any) -> Settings:
    return Settings.load(environ={}, flags=flags)


def test_defaults_are_those_of_the_design() -> None:
    settings = load()
    assert (settings.pool_size, settings.min_workers, settings.max_workers) == (20, 5, 50)
    assert (settings.mode, settings.app, settings.load_balancing) == ("managed", (), "most-recent")
    assert (settings.worker_memory_limit_mb, settings.task_timeout_s) == (512, 300.0)
    assert (settings.heartbeat_interval_s, settings.zombie_after_s) == (5.0, 30.0)
    assert settings.memory_thresholds == (70, 85, 95)
    assert settings == Settings()


def test_each_default_is_a_value_that_its_kind_takes() -> None:
    for each in fields(Settings):
        value = getattr(Settings(), each.name)
        assert KINDS[each.name].check(value) == value


@pytest.mark.parametrize(
    ("given", "bounds"),
    [
        ({"pool_size": 3}, (3, 50)),
        ({"pool_size": 60}, (5, 60)),
        ({"pool_size": 3, "max_workers": 4}, (3, 4)),
        ({"pool_size": 8, "min_workers": 8, "max_workers": 8}, (8, 8)),
    ],
)
def test_bounds_that_are_not_given_stretch_to_include_the_pool(given: dict[str, Any], bounds: tuple[int, int]) -> None:
    settings = load(**given)
    assert (settings.min_workers, settings.max_workers) == bounds
    assert Settings(**given) == settings


@pytest.mark.parametrize("given", [{"pool_size": 3, "min_workers": 4}, {"pool_size": 60, "max_workers": 50}])
def test_bounds_that_are_given_are_not_stretched(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"pool_size .* is not between min_workers .* and max_workers"):
        load(**given)


def test_zombies_are_not_declared_between_two_heartbeats() -> None:
    with pytest.raises(ConfigError, match="zombie_after_s 5 must be longer than heartbeat_interval_s 5"):
        load(zombie_after_s=5)


def test_the_file_yields_to_the_environment_and_that_to_flags(tmp_path: Path) -> None:
    file = tmp_path / "poolmgr.toml"
    file.write_text('pool_size = 6\nmax_task_retries = 6\npoison_after = 6\napp = ["a", "b.c"]\n')
    settings = Settings.load(
        file=str(file),
        environ={"POOLMGR_MAX_TASK_RETRIES": "7", "POOLMGR_POISON_AFTER": "7", "POOLMGR_RESULT_TTL_S": ""},
        flags={"poison_after": 8},
    )
    assert (settings.pool_size, settings.max_task_retries, settings.poison_after) == (6, 7, 8)
    assert settings.app == ("a", "b.c")
    assert settings.result_ttl_s == 3600.0  # an empty variable is an unset one


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "poolmgr.toml"
    file.write_text("pool_size = 6\n")
    assert Settings.load(environ={"POOLMGR_CONFIG": str(file)}).pool_size == 6


def test_what_the_daemon_sets_in_its_workers_is_no_setting() -> None:
    assert Settings.load(environ={"POOLMGR_WORKER": "worker-3", "POOLMGR_POOL": "x"}) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("POOLMGR_POOL_SIZE", "7", 7),
        ("POOLMGR_TASK_TIMEOUT_S", "1.5", 1.5),
        ("POOLMGR_AUTO_RESTART", "no", False),
        ("POOLMGR_LOG_WORKER_INFO", "True", True),
        ("POOLMGR_APP", "a, b.c,", ("a", "b.c")),
        ("POOLMGR_MEMORY_THRESHOLDS", "50,60,70", (50, 60, 70)),
        ("POOLMGR_LOAD_BALANCING", "myapp.balance:Fewest", "myapp.balance:Fewest"),
        ("POOLMGR_SOCKET", "/run/a.sock", "/run/a.sock"),
    ],
)
def test_variables_are_read_as_their_settings_are(variable: str, text: str, value: Any) -> None:
    settings = Settings.load(environ={variable: text, "HOME": "/"})
    assert getattr(settings, variable.removeprefix("POOLMGR_").lower()) == value


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("pool_size", 0, "a whole number, at least 1"),
        ("pool_size", True, "a whole number, at least 1"),
        ("pool_size", 2.0, "a whole number, at least 1"),
        ("task_timeout_s", -1, "seconds, at least 0"),
        ("task_timeout_s", float("nan"), "seconds, at least 0"),
        ("heartbeat_interval_s", 0, "seconds, above 0"),
        ("auto_restart", 1, "true or false"),
        ("retry_jitter", "some", "'ten-percent' or 'full' or 'none'"),
        ("load_balancing", "fewest", "'most-recent' or 'round-robin' or 'least-loaded' or 'package.module:name'"),
        ("mode", "standalone", "'managed'"),
        ("app", ["a b"], "names of modules, such as 'myapp.tasks'"),
        ("app", "tasks.py", None),
        ("app", "my/tasks", "names of modules, such as 'myapp.tasks'"),
        ("socket", "", "text that is not empty"),
        ("memory_thresholds", [70, 60, 95], "3 whole percentages that ascend"),
        ("memory_thresholds", [70, 95], "3 whole percentages that ascend"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_taken(name: str, value: Any, takes: str | None) -> None:
    if takes is None:  # it looks like a module's name: only the import can tell
        assert getattr(load(**{name: value}), name) == (value,)
        return
    with pytest.raises(ConfigError) as refused:
        load(**{name: value})
    assert str(refused.value) == f"the command line: {name} takes {takes}, got {value!r}"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"flags": {"pool_sise": 3}}, "the command line: unknown setting 'pool_sise'; did you mean 'pool_size'?"),
        (
            {"environ": {"POOLMGR_POOLSIZE": "3"}},
            "the environment: unknown setting 'POOLMGR_POOLSIZE'; did you mean 'POOLMGR_POOL_SIZE'?",
        ),
        (
            {"environ": {"POOLMGR_pool_size": "3"}},
            "the environment: unknown setting 'POOLMGR_pool_size'; did you mean 'POOLMGR_POOL_SIZE'?",
        ),
        (
            {"flags": {"xyzzy": 3}},
            "the command line: unknown setting 'xyzzy'; docs/reference/settings.md lists all settings",
        ),
        ({"environ": {"POOLMGR_POOL_SIZE": "x"}}, "$POOLMGR_POOL_SIZE takes a whole number, at least 1, got 'x'"),
        ({"environ": {"POOLMGR_AUTO_RESTART": "2"}}, "$POOLMGR_AUTO_RESTART takes true or false, got '2'"),
        ({"flags": {"autoscale_wait_s": 0}}, "the command line: autoscale_wait_s takes seconds, above 0, got 0"),
        ({"file": "/nowhere/x.toml"}, "the settings file /nowhere/x.toml cannot be read: No such file or directory"),
    ],
)
def test_what_is_wrong_is_named_with_its_source(sources: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings.load(**{"environ": {}, **sources})
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pool_sise = 3", "unknown setting 'pool_sise'; did you mean 'pool_size'?"),
        ("pool_size = '3'", "pool_size takes a whole number, at least 1, got '3'"),
        ("[pool]\nsize = 3", "unknown setting 'pool'"),
        ("pool_size", "is not TOML: "),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "poolmgr.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        Settings.load(file=str(file), environ={})
    assert str(file) in str(refused.value)
    assert message in str(refused.value)


def test_tasks_inherit_their_options_from_the_settings() -> None:
    options = task_options(load(task_timeout_s=0, max_task_retries=1, retry_backoff_s=2, result_ttl_s=60))
    assert (options.timeout_s, options.max_retries) == (None, 1)
    assert (options.retry_backoff_s, options.max_backoff_s, options.result_ttl_s) == (2.0, 30.0, 60.0)


# ------------------------------------------------------------------------------------------------ places


def test_a_named_socket_is_taken_as_it_is() -> None:
    assert find_socket("/a/b.sock", {"POOLMGR_SOCKET": "/c.sock"}) == "/a/b.sock"
    assert find_socket(None, {"POOLMGR_SOCKET": "/c.sock"}) == "/c.sock"


def test_the_first_socket_that_answers_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "SYSTEM_SOCKET", str(tmp_path / "system.sock"))  # this machine may have a daemon
    runtime, temporary = tmp_path / "run", tmp_path / "tmp"
    environ = {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(temporary)}
    stale = listen_socket(Settings(socket=str(runtime / "poolmgr" / "poolmgr.sock")), environ)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(stale)
    live = temporary / f"poolmgr-{Path(tmp_path).owner() and runtime.stat().st_uid}" / "poolmgr.sock"
    live.parent.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(live))
        listening.listen()
        assert find_socket(None, environ) == str(live)
    with pytest.raises(NotRunning, match=r"no daemon answers on .*; start one \(poolmgr start --app MODULE\)"):
        find_socket(None, environ)


def test_the_directories_are_made_private(tmp_path: Path) -> None:
    settings = Settings(socket=str(tmp_path / "new" / "p.sock"), state_dir=str(tmp_path / "a" / "state"))
    assert listen_socket(settings, {}) == settings.socket
    assert state_dir(settings, {}) == settings.state_dir
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "state").stat().st_mode & 0o777 == 0o700
    assert state_dir(Settings(), {"STATE_DIRECTORY": f"{tmp_path}/b:/other"}) == f"{tmp_path}/b"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"socket": "/tmp/" + "x" * 103}, "the socket's path is too long, 107 bytes are allowed"),
        ({"socket": "/dev/null/p.sock"}, "/dev/null is in the way: it is not a directory"),
        ({"socket": "/proc/nowhere/p.sock"}, "the directory /proc/nowhere cannot be made"),
    ],
)
def test_a_place_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        listen_socket(Settings(**settings), {})


def test_a_socket_group_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no group 'no-such-group'"):
        listen_socket(Settings(socket=str(tmp_path / "d" / "p.sock"), socket_group="no-such-group"), {})


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/run/poolmgr/poolmgr.sock", True),
        ("/run/poolmgr-blue/poolmgr.sock", True),
        ("/run/poolmgr/../poolmgr/poolmgr.sock", True),
        ("/run/poolmgr-blue/other.sock", False),
        ("/run/poolmgrs/poolmgr.sock", False),
        ("/run/user/poolmgr/poolmgr.sock", False),
        ("/tmp/poolmgr/poolmgr.sock", False),
    ],
)
def test_only_root_makes_the_directories_of_services(path: str, is_one: bool) -> None:
    assert is_system_socket(path) is is_one

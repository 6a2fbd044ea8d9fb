"""The unit files: systemd knows every line of them, and they agree with the settings and with each other."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from poolmgr.cli.root import run
from poolmgr.config.locations import is_system_socket
from poolmgr.config.settings import KINDS

ROOT: Final = Path(__file__).resolve().parents[2]
SYSTEMD: Final = ROOT / "systemd"
SERVICES: Final = [SYSTEMD / "poolmgr.service", SYSTEMD / "poolmgr@.service", SYSTEMD / "user" / "poolmgr.service"]
UNITS: Final = [*SERVICES, SYSTEMD / "poolmgr.socket", SYSTEMD / "poolmgr@.socket"]
DROP_INS: Final = sorted((SYSTEMD / "drop-ins").iterdir())
NEEDS: Final = {"notify-reload.conf": 253, "subgroup.conf": 254}  # systemd
GUIDE: Final = ROOT / "docs" / "how-to" / "run-under-systemd.md"
EXPOSURE: Final = 1.5

Lines = list[tuple[str, str, str]]  # section, name, value


def lines(path: Path) -> Lines:
    section, found = "", []
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.append((section, name, value))
    return found


def values(path: Path, name: str) -> list[str]:
    return [value for _, each, value in lines(path) if each == name]


def environment(path: Path) -> dict[str, str]:
    return dict(each.partition("=")[::2] for each in values(path, "Environment"))


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = shutil.which("systemd-analyze")
    if command is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run([command, *arguments], capture_output=True, text=True, check=False)


def systemd_version() -> int:
    return int(systemd_analyze("--version").stdout.split()[1])


def ids(path: Path) -> str:
    return str(path.relative_to(SYSTEMD))


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory with all units, with commands that are there on any machine."""
    for path in UNITS:
        directory = tmp_path / path.parent.name
        directory.mkdir(exist_ok=True)
        text = re.sub(r"^(Exec\w+)=(/opt|%h)\S+", r"\1=/bin/true", path.read_text(), flags=re.MULTILINE)
        (directory / path.name.replace("@.", "@blue.")).write_text(text)
    return tmp_path


@pytest.mark.parametrize("unit", UNITS, ids=ids)
def test_systemd_knows_every_line(unit: Path, installed: Path) -> None:
    name = unit.name.replace("@.", "@blue.")
    done = systemd_analyze("verify", "--man=no", "--recursive-errors=no", str(installed / unit.parent.name / name))
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("drop_in", DROP_INS, ids=ids)
def test_a_systemd_that_is_new_enough_knows_the_drop_ins(drop_in: Path, installed: Path) -> None:
    if systemd_version() < NEEDS[drop_in.name]:
        pytest.skip(f"this systemd is older than {NEEDS[drop_in.name]}")
    service = installed / "systemd" / "poolmgr.service"
    service.with_suffix(".service.d").mkdir()
    shutil.copy(drop_in, service.with_suffix(".service.d"))
    done = systemd_analyze("verify", "--man=no", "--recursive-errors=no", str(service))
    assert (done.stderr, done.returncode) == ("", 0)


def test_systemd_knows_what_the_guide_tells_to_relax(installed: Path) -> None:
    told = re.findall(r"`([A-Z]+[a-z]\w+=[^`]*)`", GUIDE.read_text())
    lines = [line for line in told if not re.match(r"SocketGroup=|\w+=$", line)]  # which set nothing here
    service = installed / "systemd" / "poolmgr.service"
    service.write_text("\n".join([service.read_text().partition("[Install]")[0], *lines]))
    done = systemd_analyze("verify", "--man=no", "--recursive-errors=no", str(service))
    assert (done.stderr, done.returncode) == ("", 0)
    assert len(lines) > 20


@pytest.mark.parametrize("drop_in", DROP_INS, ids=ids)
def test_a_drop_in_says_which_systemd_it_needs(drop_in: Path) -> None:
    assert f"systemd {NEEDS[drop_in.name]} and newer" in drop_in.read_text()


@pytest.mark.parametrize("unit", SERVICES[:2], ids=ids)
def test_a_service_is_hardly_exposed(unit: Path) -> None:
    done = systemd_analyze("security", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}", str(unit))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", SERVICES, ids=ids)
def test_variables_are_settings(unit: Path) -> None:
    ours = {name for name in environment(unit) if name.startswith("POOLMGR_")}
    assert ours == {"POOLMGR_CONFIG", "POOLMGR_SOCKET"}
    assert "socket" in KINDS


@pytest.mark.parametrize("unit", SERVICES, ids=ids)
def test_comments_name_settings_that_there_are(unit: Path) -> None:
    named = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", "".join(re.findall(r"^#.*$", unit.read_text(), re.MULTILINE))))
    assert named <= set(KINDS)


@pytest.mark.parametrize("unit", SERVICES, ids=ids)
def test_wrong_settings_are_not_tried_again(unit: Path) -> None:
    assert values(unit, "RestartPreventExitStatus") == [str(run(["start", "--config", "/nowhere.toml"]))]


@pytest.mark.parametrize("unit", SERVICES, ids=ids)
def test_all_services_live_by_the_same_rules(unit: Path) -> None:
    expected = {
        "Type": "notify", "KillMode": "mixed", "OOMPolicy": "continue", "Delegate": "yes", "Restart": "on-failure",
        "WatchdogSec": "30",
    }  # fmt: skip
    assert {name: values(unit, name) for name in expected} == {name: [value] for name, value in expected.items()}


def test_the_services_of_pools_side_by_side_differ_from_the_single_one_by_their_names() -> None:
    names = {
        "/etc/poolmgr/%i.": "/etc/poolmgr/poolmgr.", "poolmgr-%i": "poolmgr", "processes: %i": "processes",
    }  # fmt: skip
    for kind in ("service", "socket"):
        many = lines(SYSTEMD / f"poolmgr@.{kind}")
        for name, single in {**names, "poolmgr: %i": "poolmgr"}.items():
            many = [(section, setting, value.replace(name, single)) for section, setting, value in many]
        assert many == lines(SYSTEMD / f"poolmgr.{kind}")


@pytest.mark.parametrize("name", ["poolmgr", "poolmgr@"])
def test_service_and_socket_agree(name: str) -> None:
    service, unit = SYSTEMD / f"{name}.service", SYSTEMD / f"{name}.socket"
    path = environment(service)["POOLMGR_SOCKET"]
    assert values(unit, "ListenStream") == [path]
    assert path == f"%t/{values(service, 'RuntimeDirectory')[0]}/poolmgr.sock"
    assert is_system_socket(path.replace("%t", "/run").replace("%i", "blue"))
    assert values(unit, "SocketUser") == values(service, "User")
    assert values(service, "RuntimeDirectoryPreserve") == ["yes"]  # its end would take the socket along


def test_the_new_way_to_reload_replaces_the_old() -> None:
    drop_in = lines(SYSTEMD / "drop-ins" / "notify-reload.conf")
    assert ("Service", "ExecReload", "") in drop_in


def test_the_guide_names_every_file() -> None:
    guide = GUIDE.read_text()
    files = [path for path in SYSTEMD.rglob("*") if path.is_file()]
    assert not [path for path in files if str(path.relative_to(ROOT)) not in guide]

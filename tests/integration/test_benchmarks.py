"""The benchmarks run, small: the standard library's pool beside poolmgr. What they measure is of no interest here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.growth.axes import NAMES as AXES
from benchmarks.peer import PEERS_PYTHON, ROOT
from benchmarks.scenarios import NAMES
from poolmgr.worker.warden import processes, stat

_MARK = "BENCHMARKS_UNDER_TEST"
_DURABLE = {"durable", "durable-latency"}


def left_behind(mark: str) -> list[int]:
    """The living processes that came of the run."""
    found = []
    for pid in processes():
        try:
            if f"{_MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


@pytest.mark.timeout(120)
def test_a_small_run_measures_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--pairs", "1", "--run-s", "0.01", "--out", str(out), "--peers", "multiprocessing"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        env={**os.environ, _MARK: str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((out / "results.json").read_text())
    assert {row["scenario"] for row in found["rows"]} == set(NAMES)
    for row in found["rows"]:
        assert bool(row["theirs"]) == (row["scenario"] not in _DURABLE), (row["scenario"], row["failed"])
        assert len(row["poolmgr"]) == len(row["theirs"])
    assert "## What poolmgr reached" in (out / "results.md").read_text()
    if PEERS_PYTHON.exists():  # where matplotlib is
        assert (out / "results.svg").stat().st_size > 10_000
    assert not left_behind(str(tmp_path))


_DRIVER = """
import sys
from pathlib import Path
from benchmarks.peer import Peer

with Peer("poolmgr", Path(sys.argv[1])) as peer:
    for measure, arguments in (("start", {"workers": 2}), ("latency", {"tasks": 10})):
        sys.stdin.readline()
        peer.ask(measure, **arguments)
        print("answered", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.timeout(120)
def test_a_peer_stands_still_until_it_is_asked_and_goes_with_its_driver(tmp_path: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, _MARK: str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert driver.stdin is not None
    assert driver.stdout is not None
    with driver:
        for _ in range(2):
            driver.stdin.write(b"go on\n")
            driver.stdin.flush()
            assert driver.stdout.readline() == b"answered\n"
            peer = [pid for pid in left_behind(str(tmp_path)) if pid != driver.pid]
            assert len(peer) >= 4  # its adapter, the daemon, two workers
            assert {stat(pid)[0] for pid in peer} == {"T"}
        driver.kill()
    while left_behind(str(tmp_path)):
        time.sleep(0.01)


@pytest.mark.timeout(120)
def test_what_was_found_before_an_interruption_is_kept(tmp_path: Path) -> None:
    options = ["--pairs", "1", "--run-s", "0.01", "--out", str(tmp_path), "--peers", "multiprocessing", "executor"]
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "benchmarks", *options],
        cwd=ROOT,
        env={**os.environ, _MARK: str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        told = next(line for line in run.stdout if " executor " in line)
        run.send_signal(signal.SIGTERM)
        run.stdout.read()
    assert run.returncode == 128 + signal.SIGTERM, told
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {row["scenario"] for row in rows if row["peer"] == "multiprocessing"} == set(NAMES)
    assert any(row["theirs"] for row in rows if row["peer"] == "executor")
    assert all(row["theirs"] or row["failed"] for row in rows)
    assert not left_behind(str(tmp_path))


def test_a_peer_that_is_not_installed_is_left_out_and_named(tmp_path: Path) -> None:
    program = (
        "import benchmarks.peer as peer, pathlib, sys\n"
        "peer.PEERS_PYTHON = pathlib.Path(sys.executable)\n"  # which has none of them
        "from benchmarks.__main__ import main\n"
        f"sys.exit(main(['--only', 'map', '--run-s', '0.01', '--peers', 'huey', '--out', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "huey: left out: No module named 'huey'" in (tmp_path / "results.md").read_text()


@pytest.mark.timeout(120)
def test_growth_is_measured_along_every_axis_and_nothing_is_left_behind(tmp_path: Path) -> None:
    options = ["--rounds", "1", "--run-s", "0.01", "--most", "10", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", *options],
        cwd=ROOT,
        env={**os.environ, _MARK: str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "growth.json").read_text())
    assert {row["axis"] for row in found["rows"]} == set(AXES)
    assert all(len(row["runs"][0]) == len(row["points"]) for row in found["rows"])
    assert "## All at a glance" in (tmp_path / "growth.md").read_text()
    if PEERS_PYTHON.exists():
        assert (tmp_path / "growth.svg").stat().st_size > 10_000
    assert not left_behind(str(tmp_path))

"""What tests of several kinds share."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("poolmgr", deadline=None)  # no test fails for the time that it takes
hypothesis.settings.load_profile("poolmgr")

# A shell's background job ignores SIGINT, and so would all that is started here: but programs are interrupted in tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

_ONE_BY_ONE = "integration"  # the folder whose tests start daemon after daemon
_PROOFS = "test_proofs_small.py"  # ... and the file there that takes as long as all others


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _ONE_BY_ONE in item.path.parts:
            item.add_marker(pytest.mark.xdist_group("proofs" if item.path.name == _PROOFS else "daemons"))


EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "nodejs"


@pytest.fixture(scope="session")
def node_worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's worker.js, in a copy of its directory with all that it needs installed."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node or npm is missing")
    copy = tmp_path_factory.mktemp("nodejs") / "worker"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("node_modules"))
    install = ["npm", "install", "--no-audit", "--no-fund", "--fetch-retries=0", "--fetch-timeout=20000"]
    try:
        done = subprocess.run(install, cwd=copy, capture_output=True, text=True, check=False, timeout=45)
    except subprocess.TimeoutExpired:
        pytest.skip("npm install takes too long here")
    if done.returncode != 0:
        pytest.skip(f"npm install is not possible here: {done.stderr[-300:]}")
    return copy / "worker.js"

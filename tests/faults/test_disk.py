"""A share of ``suite.py``: a disk that fails at some of the calls that change the state folder."""

import os
from pathlib import Path

import pytest
from faults.suite import compiled, faults, recorded, share, tried

FAULTS = 40 if os.environ.get("GOALRUN_FAULTS") == "all" else 8
SEED = 20260101


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled shim."""
    found = compiled(tmp_path_factory.mktemp("shim"))
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.mark.timeout(600)
def test_a_disk_that_fails_loses_nothing_and_says_so(shim: Path, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    calls = recorded(tmp_path / "first", shim)
    assert len(calls) > 500, "goalrun, the supervisors and git are all seen"
    assert {"write", "pwrite", "fsync", "open", "mkdir", "rename", "unlink", "link"} <= {call.name for call in calls}
    chosen = share(calls, FAULTS, SEED)
    assert len(chosen) == FAULTS < len(faults(calls, every=False))
    rows = list(tried(chosen, tmp_path, shim, jobs=2))
    assert [f"{row.fault}: {problem}" for row in rows for problem in row.problems] == []
    assert {0, 11} <= {row.code for row in rows}, "some faults are harmless, some are not"

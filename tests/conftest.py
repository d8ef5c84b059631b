"""Fixtures."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support import Program, shop

# How fast a machine is, and what else runs on it, is no property of the code.
settings.register_profile("goalrun", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("goalrun")

# A shell starts what it runs in the background with SIGINT ignored, and that would be inherited by every program here.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with a failing test."""
    return shop(tmp_path / "project")


@pytest.fixture
def program(tmp_path: Path, project: Path) -> Program:
    """The program, with a fresh state folder, started in the project."""
    return Program(home=tmp_path / "state", cwd=project)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores: most tests wait for programs a part of their time."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)

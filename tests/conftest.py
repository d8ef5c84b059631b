"""Fixtures."""

from pathlib import Path

import pytest
from support import Program, shop


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with a failing test."""
    return shop(tmp_path / "project")


@pytest.fixture
def program(tmp_path: Path, project: Path) -> Program:
    """The program, with a fresh state folder, started in the project."""
    return Program(home=tmp_path / "state", cwd=project)

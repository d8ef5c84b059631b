"""Fixtures: nothing of whoever runs the tests takes part."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and no variable that speaks to git or goalrun."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "XDG_", "GOALRUN_"))]:
        monkeypatch.delenv(name)
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """Where everything lies that is the user's."""
    folder = tmp_path / "user"
    folder.mkdir()
    return folder

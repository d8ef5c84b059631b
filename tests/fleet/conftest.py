"""Fixtures: one server for a test process, a fleet of its own for each test."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from fleet.place import Place, Server, server
from pages.conftest import browser, chromium

__all__ = ["browser", "chromium", "place", "postgresql"]

numbers = count(1)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    with server() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, postgresql: Server) -> Iterator[Place]:
    made = Place(tmp_path, postgresql, url=postgresql.database(f"try_{next(numbers)}"))
    try:
        yield made
    finally:
        made.end()

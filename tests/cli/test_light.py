"""What short commands import: the time that they take is the time of that."""

import subprocess
import sys

import pytest
from support import GOOD_WORKER, Program

RUN = """import sys
sys.argv = ["goalrun", *sys.argv[1:]]
from goalrun.cli.app import main
try:
    main()
finally:
    sys.stderr.write(" ".join(sys.modules))"""
SLOW = {"git", "rich", "psutil", "asyncio", "jsonschema", "filelock", "tomli_w", "logging", "goalrun.core.model"}
"""Each takes longer to import than the command itself takes. Typer brings pydantic along when a command has options."""
NOTHING = SLOW | {"typer", "typing", "re", "json", "dataclasses", "pydantic", "sqlite3", "subprocess", "inspect"}


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--version"], NOTHING),
        (["--help"], SLOW | {"pydantic", "sqlite3"}),
        (["list"], SLOW),
        (["list", "--json"], SLOW),
        (["status"], SLOW),
        (["status", "--json"], SLOW),
    ],
)
def test_short_commands_import_nothing_slow(arguments: list[str], unwanted: set[str], program: Program) -> None:
    program.start("--no-baseline", worker=GOOD_WORKER)
    words = [sys.executable, "-P", "-c", RUN, *arguments]
    done = subprocess.run(words, cwd=program.cwd, env=program.env(), capture_output=True, text=True, check=True)
    assert done.stdout
    assert unwanted & set(done.stderr.split()) == set()

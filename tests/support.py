"""What tests share: real repositories, the real program, scripted workers."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

slow = pytest.mark.skipif(os.environ.get("GOALRUN_TESTS") != "all", reason="takes long: GOALRUN_TESTS=all")
"""For tests of what a quicker test beside them shows on its whole."""
DEADLINE_SECONDS = 30.0
PYTHON = shlex.quote(sys.executable)
GOALRUN = (sys.executable, "-P", "-m", "goalrun")
CHECK = f"{PYTHON} -m unittest discover -s tests"
CODE = "def total(prices, discount=0):\n    return sum(prices)\n"
FIXED = "def total(prices, discount=0):\n    return sum(prices) * (100 - discount) / 100\n"
TESTS = """import unittest
from shop import total

class TotalTest(unittest.TestCase):
    def test_discount(self):
        self.assertEqual(total([100, 100], discount=10), 180)
"""
GOOD_WORKER = f"printf %s {shlex.quote(FIXED)} > shop.py"
CHEAT_WORKER = "sed -i.bak s/180/200/ tests/test_shop.py && rm tests/test_shop.py.bak"


MEASURE = (
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[2:]); "
    "open(sys.argv[1], 'w').write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)); sys.exit(code)"
)
"""Runs a command from a small process, because a peak begins with that of the parent, and writes down the largest of
all that were waited for, grandchildren included, in KiB: getrusage(2)."""


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    """Git in a folder, with an identity and without the configuration of whoever runs the tests."""
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "tester",
        "GIT_AUTHOR_EMAIL": "tester@localhost",
        "GIT_COMMITTER_NAME": "tester",
        "GIT_COMMITTER_EMAIL": "tester@localhost",
    }
    command = ["git", "-c", "protocol.file.allow=always", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, check=check, capture_output=True)
    return done.stdout.decode("utf-8", "surrogateescape")


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Some files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def repository(folder: Path, files: Mapping[str, str]) -> Path:
    """A repository with one commit of some files."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    write(folder, files)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message=first")
    return folder


def shop(folder: Path) -> Path:
    """A repository with a failing test, which GOOD_WORKER makes pass and CHEAT_WORKER weakens."""
    return repository(folder, {"shop.py": CODE, "tests/test_shop.py": TESTS})


def wait_until(happened: Callable[[], object], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait for something to become true; a hang is a failure with a name."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise AssertionError(f"never happened: {what}")
        time.sleep(0.01)


def running(marker: str, *, exactly: bool = False) -> list[int]:
    """The processes whose command line holds a marker, or is it, whatever namespace they are in."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if (command == marker if exactly else marker in command) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@dataclass
class Done:
    """A finished run of the program."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Its standard output as JSON."""
        data: dict[str, Any] = json.loads(self.out)
        return data


@dataclass
class Program:
    """The installed program with a state folder of its own."""

    home: Path
    cwd: Path
    environment: dict[str, str] = field(default_factory=dict)

    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GOALRUN_", "GIT_", "XDG_"))}
        return {
            **kept,
            "GOALRUN_HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home.parent / "config"),
            "NO_COLOR": "1",
            **self.environment,
        }

    def spawn(self, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start the program; its output is piped, its standard input is empty."""
        return spawned([*GOALRUN, *arguments], cwd or self.cwd, self.env())

    def run(self, *arguments: str, cwd: Path | None = None) -> Done:
        """Run the program to its end."""
        return finish(self.spawn(*arguments, cwd=cwd))

    def under(self, prefix: Sequence[str | Path], *arguments: str) -> Done:
        """Run the program by another one."""
        return finish(spawned([*prefix, *GOALRUN, *arguments], self.cwd, self.env()))

    def start(self, *arguments: str, worker: str, cwd: Path | None = None, check: str = CHECK) -> Done:
        """``goalrun start`` with a worker command and a check."""
        return self.run("start", "make tests pass", "--worker-cmd", worker, "-c", check, *arguments, cwd=cwd)

    def goals(self) -> list[dict[str, Any]]:
        """All goals."""
        found: list[dict[str, Any]] = self.run("list", "--all", "--json").json["goals"]
        return found


def spawned(command: Sequence[str | Path], cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[str]:
    """A process with piped output, empty input, and a session of its own."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def told(command: Sequence[str], cwd: Path, env: Mapping[str, str], seconds: float) -> Done:
    """A command that was run to its end, its output and messages in the order in which a log would show them."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=seconds,
    )
    return Done(done.returncode, done.stdout, "")


def finish(process: subprocess.Popen[str]) -> Done:
    """Wait for a spawned program."""
    out, err = process.communicate(timeout=DEADLINE_SECONDS * 3)
    return Done(process.returncode, out, err)


def script(path: Path, body: str) -> str:
    """A Python script outside of the workspace, as a command line."""
    path.write_text(body, encoding="utf-8")
    return f"{PYTHON} {shlex.quote(str(path))}"

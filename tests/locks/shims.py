"""What the tests of locks share: a preloaded library, and goalrun held at a named point."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from support import Done, Program, finish, spawned

HERE = Path(__file__).parent
ALL = os.environ.get("GOALRUN_LOCKS") == "all"
REST = pytest.mark.skipif(not ALL, reason="only with GOALRUN_LOCKS=all")
NEEDS_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the shim is a library for LD_PRELOAD")
NO_FLOCK = {name: {"SHIM_FLOCK": str(getattr(errno, name))} for name in ("ENOSYS", "ENOLCK", "EOPNOTSUPP")}
"""File systems without kernel locks, by what flock(2) says there."""


def shim(folder: Path) -> dict[str, str]:
    """The environment that preloads ``shim.c``; skips where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc)")
    library = folder / "shim.so"
    source = str(HERE / "shim.c")
    subprocess.run([compiler, "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


class Held(NamedTuple):
    """A goalrun that waits at a named point."""

    process: "subprocess.Popen[str]"
    gate: Path

    def go_on(self) -> None:
        """Let it go on."""
        with self.gate.open("w"):
            pass

    def finish(self) -> Done:
        """Let it go on, to its end."""
        self.go_on()
        return finish(self.process)


@contextmanager
def held_at(program: Program, point: str, *arguments: str, nth: int = 1) -> Iterator[Held]:
    """Run goalrun up to the nth time that it reaches a point; once it is there, the body runs."""
    folder = program.home.parent / f"held-{len(list(program.home.parent.glob('held-*')))}"
    folder.mkdir()
    for name in ("there", "gate"):
        os.mkfifo(folder / name)
    command = [sys.executable, "-P", str(HERE / "launcher.py"), point, str(nth), str(folder), *arguments]
    process = spawned(command, program.cwd, program.env())
    try:
        # Blocks until the launcher opens its end: at the point, or when it ends without having been there.
        assert (folder / "there").read_text("ascii") == "there", finish(process)
        yield Held(process, folder / "gate")
    finally:
        process.kill()
        process.communicate()

"""Goals, places and processes for the adapters' tests."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from goalrun.adapters.store import GitStore
from goalrun.core.model import ProcessIdentity
from goalrun.core.protection import Protection
from goalrun.core.spec import AgentSpec, GoalSpec

GOAL = f"g-20260101-{os.getpid():09d}"
"""Of this process alone: what carries a goal's id is ended with the goal's worker."""
REGULAR, EXECUTABLE, LINK = "100644", "100755", "120000"


def goal_spec(workspace: Path, **changes: object) -> GoalSpec:
    """A goal about a workspace, with everything but ``changes`` as plain as can be."""
    plain: dict[str, object] = {
        "id": GOAL,
        "objective": "make tests pass",
        "workspace": str(workspace),
        "worker": AgentSpec(name="command", command=("true",)),
        "checks": ("true",),
    }
    return GoalSpec.model_validate({**plain, **changes})


def store_of(spec: GoalSpec, folder: Path) -> GitStore:
    """The store of a goal, made."""
    folder.mkdir(parents=True, exist_ok=True)

    def protection(files: frozenset[str]) -> Protection:
        return Protection(spec=spec.verification, checks=spec.checks, subfolder=spec.subfolder, base_files=files)

    store = GitStore(folder, Path(spec.workspace), protection)
    store.create()
    return store


def unrecorded(_role: str, _process: ProcessIdentity) -> None:
    """Nobody keeps a record of processes here."""


def on_disk(top: Path) -> dict[bytes, tuple[str, bytes]]:
    """What git would call the content of a folder, read without git: path → (mode, bytes); nothing of ``.git``."""
    found: dict[bytes, tuple[str, bytes]] = {}
    root = os.fsencode(top)
    for folder, names, files in os.walk(root):
        linked = [name for name in names if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118
        names[:] = [name for name in names if name != b".git" and name not in linked]
        for name in (*files, *linked):
            path = os.path.join(folder, name)  # noqa: PTH118 - bytes
            mode = os.lstat(path).st_mode
            shown = os.path.relpath(path, root)
            if stat.S_ISLNK(mode):
                found[shown] = (LINK, os.readlink(path))  # noqa: PTH115 - bytes
            elif stat.S_ISREG(mode) and name != b".git":
                with open(path, "rb") as file:  # noqa: PTH123 - bytes
                    found[shown] = (EXECUTABLE if mode & 0o100 else REGULAR, file.read())
    return found


def fingerprint(top: Path) -> dict[str, tuple[int, int, str]]:
    """Every byte, mode and time of change of a folder, ``.git`` included."""
    found = {}
    for folder, names, files in os.walk(top):
        for name in (*names, *files):
            path = Path(folder, name)
            status = path.lstat()
            content = str(path.readlink()) if path.is_symlink() else ""
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found


@contextmanager
def untouched(top: Path) -> Iterator[None]:
    """Nothing in a folder may change meanwhile."""
    before = fingerprint(top)
    yield
    assert fingerprint(top) == before


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return False


def pids_in(path: Path) -> list[int]:
    """The process ids that somebody wrote into a file, a line each."""
    return [int(line) for line in path.read_text("ascii").split()] if path.exists() else []

"""Dependencies that checks need and snapshots leave out: frozen before the first turn, so that no worker chose them.

A dependency is a folder of the workspace (a virtual environment, ``node_modules``). Its copy is taken once, kept in
the goal's folder, and shown to checks read-only at the folder's own path where the sandbox can; elsewhere a link
stands there.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from goalrun.adapters import process
from goalrun.adapters.files import private_folder, remove_tree, write_whole
from goalrun.errors import EnvironmentFailure, SpecError

INDEX = "index.json"
CONVENTIONAL = (".venv", "venv", "node_modules")
CACHES_INSIDE = (".cache", ".vite", ".vite-temp", ".vitest")
"""Tools write these below ``node_modules`` as they run; they are made in the copy, to be covered with empty folders."""
COPY_SECONDS = 1800.0
MAX_SCRIPT_BYTES = 1 << 20
_PYTHON = re.compile(r"(python|pypy)[\d.]*")


class Frozen(NamedTuple):
    """One dependency.

    Attributes:
        path: the folder in the workspace.
        copy: what checks get in its place.
        programs: its programs, changed to mean the copy, for checks that see the copy in another place.
    """

    path: Path
    copy: Path
    programs: Path


def detect(named: Iterable[str], workspace: Path, subfolder: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The dependencies of a workspace, relative to it: those that are named, and those that convention names.

    Raises:
        SpecError: one that is named is missing, or not in the workspace.
    """
    found: dict[str, None] = {}
    for name in named:
        path = Path(os.path.normpath(workspace / subfolder / name))
        if not path.is_relative_to(workspace) or path == workspace:
            raise SpecError(f"--deps {name!r} is not a folder in the workspace {workspace}")
        if not path.is_dir():
            raise SpecError(f"--deps {name!r}: there is no folder {path}", hint="install the dependencies first")
        found[str(path.relative_to(workspace))] = None
    active = environment.get("VIRTUAL_ENV", "")
    candidates = [Path(active)] if active else []
    candidates += [workspace / part / name for part in dict.fromkeys(("", subfolder)) for name in CONVENTIONAL]
    for path in candidates:
        if path.is_relative_to(workspace) and _is_dependency(path):
            found[str(path.relative_to(workspace))] = None
    return tuple(found)


def _is_dependency(path: Path) -> bool:
    return path.is_dir() and (path.name == "node_modules" or (path / "pyvenv.cfg").is_file())


def freeze(
    folder: Path, workspace: Path, paths: Iterable[str], tell: Callable[[str], None], poll: Callable[[], None]
) -> None:
    """Copy the dependencies into a goal's folder; done once, and not again for what is there.

    Raises:
        EnvironmentFailure: a copy could not be made.
        Interrupted: the goal was asked to pause or stop.
    """
    home = folder / "deps"
    if (home / INDEX).exists():
        return
    remove_tree(home)
    private_folder(home)
    kept = []
    for number, name in enumerate(paths):
        tell(f"freezing {name} for the checks")
        _copy(workspace / name, home / str(number), folder, poll)
        _make_programs(Frozen(workspace / name, home / str(number), home / f"{number}-programs"))
        if Path(name).name == "node_modules":
            for cache in CACHES_INSIDE:
                (home / str(number) / cache).mkdir(exist_ok=True)
        kept.append(name)
    write_whole(home / INDEX, json.dumps(kept))


def _copy(source: Path, target: Path, folder: Path, poll: Callable[[], None]) -> None:
    # Shares blocks where the file system can; links stay links, and times stay, so byte code stays valid.
    flags = ("-Rpc",) if sys.platform == "darwin" else ("-a", "--reflink=auto")
    command = process.Command(
        argv=("/bin/cp", *flags, str(source), str(target)),
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        stdout=folder / "deps.log",
        timeout=COPY_SECONDS,
    )
    finished = process.run(command, lambda _: None, poll)
    if finished.exit_code != 0:
        said = " ".join((folder / "deps.log").read_text(encoding="utf-8", errors="replace").split())[:300]
        raise EnvironmentFailure(f"{source} could not be copied: {said}", hint="make room, or leave it out")


def load(folder: Path, workspace: Path) -> tuple[Frozen, ...]:
    """The frozen dependencies of a goal."""
    home = folder / "deps"
    with suppress(FileNotFoundError, ValueError):
        names = json.loads((home / INDEX).read_text(encoding="utf-8"))
        return tuple(
            Frozen(workspace / name, home / str(number), home / f"{number}-programs")
            for number, name in enumerate(names)
        )
    return ()


def _make_programs(frozen: Frozen) -> None:
    """Stand-ins for a virtual environment's programs that run the copy's interpreter, not the live one's."""
    programs = frozen.copy / "bin"
    if not (frozen.copy / "pyvenv.cfg").is_file() or not programs.is_dir():
        return
    private_folder(frozen.programs)
    for path in programs.iterdir():
        stand_in = frozen.programs / path.name
        if _PYTHON.fullmatch(path.name):
            stand_in.write_text(f'#!/bin/sh\nexec "{path}" "$@"\n', encoding="utf-8")
        elif path.is_file() and path.stat().st_size <= MAX_SCRIPT_BYTES:
            old, new = os.fsencode(frozen.path / "bin"), os.fsencode(programs)
            first, newline, rest = path.read_bytes().partition(b"\n")
            stand_in.write_bytes(
                first.replace(old, new) + newline + rest if first.startswith(b"#!") else first + newline + rest
            )
        else:
            continue
        stand_in.chmod(0o755)


def path_inside(path: str, frozen: Iterable[Frozen]) -> str:
    """A PATH whose entries in dependencies mean their stand-ins."""
    return os.pathsep.join(entry for name in path.split(os.pathsep) for entry in _entries(Path(name), frozen))


def _entries(entry: Path, frozen: Iterable[Frozen]) -> Iterator[str]:
    for each in frozen:
        if entry == each.path / "bin" and each.programs.is_dir():
            yield str(each.programs)
            return
        if entry.is_relative_to(each.path):
            yield str(each.copy / entry.relative_to(each.path))
            return
    yield str(entry)


def editable(frozen: Iterable[Frozen], workspace: Path) -> str:
    """A file that makes a frozen environment import the live workspace; "" if there is none."""
    for each in frozen:
        for pattern in ("lib/python*/site-packages/*.pth", "lib/python*/site-packages/__editable__*.py"):
            for path in sorted(each.copy.glob(pattern)):
                if str(workspace).encode() in path.read_bytes()[:MAX_SCRIPT_BYTES]:
                    return str(path.relative_to(each.copy))
    return ""

"""Dependencies that checks need and snapshots leave out: frozen before the first turn, so that no worker chose them.

A dependency is a folder of the workspace (a virtual environment, ``node_modules``), or what a command made in its place
(see ``prepare``). Its copy is taken once, kept in the goal's folder, and shown to checks read-only at the folder's own
path where the sandbox can; elsewhere a link stands there.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from goalrun.adapters import process
from goalrun.adapters.files import private_folder, remove_tree, write_whole
from goalrun.errors import EnvironmentFailure, SpecError

INDEX = "index.json"
DEPS, PREPARED = "deps", "prepared"
"""Folders in a goal's own: copies of what was in the workspace, and of what a command made."""
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
        stand_in: what they get where they see it at another path: the copy, or for a virtual environment one whose
            programs run the copy's interpreter.
    """

    path: Path
    copy: Path
    stand_in: Path


class Kept(NamedTuple):
    """What a folder of copies holds.

    Attributes:
        names: paths relative to the workspace; the copy of the first is ``0/NAME``, and so on.
        made_in: what the workspace was called when they were made.
    """

    names: tuple[str, ...]
    made_in: str


def detect(
    named: Iterable[str], workspace: Path, subfolder: str, environment: Mapping[str, str], *, conventional: bool
) -> tuple[str, ...]:
    """The dependencies of a workspace, relative to it: those that are named, and, if wanted, those of convention.

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
    for path in candidates if conventional else []:
        if path.is_relative_to(workspace) and _is_dependency(path):
            found[str(path.relative_to(workspace))] = None
    return tuple(found)


def _is_dependency(path: Path) -> bool:
    return path.is_dir() and (path.name == "node_modules" or (path / "pyvenv.cfg").is_file())


def freeze(
    folder: Path, workspace: Path, paths: Iterable[str], tell: Callable[[str], None], poll: Callable[[], None]
) -> None:
    """Copy dependencies of the workspace into a goal's folder; done once, and not again for what is there.

    Raises:
        EnvironmentFailure: a copy could not be made.
        Interrupted: the goal was asked to pause or stop.
    """
    home = folder / DEPS
    if index(home) is None:
        for name in paths:
            tell(f"freezing {name} for the checks")
        keep(home, {name: workspace / name for name in paths}, str(workspace), poll)


def keep(home: Path, sources: Mapping[str, Path], made_in: str, poll: Callable[[], None]) -> None:
    """Copy dependencies into a folder, whose index says that all of them are there.

    Args:
        home: the folder; what an earlier attempt left in it is removed.
        sources: where they lie, by name.
        made_in: see ``Kept``.
        poll: see ``process.run``.

    Raises:
        EnvironmentFailure: a copy could not be made.
        Interrupted: the goal was asked to pause or stop.
    """
    remove_tree(home)
    private_folder(home)
    for number, (name, source) in enumerate(sources.items()):
        copy = place(home, number, name)
        private_folder(copy.parent)
        _copy(source, copy, home, poll)
        _make_stand_in(copy, os.path.join(made_in, name))  # noqa: PTH118 - a name, not a place
        if copy.name == "node_modules":
            for cache in CACHES_INSIDE:
                (copy / cache).mkdir(exist_ok=True)
    write_index(home, Kept(tuple(sources), made_in))


def place(home: Path, number: int, name: str) -> Path:
    """Where a copy lies: programs look for folders called ``node_modules`` above their own files."""
    return home / str(number) / Path(name).name


def write_index(home: Path, kept: Kept) -> None:
    """Say that a folder of copies is whole."""
    write_whole(home / INDEX, json.dumps(kept._asdict()))


def index(home: Path) -> Kept | None:
    """What a folder of copies holds; None where it is not whole."""
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        found = json.loads((home / INDEX).read_text(encoding="utf-8"))
        return Kept(tuple(found["names"]), found["made_in"])
    return None


def _copy(source: Path, target: Path, folder: Path, poll: Callable[[], None]) -> None:
    # Shares blocks where the file system can; links stay links, and times stay, so byte code stays valid.
    flags = ("-Rpc",) if sys.platform == "darwin" else ("-a", "--reflink=auto")
    command = process.Command(
        argv=("/bin/cp", *flags, str(source), str(target)),
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        stdout=folder / "copy.log",
        timeout=COPY_SECONDS,
    )
    finished = process.run(command, lambda _: None, poll)
    if finished.exit_code != 0:
        said = " ".join((folder / "copy.log").read_text(encoding="utf-8", errors="replace").split())[:300]
        raise EnvironmentFailure(f"{source} could not be copied: {said}", hint="make room, or leave it out")


def load(folder: Path, workspace: Path) -> tuple[Frozen, ...]:
    """The frozen dependencies of a goal."""
    found = []
    for home in (folder / DEPS, folder / PREPARED):
        kept = index(home) or Kept((), "")
        for number, name in enumerate(kept.names):
            copy = place(home, number, name)
            other = _stand_in(copy)
            found.append(Frozen(workspace / name, copy, other if other.is_dir() else copy))
    return tuple(found)


def _stand_in(copy: Path) -> Path:
    return copy.with_name("stand-in")


def _make_stand_in(copy: Path, old: str) -> None:
    """A virtual environment that is the copy but for its programs: these name itself, not where they were made."""
    if not (copy / "pyvenv.cfg").is_file() or not (copy / "bin").is_dir():
        return
    programs = private_folder(_stand_in(copy) / "bin")
    for path in copy.iterdir():
        if path.name != "bin":
            (programs.parent / path.name).symlink_to(path)
    for path in (copy / "bin").iterdir():
        text = None if _PYTHON.fullmatch(path.name) else _script(path)
        if text is None:
            # An interpreter takes the environment that it was called in for its own.
            (programs / path.name).symlink_to(path)
        else:
            (programs / path.name).write_bytes(_moved(text, os.fsencode(old), os.fsencode(programs.parent)))
            (programs / path.name).chmod(0o755)


def _script(path: Path) -> bytes | None:
    """The text of a program; None where it is none."""
    if not path.is_file() or path.stat().st_size > MAX_SCRIPT_BYTES:
        return None
    text = path.read_bytes()
    return None if b"\0" in text else text


def _moved(script: bytes, old: bytes, new: bytes) -> bytes:
    """A program of one environment as one of another."""
    moved = re.sub(re.escape(old) + rb"(?![\w.-])", lambda _: new, script)
    first = re.match(rb"#!\s*" + re.escape(old) + rb"(/bin/(?:python|pypy)\S*)([^\n]*)\n", script)
    if first is None:
        return moved
    # As pip writes it where the path is too long for the kernel, or holds a space.
    start = b"#!/bin/sh\n'''exec' \"%b%b\"%b \"$0\" \"$@\"\n' '''\n" % (new, first[1], first[2])
    return start + moved.partition(b"\n")[2]


def path_inside(path: str, frozen: Iterable[Frozen]) -> str:
    """A PATH whose entries in dependencies mean their stand-ins."""
    return os.pathsep.join(str(_meant(Path(name), frozen)) for name in path.split(os.pathsep))


def _meant(entry: Path, frozen: Iterable[Frozen]) -> Path:
    for each in frozen:
        if entry.is_relative_to(each.path):
            return each.stand_in / entry.relative_to(each.path)
    return entry


def editable(frozen: Iterable[Frozen], workspace: Path) -> str:
    """A file that makes a frozen environment import the live workspace; "" if there is none."""
    for each in frozen:
        for pattern in ("lib/python*/site-packages/*.pth", "lib/python*/site-packages/__editable__*.py"):
            for path in sorted(each.copy.glob(pattern)):
                if str(workspace).encode() in path.read_bytes()[:MAX_SCRIPT_BYTES]:
                    return str(path.relative_to(each.copy))
    return ""

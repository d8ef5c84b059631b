"""Which folders of the machine a check has to see: the system's, and those of the programs that it runs."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from goalrun.adapters.sandbox.place import Surroundings

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix", "/gnu")
MAX_LINKS = 400


def programs(around: Surroundings) -> tuple[Path, ...]:
    """All folders beside the system's that checks run programs from, with what their environments were made from."""
    seen = os.pathsep.join((around.path, *around.tools, *(str(each.copy / "bin") for each in around.frozen)))
    return tuple(tool_folders(seen, (*around.hidden, around.workspace)))


def tool_folders(path: str, hidden: Sequence[Path]) -> list[Path]:
    """Folders that the programs on a PATH need, beside the system's: their installations, not the user's home."""
    off_limits = [*(Path(os.path.realpath(folder)) for folder in hidden), Path("/"), Path("/tmp")]  # noqa: S108
    with suppress(RuntimeError):
        off_limits.append(Path(os.path.realpath(Path.home())))
    found: dict[Path, None] = {}
    for entry in map(Path, filter(None, path.split(os.pathsep))):
        if entry.is_dir() and not in_system(entry):
            for folder in _installation(entry):
                if not any(limit.is_relative_to(folder) for limit in off_limits) and not in_system(folder):
                    found[folder] = None
    # A folder below another one is there already.
    return [folder for folder in found if not any(other in folder.parents for other in found)]


def named_tools(checks: Sequence[str]) -> list[str]:
    """Folders of the programs that checks name by absolute path: they need to be visible like those on PATH."""
    words = {word for check in checks for word in re.split(r"[\s'\"`;&|<>()$=]+", check) if word.startswith("/")}
    return sorted({str(Path(word).parent) for word in words if Path(word).is_file() and os.access(word, os.X_OK)})


def compilers() -> list[str]:
    """Where rustup keeps compilers: its programs on PATH only lead there."""
    with suppress(RuntimeError):
        return [os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup")]
    return []


@cache
def in_system(folder: Path) -> bool:
    """Whether a folder is one of the system's own."""
    return any(folder.is_relative_to(name) for name in SYSTEM)


def _installation(entry: Path) -> Iterator[Path]:
    """A folder of programs, what it was installed with, and where its links and virtual environments lead."""
    yield entry
    yield from _prefix(entry)
    with suppress(OSError):
        links = [path for path in sorted(entry.iterdir())[:MAX_LINKS] if path.is_symlink()]
        for target in {Path(os.path.realpath(link)).parent for link in links}:
            yield target
            yield from _prefix(target)


def _prefix(programs: Path) -> Iterator[Path]:
    prefix = programs.parent
    marks = ("lib", "lib64", "libexec", "pyvenv.cfg", "versions", "share")
    if programs.name in {"bin", "sbin", "shims"} and any((prefix / mark).exists() for mark in marks):
        yield prefix
        with suppress(OSError):
            for line in (prefix / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace").splitlines():
                key, _, value = line.partition("=")
                if key.strip() == "home" and Path(value.strip()).is_absolute():
                    yield Path(value.strip())
                    yield from _prefix(Path(value.strip()))

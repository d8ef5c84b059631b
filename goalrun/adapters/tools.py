"""Programs outside the system's own folders that checks find by name: a worker could put others in their place.

What they are is noted with the base; a program that was changed since, or a new one that stands in front of another of
its name, is tampering. New programs of new names are welcome: a worker may install things.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

from goalrun.adapters.files import write_whole
from goalrun.adapters.sandbox.visible import in_system
from goalrun.core.model import Tamper

FILE = "tools.json"
MAX_ENTRIES = 20_000
Mark = list[int]


def note(folder: Path, path: str, workspace: Path) -> None:
    """Keep what the programs on a PATH are, in a goal's folder; done once."""
    if not (folder / FILE).exists():
        write_whole(folder / FILE, json.dumps(_marks(path, workspace)))


def changed(folder: Path, path: str, workspace: Path) -> list[Tamper]:
    """Programs on a PATH that are not what they were when they were noted."""
    with suppress(FileNotFoundError, ValueError):
        before: dict[str, Mark] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        now = _marks(path, workspace)
        found = [name for name, mark in now.items() if name in before and before[name] != mark]
        found += [name for name in now if name not in before and _stands_in_front(Path(name), path)]
        return [Tamper(path=name, kind="shadow") for name in sorted(found)]
    return []


def _marks(path: str, workspace: Path) -> dict[str, Mark]:
    """Identity, size and time of every program on a PATH that is neither the system's nor in the workspace."""
    found: dict[str, Mark] = {}
    for entry in map(Path, dict.fromkeys(filter(None, path.split(os.pathsep)))):
        if in_system(entry) or entry.is_relative_to(workspace):
            continue
        with suppress(OSError):
            for each in os.scandir(entry):
                with suppress(OSError):
                    status = each.stat()
                    found[each.path] = [status.st_ino, status.st_size, status.st_mtime_ns]
                if len(found) >= MAX_ENTRIES:
                    return found
    return found


def _stands_in_front(program: Path, path: str) -> bool:
    later = path.split(os.pathsep)
    with suppress(ValueError):
        later = later[later.index(str(program.parent)) + 1 :]
    return any(os.path.lexists(Path(entry, program.name)) for entry in later if entry)

"""Level bwrap: bubblewrap's namespaces."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from goalrun.adapters import process
from goalrun.adapters.deps import CACHES_INSIDE
from goalrun.adapters.identity import GOAL_VARIABLE
from goalrun.adapters.sandbox.place import Place, Surroundings, Wrapped
from goalrun.adapters.sandbox.visible import SYSTEM, in_system, programs

PLACES = ("/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap", "/run/current-system/sw/bin/bwrap")
"""Never looked up on PATH, where a worker may have put another one."""
INSIDE = Path("/goalrun")
"""Where a check finds its own home and reports."""


class BwrapSandbox:
    """bubblewrap: namespaces of its own for files, processes, network, users.

    A check sees the system and the tools on its PATH read-only, an empty HOME and TMPDIR, and the snapshot at the
    workspace's own path, so that absolute paths and editable installs mean the snapshot. It does not see the user's
    home, the state folder, other processes, or any network but loopback. Dependencies are read-only at their own path.
    """

    level = "bwrap"

    def __init__(self, around: Surroundings) -> None:
        self._workspace = around.workspace
        self.path = around.path
        self._tools = programs(around)
        self._frozen = around.frozen
        self._network = around.network

    def furnish(self, place: Place) -> None:
        """Nothing: dependencies are mounted."""

    def _dependencies(self, place: Place) -> Iterator[str]:
        for each in self._frozen:
            there = place.top / each.path.relative_to(self._workspace)
            # Not over what the snapshot has, and not through a link that a worker made.
            if _holds_something(there) or not _plain_folder(there.parent, place.top):
                continue
            yield from ("--ro-bind", str(each.copy), str(each.path))
            for name in CACHES_INSIDE:
                if (each.copy / name).is_dir():
                    yield from ("--tmpfs", str(each.path / name))

    def seen(self, place: Place) -> Place:
        """The snapshot at the workspace's path; the rest in places of its own."""
        hidden = None if place.hidden is None else INSIDE / "hidden"
        return Place(self._workspace, INSIDE / "home", Path("/tmp"), INSIDE / "reports", hidden)  # noqa: S108 - its own

    def wrap(self, argv: Sequence[str], place: Place, cwd: Path, env: Mapping[str, str]) -> Wrapped:
        """Run the command in new namespaces; bubblewrap's own record tells the command's exit from its own failure."""
        inside = self.seen(place)
        options = [
            *("--unshare-user", "--unshare-all", "--disable-userns", "--die-with-parent", "--new-session"),
            *(("--share-net", *resolver()) if self._network else ()),
            *("--cap-drop", "ALL", "--hostname", "goalrun", "--clearenv"),
            *system_mounts(),
            *("--proc", "/proc", "--dev", "/dev", "--bind", str(place.tmp), str(inside.tmp)),
            *(word for tool in self._tools for word in ("--ro-bind", str(tool), str(tool))),
            *("--bind", str(place.home), str(inside.home), "--bind", str(place.reports), str(inside.reports)),
            *(("--ro-bind", str(place.hidden), str(inside.hidden)) if place.hidden is not None else ()),
            *("--bind", str(place.top), str(inside.top), *self._dependencies(place), "--chdir", str(cwd)),
            *(word for name, value in env.items() for word in ("--setenv", name, value)),
        ]
        command = (str(bwrap()), *options, "--json-status-fd", str(process.STATUS_FD), "--", *argv)
        # bubblewrap itself starts in a folder of ours; the goal's id makes it reapable.
        known = {name: value for name, value in env.items() if name == GOAL_VARIABLE}
        return Wrapped(command, place.home, known, recorded=True, stays=command[0])


@cache
def bwrap() -> Path | None:
    """bubblewrap, in one of the places where the system puts it."""
    return next((Path(place) for place in PLACES if os.access(place, os.X_OK)), None)


@cache
def system_mounts() -> tuple[str, ...]:
    """The system's own folders, read-only, and links where the system has links."""
    options: list[str] = []
    for name in SYSTEM:
        if Path(name).is_symlink():
            options += ["--symlink", str(Path(name).readlink()), name]
        elif Path(name).is_dir():
            options += ["--ro-bind", name, name]
    return tuple(options)


def resolver(file: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    """What makes names of the network known: the system's file for that can be a link into a folder not shown."""
    real = os.path.realpath(file)
    return ("--ro-bind", real, real) if Path(real).is_file() and not in_system(Path(real)) else ()


def _holds_something(there: Path) -> bool:
    """Whether a worktree has more at a place than what bubblewrap makes to mount a dependency on."""
    if there.is_symlink() or not there.exists():
        return there.is_symlink()
    return any(there.iterdir()) if there.is_dir() else there.stat().st_size > 0


def _plain_folder(folder: Path, top: Path) -> bool:
    """Whether a folder of a worktree is there, and reached through no link."""
    return folder.is_dir() and folder.resolve() == top.resolve() / folder.relative_to(top)

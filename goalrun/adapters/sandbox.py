"""How far a check is kept from everything else: the levels, behind one small interface.

A level is tried with the full set of options before it is trusted; what it is called is printed and stored with every
result. A sandbox that cannot be set up is never a result of the check.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

from goalrun.adapters import process
from goalrun.adapters.deps import CACHES_INSIDE, Frozen, editable, path_inside
from goalrun.core.model import GoalSpec
from goalrun.errors import EnvironmentFailure, SpecError

BWRAP_PLACES = ("/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap", "/run/current-system/sw/bin/bwrap")
"""Never looked up on PATH, where a worker may have put another one."""
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix", "/gnu")
PROBE_SECONDS = 20.0
MAX_LINKS = 400
INSIDE = Path("/goalrun")
"""Where a check finds its own home and reports."""


class Place(NamedTuple):
    """Folders of one verification, as the machine sees them.

    Attributes:
        top: what stands in for the workspace.
        home: an empty HOME.
        tmp: an empty TMPDIR.
        reports: where test programs leave their reports.
        hidden: files of hidden checks; None while others run.
    """

    top: Path
    home: Path
    tmp: Path
    reports: Path
    hidden: Path | None = None


class Sandbox(Protocol):
    """One level.

    Attributes:
        path: the PATH of checks.
    """

    level: str
    path: str

    def furnish(self, place: Place) -> None:
        """Put into a fresh worktree what checks need beside the snapshot.

        Raises:
            EnvironmentFailure: it cannot be had at this level.
        """
        ...

    def seen(self, place: Place) -> Place:
        """The same folders, as a check sees them."""
        ...

    def wrap(
        self, argv: Sequence[str], place: Place, cwd: Path, env: Mapping[str, str]
    ) -> tuple[tuple[str, ...], bool]:
        """A command line that runs another one inside; and whether it reports the status of what it ran.

        Args:
            argv: what to run.
            place: the folders, as the machine sees them.
            cwd: where to start, as the check sees it.
            env: the whole environment of the check.
        """
        ...


class ProcessSandbox:
    """No kernel isolation: own session, environment and folders, nothing left alive afterwards.

    Args:
        workspace: whose dependencies are frozen.
        path: the PATH of checks.
        frozen: dependencies, to which links are made.
    """

    level = "process"

    def __init__(self, workspace: Path, path: str, frozen: Sequence[Frozen] = ()) -> None:
        self._workspace = workspace
        self._frozen = frozen
        self.path = path_inside(path, frozen)

    def furnish(self, place: Place) -> None:
        """Links to the frozen dependencies, where the snapshot has nothing."""
        if place.top == self._workspace:
            return
        if escape := editable(self._frozen, self._workspace):
            raise EnvironmentFailure(
                f"an editable install ({escape}) makes checks import the live workspace, not the snapshot",
                hint="install bubblewrap, or install the project without -e, or keep its environment elsewhere",
            )
        for each in self._frozen:
            link = place.top / each.path.relative_to(self._workspace)
            if not os.path.lexists(link) and link.parent.is_dir():
                link.symlink_to(each.stand_in)

    def seen(self, place: Place) -> Place:
        """What the machine sees."""
        return place

    def wrap(
        self, argv: Sequence[str], place: Place, cwd: Path, env: Mapping[str, str]
    ) -> tuple[tuple[str, ...], bool]:
        """The command itself."""
        del place, cwd, env
        return tuple(argv), False


class BwrapSandbox:
    """bubblewrap: namespaces of its own for files, processes, network, users.

    A check sees the system and the tools on its PATH read-only, an empty HOME and TMPDIR, and the snapshot at the
    workspace's own path, so that absolute paths and editable installs mean the snapshot. It does not see the user's
    home, the state folder, other processes, or any network but loopback.

    Args:
        workspace: where the snapshot is shown.
        path: the PATH of checks; the tools on it are made visible.
        tools: folders of other programs that checks use.
        frozen: dependencies, shown read-only at their own path.
        hidden: folders that are never made visible, nor any folder above them.
        network: let checks use the machine's network.
    """

    level = "bwrap"

    def __init__(
        self,
        workspace: Path,
        path: str,
        tools: Sequence[str] = (),
        frozen: Sequence[Frozen] = (),
        hidden: Sequence[Path] = (),
        *,
        network: bool = False,
    ) -> None:
        self._workspace = workspace
        self.path = path
        # What a frozen environment was made from has to be visible too.
        seen = os.pathsep.join((path, *tools, *(str(each.copy / "bin") for each in frozen)))
        self._tools = tuple(tool_folders(seen, (*hidden, workspace)))
        self._frozen = frozen
        self._network = network

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

    def wrap(
        self, argv: Sequence[str], place: Place, cwd: Path, env: Mapping[str, str]
    ) -> tuple[tuple[str, ...], bool]:
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
        return (str(bwrap()), *options, "--json-status-fd", str(process.STATUS_FD), "--", *argv), True


@cache
def bwrap() -> Path | None:
    """bubblewrap, in one of the places where the system puts it."""
    return next((Path(place) for place in BWRAP_PLACES if os.access(place, os.X_OK)), None)


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


def _holds_something(there: Path) -> bool:
    """Whether a worktree has more at a place than what bubblewrap makes to mount a dependency on."""
    if there.is_symlink() or not there.exists():
        return there.is_symlink()
    return any(there.iterdir()) if there.is_dir() else there.stat().st_size > 0


def _plain_folder(folder: Path, top: Path) -> bool:
    """Whether a folder of a worktree is there, and reached through no link."""
    return folder.is_dir() and folder.resolve() == top.resolve() / folder.relative_to(top)


def named_tools(checks: Sequence[str]) -> list[str]:
    """Folders of the programs that checks name by absolute path: they need to be visible like those on PATH."""
    words = {word for check in checks for word in re.split(r"[\s'\"`;&|<>()$=]+", check) if word.startswith("/")}
    return sorted({str(Path(word).parent) for word in words if Path(word).is_file() and os.access(word, os.X_OK)})


def compilers() -> list[str]:
    """Where rustup keeps compilers: its programs on PATH only lead there."""
    with suppress(RuntimeError):
        return [os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup")]
    return []


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


def choose(spec: GoalSpec, home: Path, frozen: Sequence[Frozen] = ()) -> Sandbox:
    """The sandbox that a goal asks for; ``auto`` is the strongest that works here.

    Args:
        spec: the goal.
        home: the state folder, which no check may see.
        frozen: the goal's dependencies.

    Raises:
        SpecError: what was asked for does not work here.
    """
    asked = spec.verification
    reason = probe_bwrap() if asked.sandbox != "process" else "the goal asks for level process"
    if not reason:
        tools = [*named_tools([*spec.checks, asked.prepare or ""]), *compilers()]
        return BwrapSandbox(Path(spec.workspace), asked.path, tools, frozen, (home,), network=asked.network)
    if asked.require_sandbox or asked.sandbox == "bwrap":
        raise SpecError(f"sandbox level bwrap cannot be had: {reason}", hint="goalrun doctor says more")
    return ProcessSandbox(Path(spec.workspace), asked.path, frozen)


@cache
def probe_bwrap() -> str:
    """Why bubblewrap cannot be used here; "" when a trial with the full set of options went well."""
    if bwrap() is None:
        return "bubblewrap is not installed"
    scratch = Path(tempfile.mkdtemp(prefix="goalrun-probe-"))
    try:
        folders = [scratch / name for name in ("workspace", "home", "tmp", "reports")]
        for folder in folders:
            folder.mkdir()
        place = Place(*folders)
        bash = shutil.which("bash", path="/usr/local/bin:/usr/bin:/bin") or "/bin/bash"
        sandbox = BwrapSandbox(place.top, "")
        argv, _ = sandbox.wrap((bash, "-c", "echo -n works > probe"), place, place.top, {})
        command = process.Command(
            argv=argv, cwd=scratch, env={}, stdout=scratch / "out", timeout=PROBE_SECONDS, status=scratch / "status"
        )
        process.run(command, lambda _: None, lambda: None)
        return "" if (place.top / "probe").read_text(encoding="utf-8") == "works" else "a trial run left nothing"
    except (EnvironmentFailure, OSError) as failure:
        return " ".join(str(failure).split())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

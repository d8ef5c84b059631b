"""What a level is: the folders of one verification, and the small interface that wraps a command."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from goalrun.adapters.deps import Frozen


class Surroundings(NamedTuple):
    """What checks get of the machine, beside the folders of one verification.

    Attributes:
        workspace: whose place the snapshot takes.
        path: the PATH of checks.
        tools: folders of other programs that checks use.
        frozen: dependencies of the workspace.
        hidden: folders that are never made visible, nor any folder above them.
        network: let checks use the machine's network.
    """

    workspace: Path
    path: str
    tools: Sequence[str] = ()
    frozen: Sequence[Frozen] = ()
    hidden: Sequence[Path] = ()
    network: bool = False


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


class Wrapped(NamedTuple):
    """How to run a command inside.

    Attributes:
        argv: the command line, beginning with the level's launcher if it has one.
        cwd: where the machine starts it.
        env: its environment.
        recorded: the launcher records on ``process.STATUS_FD`` that it did its part; without that record it failed.
        stays: the launcher's program, where it stays in front of the command.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    recorded: bool = False
    stays: str = ""


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

    def wrap(self, argv: Sequence[str], place: Place, cwd: Path, env: Mapping[str, str]) -> Wrapped:
        """How to run a command line inside.

        Args:
            argv: what to run.
            place: the folders, as the machine sees them.
            cwd: where to start, as the check sees it.
            env: the whole environment of the check.
        """
        ...

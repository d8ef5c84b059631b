"""What every command begins with: the state folder, the environment, the workspace."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from goalrun.adapters import git
from goalrun.adapters.home import Home, home_folder
from goalrun.adapters.store import find_workspace
from goalrun.errors import SpecError


class Session(NamedTuple):
    """What a command has in hand: the state folder, and the user's environment as it came."""

    home: Home
    environment: Mapping[str, str]


def open_session(*, write: bool = True) -> Session:
    """Begin a command.

    Raises:
        UserError: git or the state folder cannot be used.
    """
    environment = dict(os.environ)
    git.forget_git_variables()
    home = Home(home_folder().absolute())
    if not write:
        home.refuse_other()
    else:
        home.prepare()
        git.require_git()
    return Session(home, environment)


def workspace_here() -> tuple[Path, str]:
    """The workspace of the current folder, and the subfolder of it that the current folder is."""
    try:
        return workspace_of(Path.cwd())
    except FileNotFoundError as failure:
        raise SpecError("the current folder is gone", hint="change into a folder that exists") from failure


def workspace_of(folder: Path) -> tuple[Path, str]:
    """The workspace that a folder is in, and the subfolder of it that the folder is.

    Raises:
        SpecError: it is no place to work in.
        FileNotFoundError: it is not there.
    """
    here = folder.resolve(strict=True)
    workspace = find_workspace(here)
    if ".git" in workspace.parts:
        raise SpecError(f"{here} is inside a repository's own folder", hint="change into its working tree")
    try:
        str(here).encode("utf-8")
    except UnicodeEncodeError as failure:
        raise SpecError(f"the name of the folder is not UTF-8: {here!r}", hint="rename it") from failure
    subfolder = here.relative_to(workspace) if here.is_relative_to(workspace) else Path()
    return workspace, "" if subfolder == Path() else str(subfolder)


def require_outside(workspace: Path, home: Home) -> None:
    """Refuse a workspace in which the worker could reach goalrun or its state.

    Raises:
        SpecError: the workspace contains the state folder or goalrun's own code.
    """
    if Path(os.path.realpath(home.path)).is_relative_to(workspace):
        raise SpecError(
            f"the workspace {workspace} contains the state folder {home.path}: the worker could rewrite it",
            hint="point GOALRUN_HOME outside the workspace, or start in a smaller folder",
        )
    code = Path(__file__).resolve().parents[1]
    if code.is_relative_to(workspace):
        raise SpecError(
            f"the workspace {workspace} contains goalrun's own code in {code}: the worker could rewrite it",
            hint="install goalrun outside the workspace, for example with pipx or uv tool",
        )


def require_workspace(workspace: Path) -> None:
    """Refuse to run a goal whose folder is not there.

    Raises:
        SpecError: it is gone.
    """
    if not workspace.is_dir():
        raise SpecError(f"the workspace {workspace} is gone", hint="bring it back, then resume")

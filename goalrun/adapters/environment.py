"""The environment of checks: built from nothing, so that nothing around goalrun changes what a check means."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from goalrun.adapters.identity import GOAL_VARIABLE
from goalrun.adapters.sandbox import Place
from goalrun.core.spec import GoalSpec


def check_environment(spec: GoalSpec, user: Mapping[str, str], inside: Place, path: str) -> dict[str, str]:
    """All variables of a check.

    Args:
        spec: names what is passed on of the user's environment.
        user: that environment.
        inside: the folders, as the check sees them.
        path: the PATH, as the check sees it.
    """
    home = inside.home
    environment = {
        "PATH": path,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "XDG_STATE_HOME": str(home / ".local/state"),
        "TMPDIR": str(inside.tmp),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "CI": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "GOENV": "off",
        "GOFLAGS": "",
        "NPM_CONFIG_USERCONFIG": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        GOAL_VARIABLE: spec.id,
    }
    if inside.hidden is not None:
        environment["GOALRUN_HIDDEN"] = str(inside.hidden)
    rustup = rustup_home(user)
    if rustup is not None:
        environment["RUSTUP_HOME"] = str(rustup)
    return environment | {name: user[name] for name in spec.verification.pass_env if name in user}


def rustup_home(user: Mapping[str, str]) -> Path | None:
    """Where rustup keeps its compilers: below HOME, which checks do not see."""
    with suppress(RuntimeError):
        folder = Path(user.get("RUSTUP_HOME") or Path.home() / ".rustup")
        return folder if folder.is_dir() else None
    return None


def path_for_checks(path: str, workspace: Path, deps: Iterable[str] = ()) -> tuple[str, tuple[str, ...]]:
    """The PATH for checks: the caller's, without what the worker could write to; and what was left out.

    Entries in dependencies stay: they are frozen.
    """
    frozen = [workspace / name for name in deps]
    kept: list[str] = []
    dropped: list[str] = []
    for entry in path.split(os.pathsep):
        if not entry.startswith("/"):
            continue
        inside = Path(os.path.realpath(entry)).is_relative_to(workspace) or Path(entry).is_relative_to(workspace)
        kept_anyway = any(Path(os.path.normpath(entry)).is_relative_to(folder) for folder in frozen)
        (dropped if inside and not kept_anyway else kept).append(entry)
    return os.pathsep.join(dict.fromkeys(kept)), tuple(dropped)

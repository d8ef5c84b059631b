"""The state folder: everything that goalrun keeps, outside every workspace, readable by its owner alone.

``goals/ID`` is a goal, ``locks`` are the claims on workspaces, ``log`` holds what bugs left.
"""

import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from goalrun.adapters.files import private_folder, remove_tree, sync_folder, write_whole
from goalrun.adapters.views import read_result
from goalrun.errors import EnvironmentFailure, SettingsError, UnknownGoal, UserError

FORMAT = "1"
MARKER = "goalrun-state"
GOAL_ID = re.compile(r"g-\d{8}-[a-z2-7]{9}")
_LETTERS = "234567abcdefghijklmnopqrstuvwxyz"
_TIME_LETTERS, _RANDOM_LETTERS = 5, 4
_HINT = "point GOALRUN_HOME at a folder of your own"


def home_folder() -> Path:
    """Where state lives: ``$GOALRUN_HOME``, else the platform's folder for user state."""
    named = os.environ.get("GOALRUN_HOME")
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    folder = Path(platformdirs.user_state_path("goalrun"))
    # macOS has one folder for configuration and state.
    return folder / "state" if sys.platform == "darwin" else folder


class Home:
    """One state folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.goals = path / "goals"

    def prepare(self) -> None:
        """Make the folder if it is missing.

        Raises:
            SettingsError: it is somebody else's, not writable, or of a newer goalrun.
        """
        try:
            self._refuse_other()
            private_folder(self.path).chmod(0o700)
            if not (self.path / MARKER).exists():
                write_whole(self.path / MARKER, FORMAT + "\n")
            private_folder(self.goals)
        except OSError as failure:
            why = failure.strerror or type(failure).__name__
            raise SettingsError(f"the state folder {self.path} cannot be used: {why}", hint=_HINT) from failure
        except EnvironmentFailure as failure:
            raise SettingsError(f"the state folder {self.path} is not writable: {failure}", hint=_HINT) from failure
        if not os.access(self.goals, os.W_OK):
            raise SettingsError(f"the state folder {self.path} is not writable", hint=_HINT)

    def _refuse_other(self) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise SettingsError(f"the state folder {self.path} is not a folder", hint=_HINT)
        if self.path.stat().st_uid != os.geteuid():
            raise SettingsError(f"the state folder {self.path} belongs to another user", hint=_HINT)
        marker = self.path / MARKER
        # Another goalrun may be making it now, or was killed while it did: its half-written marker is nobody else's.
        others = [path for path in self.path.iterdir() if not path.name.startswith(f".{MARKER}.")]
        if not marker.exists():
            if others:
                raise SettingsError(f"{self.path} is no goalrun state folder: it holds other files", hint=_HINT)
            return
        found = marker.read_text(encoding="utf-8", errors="replace").strip()
        if found != FORMAT:
            raise SettingsError(
                f"the state folder {self.path} was made by a newer goalrun (format {found[:20]!r})",
                hint="upgrade goalrun, or point GOALRUN_HOME at another folder",
            )

    def new_goal(self, now: datetime) -> str:
        """Make a goal's unfinished folder and return its id, which is never derived from anything that a user wrote.

        Ids sort by age: after the date come the time of day, in 2.6 ms, and then chance.
        """
        since_midnight = now - now.replace(hour=0, minute=0, second=0, microsecond=0)
        ticks = int(since_midnight.total_seconds() / 86_400 * len(_LETTERS) ** _TIME_LETTERS)
        digits = [_LETTERS[ticks // len(_LETTERS) ** place % len(_LETTERS)] for place in range(_TIME_LETTERS)]
        while True:
            chance = "".join(secrets.choice(_LETTERS) for _ in range(_RANDOM_LETTERS))
            goal = f"g-{now:%Y%m%d}-{''.join(reversed(digits))}{chance}"
            if self.folder(goal).exists():
                continue
            with suppress(FileExistsError):
                self.unfinished(goal).mkdir(mode=0o700)
                return goal

    def unfinished(self, goal: str) -> Path:
        """The folder of a goal that is being made, or removed: it is none yet, or no more."""
        return self.goals / f".{goal}"

    def appear(self, goal: str) -> None:
        """Make a goal of what lies in its unfinished folder: all of it at once."""
        self.unfinished(goal).rename(self.folder(goal))
        sync_folder(self.goals)

    def ids(self) -> list[str]:
        """Every goal, newest first."""
        with suppress(FileNotFoundError):
            return sorted((path.name for path in self.goals.iterdir() if GOAL_ID.fullmatch(path.name)), reverse=True)
        return []

    def folder(self, goal: str) -> Path:
        """A goal's folder."""
        return self.goals / goal

    def find(self, name: str, workspace: Path | None) -> str:
        """The goal that a user means: an id, a unique prefix of one, or "" for the newest of the workspace.

        Raises:
            UnknownGoal: there is none, or more than one.
        """
        if not name:
            return self._newest_of(workspace)
        known = self.ids()
        found = [goal for goal in known if goal == name]
        found = found or [goal for goal in known if goal.startswith((name, f"g-{name}"))]
        if not found:
            raise UnknownGoal(f"there is no goal {name!r}", hint="goalrun list shows all")
        if len(found) > 1:
            raise UnknownGoal(f"{name!r} is ambiguous: {', '.join(sorted(found)[:5])}", hint="give more of the id")
        return found[0]

    def _newest_of(self, workspace: Path | None) -> str:
        for result in self.results():
            if workspace is not None and result.get("workspace") == str(workspace):
                return str(result["id"])
        raise UnknownGoal(
            f"there is no goal of {workspace} yet", hint="goalrun start OBJECTIVE; goalrun list shows all"
        )

    def result(self, goal: str) -> dict[str, Any]:
        """A goal's result as JSON; see ``views.read_result``."""
        return read_result(self.folder(goal))

    def results(self) -> Iterator[dict[str, Any]]:
        """All results, newest first; a goal that cannot be read says so in its place."""
        for goal in self.ids():
            try:
                yield self.result(goal)
            except (EnvironmentFailure, UserError) as failure:
                yield {"schema": 1, "id": goal, "state": "error", "detail": str(failure), "unreadable": True}

    def remove(self, goal: str) -> None:
        """Remove a goal with all that belongs to it; it is gone at once, also if this process is killed meanwhile."""
        self.folder(goal).rename(self.unfinished(goal))
        remove_tree(self.unfinished(goal))

    def forget_unfinished(self) -> None:
        """Remove what killed processes were making or removing; what a living one makes stays."""
        from goalrun.adapters.lock import RunLock

        for folder in self.goals.glob(".g-*"):
            lock = RunLock(folder)
            if lock.acquire():
                remove_tree(folder)
                lock.release()

"""The state folder: everything that goalrun keeps, outside every workspace, readable by its owner alone.

``goals/ID`` is a goal, ``workspaces`` says which goals each workspace has, ``locks`` are the claims on workspaces,
``log`` holds what bugs left.
"""

import hashlib
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from goalrun.adapters.files import private_folder, remove_tree, sync_folder, write_whole
from goalrun.adapters.points import reached
from goalrun.adapters.views import read_result
from goalrun.errors import EnvironmentFailure, SettingsError, UnknownGoal, UserError, WorkspaceBusy, meant

FORMAT = "1"
MARKER = "goalrun-state"
REMOVED = ".removed-"
MOST_MEANT = 500
"""Goals, the newest, among which a misspelt id is looked for."""
GOAL_ID = re.compile(r"[fg]-\d{8}-[a-z2-7]{9}")
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
        self._workspaces = path / "workspaces"

    def prepare(self) -> None:
        """Make the folder if it is missing.

        Raises:
            SettingsError: it is somebody else's, not writable, or of a newer goalrun.
        """
        try:
            self.refuse_other()
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

    def refuse_other(self) -> None:
        """Refuse a folder that is not for this program, also not to read.

        Raises:
            SettingsError: it is somebody else's, or of a newer goalrun.
        """
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

    def new_goal(self, now: datetime, workspace: Path, letter: str = "g") -> str:
        """Make a goal's unfinished folder, known as one of its workspace, and return its id.

        The id is never derived from anything that a user wrote.

        Ids sort by age; see ``new_id``.
        """
        while True:
            goal = new_id(now, letter)
            if self.folder(goal).exists():
                continue
            with suppress(FileExistsError):
                self.begin(goal, workspace)
                return goal

    def begin(self, goal: str, workspace: Path) -> None:
        """Make the unfinished folder of a goal whose id is known.

        Raises:
            FileExistsError: it is there.
        """
        self.unfinished(goal).mkdir(mode=0o700)
        try:
            self._mark(goal, workspace)
        except (OSError, EnvironmentFailure) as failure:
            self.unfinished(goal).rmdir()
            why = failure.strerror if isinstance(failure, OSError) else failure
            raise EnvironmentFailure(f"cannot make a goal in {self.path}: {why}") from failure

    def _mark(self, goal: str, workspace: Path) -> None:
        """Make durable that a workspace has a goal. Its folder is there already: a mark without one is swept away."""
        folder = private_folder(self._marks(workspace))
        (folder / goal).touch(mode=0o600)
        for changed in (folder, self._workspaces, self.path, self.goals):
            sync_folder(changed)

    def _marks(self, workspace: Path) -> Path:
        """The folder of a workspace's marks: empty files, named as its goals."""
        return self._workspaces / hashlib.sha256(os.fsencode(workspace)).hexdigest()

    def unfinished(self, goal: str) -> Path:
        """The folder of a goal that is being made: it is none yet."""
        return self.goals / f".{goal}"

    def appear(self, goal: str) -> None:
        """Make a goal of what lies in its unfinished folder: all of it at once."""
        self.unfinished(goal).rename(self.folder(goal))
        sync_folder(self.goals)

    def ids(self) -> list[str]:
        """Every goal, newest first."""
        return _goals_in(self.goals)

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
        found = found or [goal for goal in known if goal.startswith((name, f"g-{name}", f"f-{name}"))]
        if not found:
            raise UnknownGoal(
                f"there is no goal {name!r}", hint=meant(name, known[:MOST_MEANT], "goalrun list shows all", cutoff=0.7)
            )
        if len(found) > 1:
            raise UnknownGoal(f"{name!r} is ambiguous: {', '.join(sorted(found)[:5])}", hint="give more of the id")
        return found[0]

    def _newest_of(self, workspace: Path | None) -> str:
        for goal in _goals_in(self._marks(workspace)) if workspace is not None else ():
            # One that is gone, or was never begun, cannot be read either.
            with suppress(EnvironmentFailure, UserError):
                self.result(goal, turns=False)
                return goal
        raise UnknownGoal(
            f"there is no goal of {workspace} yet", hint="goalrun start OBJECTIVE; goalrun list shows all"
        )

    def result(self, goal: str, *, turns: bool = True) -> dict[str, Any]:
        """A goal's result as JSON; see ``views.read_result``.

        Raises:
            UnknownGoal: it was removed meanwhile.
        """
        return read_result(self.folder(goal), turns=turns)

    def results(self, goals: Iterable[str], *, turns: bool = True) -> Iterator[dict[str, Any]]:
        """The results of some goals; one that cannot be read says so in its place."""
        for goal in goals:
            try:
                yield self.result(goal, turns=turns)
            except UnknownGoal:
                continue
            except (EnvironmentFailure, UserError) as failure:
                yield {"schema": 1, "id": goal, "state": "error", "detail": str(failure), "unreadable": True}

    def remove(self, goal: str) -> bool:
        """Remove a goal with all that belongs to it; False if another command has it in its hands."""
        with self.removing():
            return self.set_aside(goal)

    @contextmanager
    def removing(self) -> Iterator[None]:
        """Be the only one that removes goals; at the end, what is set aside goes, also by a goalrun that died."""
        from goalrun.adapters.lock import held

        with held(private_folder(self.path / "locks") / "removing", lambda: None):
            yield
            # Durable before anything of a goal is removed: half of one must never be back among the others.
            sync_folder(self.goals)
            for folder in self.goals.glob(f"{REMOVED}*"):
                remove_tree(folder)
            self._forget_unfinished()
            for mark in self._workspaces.glob("*/*"):
                if not self.unfinished(mark.name).exists() and not self.folder(mark.name).exists():
                    mark.unlink()

    def _forget_unfinished(self) -> None:
        """Remove what killed processes were making; what a living one makes stays."""
        from goalrun.adapters.lock import only_runner

        for folder in self.goals.glob(".[fg]-*"):
            with suppress(WorkspaceBusy, UnknownGoal), only_runner(folder):
                remove_tree(folder)

    def set_aside(self, goal: str) -> bool:
        """Take a goal out of all that looks for goals, whole and at once.

        Returns:
            False if another command has it in its hands.

        Raises:
            EnvironmentFailure: it cannot be moved.
        """
        # Slow to import, and `status` comes by here.
        from goalrun.adapters.lock import only_runner

        try:
            with only_runner(self.folder(goal)):
                self.folder(goal).rename(self.goals / f"{REMOVED}{goal}")
                reached("goal removed")
        except WorkspaceBusy:
            return False
        except UnknownGoal:
            # Somebody else was faster.
            return True
        except OSError as failure:
            raise EnvironmentFailure(f"cannot remove goal {goal}: {failure.strerror}") from failure
        return True


def new_id(now: datetime, letter: str = "g") -> str:
    """An id that sorts by age: after the date come the time of day, in 2.6 ms, and then chance."""
    since_midnight = now - now.replace(hour=0, minute=0, second=0, microsecond=0)
    ticks = int(since_midnight.total_seconds() / 86_400 * len(_LETTERS) ** _TIME_LETTERS)
    digits = [_LETTERS[ticks // len(_LETTERS) ** place % len(_LETTERS)] for place in range(_TIME_LETTERS)]
    chance = "".join(secrets.choice(_LETTERS) for _ in range(_RANDOM_LETTERS))
    return f"{letter}-{now:%Y%m%d}-{''.join(reversed(digits))}{chance}"


def _goals_in(folder: Path) -> list[str]:
    """The names in a folder that are ids, newest first."""
    with suppress(FileNotFoundError):
        names = filter(GOAL_ID.fullmatch, os.listdir(folder))  # noqa: PTH208 - no paths for 10,000
        return sorted(names, key=lambda name: name[1:], reverse=True)
    return []

"""What can go wrong, as one tree.

GoalrunError
├── UserError            the user can fix it; nothing was started             exit 2
│   ├── SettingsError    a configuration file or flag
│   ├── SpecError        the goal itself
│   ├── FlowError        a flow, or its file
│   ├── UnknownGoal      a goal id that is unknown or ambiguous
│   └── WorkspaceBusy    another goal holds the workspace                     exit 8
├── EnvironmentFailure   the machine failed; never a verdict, never a turn    exit 11
│   ├── GitFailed
│   ├── JournalCorrupt
│   └── ProcessFailure   a child could not be started, watched or recorded
└── Interrupted          somebody outside asked the goal to pause or stop, or its process to end

Anything else is a bug: exit 1, with the path of a log.
"""

from collections.abc import Iterable
from typing import Literal


class GoalrunError(Exception):
    """Every foreseen failure. ``str()`` is one line: what, why; ``hint`` is what to do next.

    Attributes:
        otherwise: what to do next where there is no hint.
    """

    exit_code = 11
    otherwise = "mend that, then try again, or goalrun resume; goalrun doctor says what works here"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UserError(GoalrunError):
    """The user can fix it; nothing was started."""

    exit_code = 2
    otherwise = "mend that, then try again; --help says what can be given"


class SettingsError(UserError):
    """A configuration file, a goal file or a flag is wrong."""


class SpecError(UserError):
    """The goal cannot be run as it was asked for."""


class FlowError(UserError):
    """A flow, or its file, is wrong.

    Attributes:
        found: all that is wrong, one line each; the message is the first of them.
    """

    def __init__(self, message: str, *, hint: str = "", found: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.found = found or (message,)


class UnknownGoal(UserError):
    """No goal, or more than one, answers to an id."""


class WorkspaceBusy(UserError):
    """Another live goal holds the workspace, a parent or a part of it."""

    exit_code = 8


class EnvironmentFailure(GoalrunError):
    """The machine failed. It is never a verdict and does not use up a turn."""


def of_the_system(failure: OSError) -> EnvironmentFailure:
    """What the operating system refused, as a failure of the machine."""
    place = f": {failure.filename}" if isinstance(failure.filename, str) else ""
    return EnvironmentFailure(
        f"{failure.strerror or failure}{place}", hint="make room, or mend the disk or its permissions, then try again"
    )


class GitFailed(EnvironmentFailure):
    """A git command that has to work did not."""


class JournalCorrupt(EnvironmentFailure):
    """A journal does not say what was written to it."""


class ProcessFailure(EnvironmentFailure):
    """A child process could not be started, watched or recorded."""


class Interrupted(GoalrunError):
    """Somebody outside asked the running goal to pause or to stop, or its process to end.

    Attributes:
        verb: what was asked; ``leave`` ends the process and leaves the goal interrupted.
    """

    exit_code = 130

    def __init__(self, verb: Literal["pause", "stop", "leave"], reason: str) -> None:
        super().__init__(reason)
        self.verb = verb


def meant(name: str, known: Iterable[str], otherwise: str, cutoff: float = 0.6) -> str:
    """A hint for a name that is unknown: the nearest of those that are known, else something else to do.

    Args:
        name: as it was written.
        known: what it could have been.
        otherwise: the hint where nothing is near.
        cutoff: from which likeness on, from 0 to 1, one is near.
    """
    # Slow to import, and needed only where something went wrong.
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else otherwise

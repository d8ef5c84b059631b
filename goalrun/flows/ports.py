"""What a flow needs of the world, as protocols."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from goalrun.core.flow.model import Result, Step
from goalrun.core.model import GoalState, Snapshot, VerificationReport
from goalrun.core.ports import Clock, OnProcess, Worker
from goalrun.core.spec import AgentSpec
from goalrun.core.value import JsonObject

Poll = Callable[[], None]
"""Raises ``Interrupted`` when something has to end."""
Heard = Callable[[JsonObject, Callable[[JsonObject], None], int], None]
"""Called with a message of a child process, what answers it, and its size in bytes."""
Listen = Callable[[Heard], AbstractContextManager[Mapping[str, str]]]
"""Listens to one child process; gives the variables by which that finds the way."""


class Files(Protocol):
    """The files of the workspace, or of a worktree of one member. May be used by several threads."""

    @property
    def folder(self) -> str:
        """Where they are."""
        ...

    def snapshot(self, label: str = "steps") -> Snapshot:
        """Keep them as they are, under a ref that the label names."""
        ...

    def bring(self, before: str, after: str) -> bool:
        """Make in them what happened between two trees; False, and nothing done, where something else is there now."""
        ...

    def merge(self, before: str, after: str) -> str:
        """The same, three-way where both changed; what is in conflict, and nothing done, or ""."""
        ...

    def diff(self, before: str, after: str) -> str:
        """What differs, as a bounded patch."""
        ...

    def lines(self, before: str, after: str) -> int:
        """How many lines differ; a file that is no text counts as one."""
        ...


class Desk(Protocol):
    """The files of the workspace, and worktrees beside it."""

    def workspace(self) -> Files:
        """Those that all steps share."""
        ...

    def worktree(self, name: str, tree: str) -> AbstractContextManager[Files]:
        """A folder of its own with these files, as a repository of one commit; it is removed afterwards."""
        ...


class Shelf(Protocol):
    """Words that are too long for a journal."""

    def put(self, place: str, result: Result) -> tuple[str, str]:
        """Keep a result durably once both texts are: where it is, or all of it, and its digest."""
        ...

    def get(self, place: str, digest: str) -> Result | None:
        """What was kept; None where it is not what it was."""
        ...


class FlowPorts(NamedTuple):
    """The world, as one flow sees it.

    Attributes:
        hire: an agent, or a command, as a worker in a folder; with ``writes`` False it may only read where that can
            be had.
        poll: raises ``Interrupted`` when the goal is asked to pause or stop.
        slots: one of so many on this machine, held while an agent runs.
        listen: for what a worker in Python asks.
        missing: why an agent cannot be started at all; "" where it can.
        verify: what the checks say of a snapshot.
    """

    hire: "Hire"
    missing: Callable[[AgentSpec], str]
    verify: "Verify"
    slots: "Slots"
    desk: Desk
    shelf: Shelf
    clock: Clock
    poll: Poll
    listen: Listen


class Hire(Protocol):
    """See ``FlowPorts``."""

    def __call__(self, agent: AgentSpec, folder: str, *, writes: bool, poll: Poll) -> Worker:
        """A worker; ``poll`` is called while it runs, and what it raises ends it."""
        ...


class Verify(Protocol):
    """See ``FlowPorts``."""

    def __call__(
        self, state: GoalState, step: Step, snapshot: Snapshot, label: str, on_process: OnProcess, poll: Poll
    ) -> VerificationReport:
        """Check a snapshot of a step's: with the step's checks, else with the goal's own.

        What is protected comes from the goal's base. May be used by several threads.

        Raises:
            EnvironmentFailure: the checks could not be run; this is no result.
        """
        ...


class Slots(Protocol):
    """See ``FlowPorts``."""

    def __call__(self, poll: Poll) -> AbstractContextManager[None]:
        """Wait for a slot."""
        ...


def both(first: Poll, second: Poll) -> Poll:
    """What raises where either does."""

    def poll() -> None:
        first()
        second()

    return poll

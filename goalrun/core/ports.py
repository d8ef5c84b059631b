"""What the loop needs of the world: small protocols in our own values."""

from collections.abc import Callable
from datetime import datetime
from typing import Literal, Protocol

from goalrun.core.events import Event, Record
from goalrun.core.model import (
    GoalState,
    Judgement,
    ProcessIdentity,
    Snapshot,
    VerificationReport,
    WorkerReport,
)

OnProcess = Callable[[Literal["worker", "check", "judge"], ProcessIdentity], None]
"""Called with a process that is ready to run and waits until the call returns."""


class Clock(Protocol):
    """Time. ``sleep`` returns early, by raising, when the goal is asked to pause or stop."""

    def now(self) -> datetime:
        """The time of day, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...


class Journal(Protocol):
    """The append-only record of a goal."""

    def append(self, event: Event, state: GoalState) -> tuple[Record, GoalState]:
        """Make the event durable; when this returns it cannot be lost. The state is the one that follows."""
        ...


class Store(Protocol):
    """The goal's own repository."""

    def snapshot(self, label: str) -> Snapshot:
        """Commit the whole workspace as it is, under a ref named by the label."""
        ...

    def take_turn(self, label: str, *, restore: bool) -> Snapshot:
        """The snapshot of a turn; with ``restore`` protected paths are first put back as in the base."""
        ...

    def diff(self, snapshot: Snapshot, limit: int) -> str:
        """What differs from the base, as a patch of at most about ``limit`` characters."""
        ...


class Worker(Protocol):
    """Anything that does a prompt."""

    def run(self, prompt: str, turn: int, attempt: int, timeout: float, on_process: OnProcess) -> WorkerReport:
        """Run one turn; when this returns no process of the worker is left.

        Raises:
            WorkerUnavailable: it could not be run at all.
            Interrupted: the goal was asked to pause or stop; the worker is gone.
        """
        ...


class Verifier(Protocol):
    """Runs the checks where the worker cannot reach them."""

    def verify_base(self, snapshot: Snapshot, on_process: OnProcess) -> VerificationReport:
        """Check the base, and note what later turns are measured against. Raises as ``verify`` does."""
        ...

    def verify(self, snapshot: Snapshot, label: str, on_process: OnProcess) -> VerificationReport:
        """Check exactly this snapshot.

        Raises:
            EnvironmentFailure: the checks could not be run; this is no result.
            Interrupted: the goal was asked to pause or stop.
        """
        ...


class Judge(Protocol):
    """Answers whether the goal is reached, from a brief alone."""

    def judge(self, brief: str, label: str, nonce: str, on_process: OnProcess) -> Judgement:
        """Ask for a verdict that echoes the nonce.

        Raises:
            JudgeUnavailable: it could not be asked, or gave no readable answer, after its retries.
            Interrupted: the goal was asked to pause or stop.
        """
        ...


class Control(Protocol):
    """What people ask of a running goal from other shells."""

    def check(self) -> None:
        """Raise ``Interrupted`` if the goal is to pause or stop now."""
        ...

    def hints(self) -> tuple[str, ...]:
        """The hints that were given and not forgotten yet, oldest first."""
        ...

    def forget_hints(self, count: int) -> None:
        """Take the oldest hints away, once they are recorded."""
        ...

    def pause_after_turn(self) -> bool:
        """Whether the goal is to pause before its next turn; asking answers the request."""
        ...


class Reporter(Protocol):
    """Shows progress to a person."""

    def show(self, record: Record, state: GoalState) -> None:
        """Called after each record, with the state that it led to."""
        ...

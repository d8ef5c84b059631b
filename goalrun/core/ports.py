"""What the loop needs of the world: small protocols in our own values."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from goalrun.core.events import Event, Record
from goalrun.core.model import (
    GoalState,
    Judgement,
    ProcessIdentity,
    Session,
    Snapshot,
    Stop,
    Usage,
    VerificationReport,
    WorkerReport,
)
from goalrun.errors import EnvironmentFailure, GoalrunError

WORKER_TEXT_CHARS = 16_000
OnProcess = Callable[[Literal["worker", "check", "judge"], ProcessIdentity], None]
"""Called with a process that is ready to run and waits until the call returns."""


class Note(Protocol):
    """Makes events of the goal durable, all of them or none."""

    def __call__(self, *events: Event) -> None:
        """When this returns, they cannot be lost."""
        ...


class AgentFailure(EnvironmentFailure):
    """An agent could not do what it was asked for; that says nothing about the goal.

    Attributes:
        kind: ``limited`` by its provider; ``refused``, as its credentials were; ``failed`` for any other reason.
        usage: what it spent all the same; None is unknown.
        reset: when the limit ends, in seconds since the epoch; None where nobody says.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        kind: Literal["limited", "refused", "failed"] = "failed",
        usage: Usage | None = None,
        reset: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.usage = usage
        self.reset = reset


class Task(NamedTuple):
    """What a worker is asked for.

    Attributes:
        attempt: how often this turn was begun.
        timeout: seconds.
        session: the agent's last one.
        usd: what remains of the limit; None without one.
        state: the goal as it stands; with ``note``, for a worker that is more than one call.
        note: records what such a worker does.
        place: folder below the turn's for all that is kept of this run; "" for the worker's own.
        chars: how much of its text is wanted.
        env: variables beside the worker's own.
        idle: seconds without output after which it is ended.
    """

    prompt: str
    turn: int
    attempt: int
    timeout: float
    session: Session | None = None
    usd: float | None = None
    state: GoalState | None = None
    note: Note | None = None
    place: str = ""
    chars: int = WORKER_TEXT_CHARS
    env: Mapping[str, str] = {}
    idle: float = math.inf


class AnswerNeeded(GoalrunError):
    """A worker cannot go on before a person has answered; ``key`` is what the answer is recorded under."""

    def __init__(self, question: str, key: str) -> None:
        super().__init__(question)
        self.key = key


class LimitReached(GoalrunError):
    """A limit of the goal's is reached in the middle of a worker's turn, which can be taken up again."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.detail)
        self.stop = stop


class Clock(Protocol):
    """Time. ``sleep`` and ``idle`` return early, by raising, when the goal is asked to pause or stop."""

    def now(self) -> datetime:
        """The time of day, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...

    def idle(self, seconds: float) -> None:
        """Let time pass that ``monotonic`` does not count: nothing of the goal runs meanwhile."""
        ...


class Journal(Protocol):
    """The append-only record of a goal."""

    def append_all(self, events: Sequence[Event], state: GoalState) -> Sequence[tuple[Record, GoalState]]:
        """Make events durable, all or none: when this returns they cannot be lost.

        Returns:
            Their records, each with the state that it leads to.
        """
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

    @property
    def name(self) -> str:
        """The agent's."""
        ...

    def run(self, task: Task, on_process: OnProcess) -> WorkerReport:
        """Run one turn; when this returns no process of the worker is left.

        Raises:
            AgentFailure: it could not be run at all, or its provider failed it.
            AnswerNeeded: a person has to answer first.
            Interrupted: the goal was asked to pause or stop; the worker is gone.
        """
        ...

    def cut(self, turn: int, attempt: int, before: Session | None) -> tuple[Usage | None, Session | None]:
        """What is known of a run that did not come to its end: what it spent, and the session to go on with.

        Args:
            turn: of the run.
            attempt: of the turn.
            before: the agent's session at that time.
        """
        ...

    def try_out(self, command: str, turn: int, on_process: OnProcess) -> bool:
        """Whether a command that the worker waits for succeeds now, run as the worker is."""
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

    @property
    def name(self) -> str:
        """The agent's."""
        ...

    def judge(self, brief: str, label: str, nonce: str, on_process: OnProcess) -> Judgement:
        """Ask for a verdict that echoes the nonce.

        Raises:
            AgentFailure: it could not be asked, or gave no readable answer, after its retries.
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

"""What the journal records: one value per fact, named by what happened.

A record is durable before it is acted on. ``at`` is UTC in ISO format; ``elapsed`` is the running time in
seconds since the last ``RunStarted``, so that time limits can count running time only.
"""

from typing import Annotated, Literal

from pydantic import Field

from goalrun.core.model import (
    GoalSpec,
    Judgement,
    Limits,
    ProcessIdentity,
    Snapshot,
    State,
    TurnRecord,
    Value,
    VerificationReport,
    WorkerReport,
)


class GoalCreated(Value):
    """The goal exists; nothing has run."""

    kind: Literal["goal_created"] = "goal_created"
    spec: GoalSpec


class RunStarted(Value):
    """A process took the goal up: at the start, and at every resume.

    Attributes:
        limits: the limits from now on, when a resume changed them.
        worker_isolation: ``namespaces``, or why it is only ``supervisor``.
    """

    kind: Literal["run_started"] = "run_started"
    runner: ProcessIdentity
    limits: Limits | None = None
    worker_isolation: str = ""


class BaseTaken(Value):
    """The snapshot of the workspace before turn 1."""

    kind: Literal["base_taken"] = "base_taken"
    snapshot: Snapshot


class BaseVerified(Value):
    """The checks on the base. ``achieved`` says that nothing is left to do."""

    kind: Literal["base_verified"] = "base_verified"
    report: VerificationReport
    judgement: Judgement | None = None
    achieved: bool = False
    detail: str = ""


class TurnStarted(Value):
    """A turn begins, or begins again after it was cut."""

    kind: Literal["turn_started"] = "turn_started"
    turn: int
    attempt: int
    hints: tuple[str, ...] = ()


class ProcessStarted(Value):
    """A process is about to run for this goal: it waits until this record is durable."""

    kind: Literal["process_started"] = "process_started"
    role: Literal["worker", "check", "judge"]
    process: ProcessIdentity


class WorkerFailed(Value):
    """The worker could not be run: an infrastructure failure, which uses up no turn."""

    kind: Literal["worker_failed"] = "worker_failed"
    turn: int
    reason: str


class TurnInterrupted(Value):
    """A turn was cut by a crash, a pause or a stop; its edits are in the snapshot."""

    kind: Literal["turn_interrupted"] = "turn_interrupted"
    turn: int
    reason: str
    snapshot: Snapshot


class WorkerEnded(Value):
    """The worker is gone: it is not run, or paid for, again, whatever becomes of the snapshot."""

    kind: Literal["worker_ended"] = "worker_ended"
    turn: int
    report: WorkerReport


class WorkerFinished(Value):
    """What the worker left is a snapshot."""

    kind: Literal["worker_finished"] = "worker_finished"
    turn: int
    report: WorkerReport
    snapshot: Snapshot


class VerificationFinished(Value):
    """The checks of a turn are over."""

    kind: Literal["verification_finished"] = "verification_finished"
    turn: int
    report: VerificationReport


class JudgementFinished(Value):
    """The judge has answered."""

    kind: Literal["judgement_finished"] = "judgement_finished"
    turn: int
    judgement: Judgement


class TurnFinished(Value):
    """A turn is over and decided. ``record.decision`` is ``continue`` or the state that the goal ends in."""

    kind: Literal["turn_finished"] = "turn_finished"
    record: TurnRecord


class GoalStopped(Value):
    """The goal ends for a reason that is not a turn's decision: asked to, or infrastructure failed."""

    kind: Literal["goal_stopped"] = "goal_stopped"
    state: State
    detail: str


Event = (
    GoalCreated
    | RunStarted
    | BaseTaken
    | BaseVerified
    | TurnStarted
    | ProcessStarted
    | WorkerFailed
    | TurnInterrupted
    | WorkerEnded
    | WorkerFinished
    | VerificationFinished
    | JudgementFinished
    | TurnFinished
    | GoalStopped
)


class Record(Value):
    """One event in its place in the journal. ``seq`` counts from 1."""

    seq: int = Field(ge=1)
    at: str
    elapsed: float = Field(default=0.0, ge=0)
    event: Annotated[Event, Field(discriminator="kind")]

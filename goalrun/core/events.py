"""What the journal records: one value per fact, named by what happened.

A record is durable before it is acted on. ``at`` is UTC in ISO format; ``elapsed`` is the running time in
seconds since the last ``RunStarted``, so that time limits can count running time only.
"""

from typing import Annotated, Literal

from pydantic import Field

from goalrun.core.model import (
    CallRecord,
    Judgement,
    ProcessIdentity,
    Session,
    Snapshot,
    State,
    StepRecord,
    TurnRecord,
    Usage,
    VerificationReport,
    WorkerReport,
)
from goalrun.core.spec import FlowUse, GoalSpec, Limits
from goalrun.core.value import Value


class OfTurn(Value):
    """Something of the open turn; ``turn`` is its number, from 1."""

    turn: int


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


class TurnStarted(OfTurn):
    """A turn begins, or begins again after it was cut. ``agent`` is asked; old journals do not name it."""

    kind: Literal["turn_started"] = "turn_started"
    attempt: int
    agent: str = ""
    hints: tuple[str, ...] = ()


class ProcessStarted(Value):
    """A process is about to run for this goal: it waits until this record is durable."""

    kind: Literal["process_started"] = "process_started"
    role: Literal["worker", "check", "judge"]
    process: ProcessIdentity


class AgentFailed(Value):
    """An agent could not do what it was asked for: an infrastructure failure, which uses up no turn.

    Attributes:
        usage: what it spent all the same; None is unknown.
        until: when it may be asked again, if a provider's limit was the reason (ISO 8601).
    """

    kind: Literal["agent_failed"] = "agent_failed"
    role: Literal["worker", "judge"]
    agent: str
    reason: str
    usage: Usage | None = None
    until: str = ""


class QuotaWait(Value):
    """Nobody can be asked until then: the goal waits, and spends nothing."""

    kind: Literal["quota_wait"] = "quota_wait"
    until: str
    detail: str


class QuotaOver(Value):
    """The wait is over."""

    kind: Literal["quota_over"] = "quota_over"


class TurnInterrupted(OfTurn):
    """A turn was cut by a crash, a pause, a stop or a failing agent; its edits are in the snapshot.

    Attributes:
        usage: of the cut run, where nothing else records it; None is unknown.
        session: to go on with, as its output names it.
    """

    kind: Literal["turn_interrupted"] = "turn_interrupted"
    reason: str
    snapshot: Snapshot
    usage: Usage | None = None
    session: Session | None = None


class TurnParked(OfTurn):
    """The worker waits for something outside; the turn goes on, with a new run of the worker, when that is over."""

    kind: Literal["turn_parked"] = "turn_parked"
    report: WorkerReport
    snapshot: Snapshot


class _OfStep(OfTurn):
    """Something of a step of a flow; ``path`` is the step, with item and member where there are several."""

    path: str


class CallStarted(_OfStep):
    """A flow is about to pay for a call: an agent, or a command.

    Attributes:
        key: what the call is recognised by; ``number`` counts calls with equal keys.
        spends: whether tokens are spent; a plain command spends none.
        asks: a person has to say what becomes of it, where it was cut.
    """

    kind: Literal["call_started"] = "call_started"
    key: str
    number: int
    agent: str = ""
    spends: bool = True
    asks: bool = False


class CallFinished(_OfStep):
    """What came of it; what is done is not done, or paid for, again."""

    kind: Literal["call_finished"] = "call_finished"
    key: str
    number: int
    call: CallRecord


class StepSettled(_OfStep):
    """A step of a flow is over, or will not be run."""

    kind: Literal["step_settled"] = "step_settled"
    step: StepRecord


class FlowTold(Value):
    """A worker in Python says something: a phase that begins, or a line for the log. It changes nothing when late."""

    kind: Literal["flow_told"] = "flow_told"
    turn: int
    path: str
    what: Literal["phase", "log"]
    text: str


class Answered(Value):
    """A person's answer to what a step asks."""

    kind: Literal["answered"] = "answered"
    key: str
    text: str


class FlowReplaced(Value):
    """The flow was read again from its file; no process ran the goal."""

    kind: Literal["flow_replaced"] = "flow_replaced"
    flow: FlowUse


class WorkerEnded(OfTurn):
    """The worker is gone: it is not run, or paid for, again, whatever becomes of the snapshot."""

    kind: Literal["worker_ended"] = "worker_ended"
    report: WorkerReport


class WorkerFinished(OfTurn):
    """What the worker left is a snapshot."""

    kind: Literal["worker_finished"] = "worker_finished"
    report: WorkerReport
    snapshot: Snapshot


class VerificationFinished(OfTurn):
    """The checks of a turn are over."""

    kind: Literal["verification_finished"] = "verification_finished"
    report: VerificationReport


class JudgementFinished(OfTurn):
    """The judge has answered."""

    kind: Literal["judgement_finished"] = "judgement_finished"
    judgement: Judgement


class TurnFinished(Value):
    """A turn is over and decided. ``record.decision`` is ``continue`` or the state that the goal ends in."""

    kind: Literal["turn_finished"] = "turn_finished"
    record: TurnRecord


class GoalStopped(Value):
    """The goal ends for a reason that is not a turn's decision: asked to, or infrastructure failed.

    Attributes:
        question: key of what a person has to answer, where it waits for that.
    """

    kind: Literal["goal_stopped"] = "goal_stopped"
    state: State
    detail: str
    question: str = ""


Event = (
    GoalCreated
    | RunStarted
    | BaseTaken
    | BaseVerified
    | TurnStarted
    | ProcessStarted
    | AgentFailed
    | QuotaWait
    | QuotaOver
    | TurnInterrupted
    | TurnParked
    | CallStarted
    | CallFinished
    | StepSettled
    | FlowTold
    | Answered
    | FlowReplaced
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

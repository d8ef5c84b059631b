"""The values of a goal. All are frozen; an unknown field is an error; ``None`` means unknown, never zero."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Literal, Self, TypeVar

from pydantic import Field, model_validator

from goalrun.core.flow.model import Status
from goalrun.core.spec import GoalSpec
from goalrun.core.value import Value

Number = TypeVar("Number", int, float)


class State(StrEnum):
    """Where a goal stands. ``interrupted`` is not one: it is a running goal whose process is dead.

    ``done`` and ``failed`` are how a run of a flow ends.
    """

    RUNNING = "running"
    ACHIEVED = "achieved"
    MAX_TURNS = "max_turns"
    BUDGET_EXCEEDED = "budget_exceeded"
    STUCK = "stuck"
    BLOCKED = "blocked"
    STOPPED = "stopped"
    WAITING = "waiting"
    RATE_LIMITED = "rate_limited"
    ERROR = "error"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"


EXIT_CODES: Mapping[State, int] = {
    State.ACHIEVED: 0,
    State.MAX_TURNS: 3,
    State.BUDGET_EXCEEDED: 4,
    State.STUCK: 5,
    State.BLOCKED: 6,
    State.STOPPED: 7,
    State.WAITING: 9,
    State.RATE_LIMITED: 10,
    State.ERROR: 11,
    State.PAUSED: 130,
    State.DONE: 0,
    State.FAILED: 14,
}


def total(parts: Iterable[Number | None]) -> Number | None:
    """The sum of some numbers; None where one is unknown."""
    every = list(parts)
    known = [part for part in every if part is not None]
    return sum(known) if len(known) == len(every) else None


class Usage(Value):
    """What was spent. ``seconds`` is running time; the rest is ``None`` where nobody reported it."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    usd: float | None = None
    seconds: float = 0.0

    def plus(self, other: "Usage") -> "Usage":
        """Both together; unknown in either is unknown in the sum."""
        return Usage(
            input_tokens=total((self.input_tokens, other.input_tokens)),
            output_tokens=total((self.output_tokens, other.output_tokens)),
            total_tokens=total((self.total_tokens, other.total_tokens)),
            usd=total((self.usd, other.usd)),
            seconds=self.seconds + other.seconds,
        )

    def minus(self, before: "Usage") -> "Usage":
        """What came after an earlier count; where that was more, the count began anew."""
        return Usage(
            input_tokens=_rest(self.input_tokens, before.input_tokens),
            output_tokens=_rest(self.output_tokens, before.output_tokens),
            total_tokens=_rest(self.total_tokens, before.total_tokens),
            usd=_rest(self.usd, before.usd),
            seconds=self.seconds,
        )


def _rest(now: Number | None, before: Number | None) -> Number | None:
    if now is None or before is None:
        return None
    return now - before if now >= before else now


NOTHING_SPENT = Usage(input_tokens=0, output_tokens=0, total_tokens=0, usd=0.0)


class ProcessIdentity(Value):
    """A process that cannot be confused with another one that got its pid later.

    Attributes:
        start: the process's start time in the kernel's own unit; only equality means anything.
        boot: identity of the boot that the start time belongs to.
        host: the machine's name.
    """

    pid: int = Field(gt=0)
    start: str
    boot: str
    host: str


class Snapshot(Value):
    """The whole workspace as one commit in the goal's store.

    Attributes:
        changed_files: how many files differ from the snapshot before it.
        diff_files: how many files differ from the base.
        protected_edits: edits of protected paths that this snapshot no longer holds, because they were put
            back into the workspace (``protected_edits = "restore"``).
        warnings: what a reader should know of it, one line each.
    """

    commit: str
    tree: str
    changed_files: int = 0
    diff_files: int = 0
    protected_edits: tuple["Tamper", ...] = ()
    warnings: tuple[str, ...] = ()


class Tamper(Value):
    """One edit of something that the worker may not change. ``path`` is escaped for display."""

    path: str
    kind: Literal["modified", "deleted", "added", "shadow", "forged", "escaped"]


class Session(Value):
    """What an agent can go on with.

    Attributes:
        usage: what the agent says of the whole session, where it counts like that.
        cached: how many of those input tokens came from a cache.
    """

    id: str
    usage: Usage | None = None
    cached: int = 0


class StepRecord(Value):
    """What came of a step of a flow, of one item or of one member of it; ``kept`` and ``digest`` as of a call.

    Attributes:
        attempts: how often it was tried; 0 where nothing ran.
        cached: all of it was taken from before.
        why: why it could not be, where something like it was there.
        winner: which member's files were taken.
    """

    status: Status
    reason: str = ""
    attempts: int = 0
    cached: bool = False
    why: str = ""
    seconds: float = 0.0
    winner: str = ""
    kept: str = ""
    digest: str = ""


class WorkerReport(Value):
    """What became of one run of the worker.

    Attributes:
        agent: who did it.
        model: what the agent says that it asked.
        session: to go on with; None where the agent names none.
        denials: tools that the agent was not allowed to use.
        wait_for: what the worker asks goalrun to wait for before it goes on: a duration, or a command to succeed.
        text: the end of what it said, bounded and redacted.
        counted: its usage is in the goal's already, call by call.
        vetoed: why a gate of the worker's own says that this is not the goal; "" where none does.
        transcript: the folder, below the goal's own, that holds its whole output.
        steps: of a flow: what became of each step, item and member, by path; bounded.
        untied: processes that began meanwhile, work in the workspace and are left alone, because nothing shows that
            the worker started them.
    """

    outcome: Literal["ok", "failed", "timeout", "blocked"]
    exit_code: int | None = None
    seconds: float = 0.0
    usage: Usage | None = None
    counted: bool = False
    text: str = ""
    reason: str = ""
    vetoed: str = ""
    transcript: str = ""
    agent: str = ""
    model: str = ""
    session: Session | None = None
    denials: tuple[str, ...] = ()
    wait_for: str = ""
    steps: Mapping[str, StepRecord] = {}
    source: str = ""
    untied: tuple[str, ...] = ()


class CallRecord(Value):
    """What came of one call of a flow. Its words are JSON, ``kept``, or in that file, whose SHA-256 is ``digest``.

    Attributes:
        before: the tree that it began with; "" where files play no part.
        usage: what it spent; None is unknown.
        turn: the one that it was made in.
    """

    status: Status
    reason: str = ""
    seconds: float = 0.0
    agent: str = ""
    model: str = ""
    before: str = ""
    after: str = ""
    usage: Usage | None = None
    turn: int = 0
    kept: str = ""
    digest: str = ""


class Begun(Value):
    """A call that has begun and has no end yet; see ``CallStarted``."""

    path: str
    spends: bool = True
    asks: bool = False


class FlowProgress(Value):
    """What the journal knows of a goal's flow.

    Attributes:
        calls: what is done, by key and number.
        begun: what is not over.
        steps: how the steps of the last turn ended, by path.
        question: key of what waits for a person.
        answers: what people answered, by key.
    """

    calls: Mapping[str, CallRecord] = {}
    begun: Mapping[str, Begun] = {}
    steps: Mapping[str, StepRecord] = {}
    question: str = ""
    answers: Mapping[str, str] = {}


class TestCounts(Value):
    """Tests of one check, as its own report counts them."""

    __test__ = False  # not for pytest

    passed: int = Field(ge=0)
    failed: int = Field(ge=0)
    skipped: int = Field(ge=0)


class CheckResult(Value):
    """One check on one snapshot.

    Attributes:
        hidden: the worker is told nothing of it but that it failed.
        grade: ``weak`` where only the exit status speaks.
        failing: ids of failing tests, bounded.
        excerpt: the useful part of its output, bounded and redacted.
        output: the file, below the goal's folder, that holds the whole of it.
    """

    command: str
    outcome: Literal["pass", "fail", "timeout", "tampered", "error", "not_run"]
    grade: Literal["strong", "weak"] = "weak"
    exit_code: int | None = None
    seconds: float = 0.0
    tests: TestCounts | None = None
    reason: str = ""
    failing: tuple[str, ...] = ()
    excerpt: str = ""
    output: str = ""
    hidden: bool = False


class VerificationReport(Value):
    """All checks on one snapshot, and what was found tampered with.

    Attributes:
        floor: of the base: the digest of what later turns are measured against; "" where nothing was kept.
    """

    outcome: Literal["pass", "weak_pass", "fail", "tampered", "error"]
    checks: tuple[CheckResult, ...] = ()
    tampering: tuple[Tamper, ...] = ()
    seconds: float = 0.0
    sandbox: str
    floor: str = ""

    @property
    def green(self) -> bool:
        """Whether nothing stands in the way of ``achieved`` but a judge."""
        passed = self.outcome in {"pass", "weak_pass"} and all(check.outcome == "pass" for check in self.checks)
        return passed and not self.tampering


class Verdict(Value):
    """The judge's answer."""

    achieved: bool
    blocked: bool = False
    reason: str = ""

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if self.achieved and self.blocked:
            raise ValueError("achieved and blocked exclude each other")
        return self


class Judgement(Value):
    """The verdict with its provenance. ``brief`` and ``reply`` are files below the goal's folder."""

    verdict: Verdict
    judge: str
    attempts: int = 1
    seconds: float = 0.0
    usage: Usage | None = None
    brief: str = ""
    reply: str = ""


class TurnOutcome(Value):
    """Everything that a turn produced, before anything is decided."""

    turn: int = Field(ge=1)
    worker: WorkerReport
    snapshot: Snapshot
    verification: VerificationReport
    judgement: Judgement | None = None


class Continue(Value):
    """Run another turn. ``warning`` tells the worker that it is repeating itself, if it is."""

    reason: str
    warning: str = ""


class Stop(Value):
    """The goal ends here, in ``state``."""

    state: State
    detail: str


Decision = Continue | Stop


class TurnRecord(Value):
    """A turn that is over: its outcome, what was decided, and what the next turn is told."""

    outcome: TurnOutcome
    decision: str
    reason: str
    feedback: str = ""


class OpenTurn(Value):
    """A turn under way: what of it is already recorded and must not be done, or paid for, again.

    Attributes:
        agent: who was asked last.
        failed: why that agent could not do it; that is recorded, and what it left is not a snapshot yet.
        parks: how often its worker has asked to wait for something.
        wait_for: what it waits for now.
    """

    turn: int
    attempt: int = 1
    agent: str = ""
    launched: bool = False
    failed: str = ""
    interrupted: str = ""
    parks: int = 0
    wait_for: str = ""
    worker: WorkerReport | None = None
    snapshot: Snapshot | None = None
    verification: VerificationReport | None = None
    judgement: Judgement | None = None


class GoalState(Value):
    """The fold of a goal's journal.

    Attributes:
        best: the turn with the highest score, the earliest of equals; None before the first.
        usage: tokens and USD of worker and judge together; ``seconds`` is running time.
        sessions: the last one of each agent.
        limited: agents that hit a provider's limit, and when each may be asked again (ISO 8601).
        fresh_from: index of the first turn that counts for stuck detection (a resume starts afresh).
        judging: a judge was asked, and nothing of its answer, or of what it spent, is recorded yet.
        processes: identities journalled since the last run began, for reaping after a crash.
    """

    spec: GoalSpec
    status: State = State.RUNNING
    detail: str = ""
    worker_isolation: str = ""
    created_at: str = ""
    base: Snapshot | None = None
    base_verification: VerificationReport | None = None
    base_judgement: Judgement | None = None
    turns: tuple[TurnRecord, ...] = ()
    best: int | None = None
    open: OpenTurn | None = None
    usage: Usage = NOTHING_SPENT
    seconds_before: float = 0.0
    sessions: Mapping[str, Session] = {}
    limited: Mapping[str, str] = {}
    hints: tuple[str, ...] = ()
    feedback: str = ""
    fresh_from: int = 0
    judging: bool = False
    processes: tuple[ProcessIdentity, ...] = ()
    flow: FlowProgress = FlowProgress()

    @property
    def last_snapshot(self) -> Snapshot | None:
        """The newest recorded snapshot: of the open turn, else of the last one, else the base."""
        if self.open is not None and self.open.snapshot is not None:
            return self.open.snapshot
        return self.turns[-1].outcome.snapshot if self.turns else self.base

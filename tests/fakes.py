"""One fake for each port of ``goalrun.core.ports``: real behaviour in memory, and a log of what was asked of it.

The fakes share one log, so that a test can say in which order records were made and things were done.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

from values import GREEN, PROCESS, judged, snapshot, spent

from goalrun.core.events import Event, GoalCreated, Record, RunStarted
from goalrun.core.model import (
    NOTHING_SPENT,
    GoalState,
    Judgement,
    Session,
    Snapshot,
    State,
    Usage,
    VerificationReport,
    WorkerReport,
)
from goalrun.core.ports import AgentFailure, OnProcess, Task
from goalrun.core.replay import apply, fold
from goalrun.core.spec import GoalSpec, Limits
from goalrun.errors import GoalrunError
from goalrun.loop import GoalLoop, Ports

SECRET = "hunter2hunter2"  # noqa: S105 - bait for the redaction


Faults = list[GoalrunError | None]
"""What a fake raises, call by call; None lets one call pass."""


def fail(faults: Faults) -> None:
    fault = faults.pop(0) if faults else None
    if fault is not None:
        raise fault


class Killed(BaseException):
    """SIGKILL, as far as Python has one: nothing below the test may catch it."""


@dataclass
class FakeClock:
    slept: list[float] = field(default_factory=list)
    idled: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds

    def idle(self, seconds: float) -> None:
        self.idled.append(seconds)
        self.seconds += seconds


@dataclass
class FakeJournal:
    """Keeps records; ``kill_at`` dies instead of writing the record of that number."""

    log: list[str]
    records: list[Record] = field(default_factory=list)
    kill_at: int = 0

    def append(self, event: Event, state: GoalState | None) -> tuple[Record, GoalState]:
        if len(self.records) + 1 == self.kill_at:
            raise Killed
        record = Record(seq=len(self.records) + 1, at="2026-01-01T00:00:00.000+00:00", event=event)
        after = apply(state, record)
        self.records.append(Record.model_validate_json(record.model_dump_json()))
        self.log.append(event.kind)
        return record, after

    def append_all(self, events: Sequence[Event], state: GoalState) -> list[tuple[Record, GoalState]]:
        done = []
        for event in events:
            record, state = self.append(event, state)
            done.append((record, state))
        return done

    def kinds(self) -> list[str]:
        return [record.event.kind for record in self.records]


@dataclass
class FakeStore:
    """A workspace that is one word: its tree."""

    log: list[str]
    tree: str = "base"
    faults: Faults = field(default_factory=list)
    patch: str = "+ a line"

    def snapshot(self, label: str) -> Snapshot:
        self.log.append(f"snapshot {label}")
        fail(self.faults)
        return snapshot(self.tree)

    def take_turn(self, label: str, *, restore: bool) -> Snapshot:
        return self.snapshot(f"{label}{' restored' if restore else ''}")

    def diff(self, snapshot: Snapshot, limit: int) -> str:
        return f"{snapshot.tree}: {self.patch}"[:limit]


@dataclass
class FakeWorker:
    """Makes the tree ``tree-N`` in turn N; an ``AgentFailure`` that cost nothing strikes before it has begun."""

    log: list[str]
    store: FakeStore
    reports: Mapping[int, WorkerReport] = field(default_factory=dict)
    faults: Faults = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    name: str = "agent"
    tasks: list[Task] = field(default_factory=list)
    tries: list[bool] = field(default_factory=list)
    answers: list[WorkerReport] = field(default_factory=list)
    heard: tuple[Usage | None, Session | None] = (None, None)

    def run(self, task: Task, on_process: OnProcess) -> WorkerReport:
        named = "" if self.name == "agent" else f" {self.name}"
        self.log.append(f"worker {task.turn}.{task.attempt}{named}")
        self.prompts.append(task.prompt)
        self.tasks.append(task)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, AgentFailure) and fault.usage == NOTHING_SPENT:
            raise fault
        on_process("worker", PROCESS)
        self.store.tree = f"tree-{task.turn}"
        if fault is not None:
            raise fault
        if self.answers:
            return self.answers.pop(0)
        return self.reports.get(task.turn, WorkerReport(outcome="ok", exit_code=0, usage=spent(10), seconds=60))

    def cut(self, turn: int, attempt: int, before: Session | None) -> tuple[Usage | None, Session | None]:
        self.log.append(f"cut {turn}.{attempt} {before.id if before is not None else 'fresh'}")
        return self.heard

    def try_out(self, command: str, turn: int, on_process: OnProcess) -> bool:
        on_process("check", PROCESS)
        self.log.append(f"try {turn} {command}")
        return self.tries.pop(0)


@dataclass
class FakeVerifier:
    """Green, except for the trees that it was told of."""

    log: list[str]
    reports: Mapping[str, VerificationReport] = field(default_factory=dict)
    faults: Faults = field(default_factory=list)

    def verify_base(self, snapshot: Snapshot, on_process: OnProcess) -> VerificationReport:
        return self.verify(snapshot, "base", on_process)

    def verify(self, snapshot: Snapshot, label: str, on_process: OnProcess) -> VerificationReport:
        self.log.append(f"verify {label}")
        on_process("check", PROCESS)
        fail(self.faults)
        return self.reports.get(snapshot.tree, GREEN)


@dataclass
class FakeJudge:
    """Satisfied, except for what it was told of, by label."""

    log: list[str]
    answers: Mapping[str, Judgement] = field(default_factory=dict)
    faults: Faults = field(default_factory=list)
    briefs: list[str] = field(default_factory=list)
    name: str = "judge"

    def judge(self, brief: str, label: str, nonce: str, on_process: OnProcess) -> Judgement:
        self.log.append(f"judge {label}")
        self.briefs.append(brief)
        assert nonce in brief
        on_process("judge", PROCESS)
        fail(self.faults)
        return self.answers.get(label, judged(achieved=True, usage=spent(1)))


@dataclass
class FakeControl:
    given: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=list)
    step: bool = False

    def check(self) -> None:
        fail(self.faults)

    def hints(self) -> tuple[str, ...]:
        return tuple(self.given)

    def forget_hints(self, count: int) -> None:
        del self.given[:count]

    def pause_after_turn(self) -> bool:
        asked, self.step = self.step, False
        return asked


@dataclass
class FakeReporter:
    shown: list[tuple[int, State]] = field(default_factory=list)

    def show(self, record: Record, state: GoalState) -> None:
        self.shown.append((record.seq, state.status))


class World:
    """A goal and everything around it; it outlives the process that runs the goal."""

    def __init__(self, spec: GoalSpec, reports: Mapping[str, VerificationReport] | None = None) -> None:
        self.log: list[str] = []
        self.clock = FakeClock()
        self.journal = FakeJournal(self.log)
        self.store = FakeStore(self.log)
        self.worker = FakeWorker(self.log, self.store)
        self.workers = [self.worker]
        self.verifier = FakeVerifier(self.log, reports or {})
        self.judge = FakeJudge(self.log)
        self.judges = [[self.judge]]
        self.control = FakeControl()
        self.reporter = FakeReporter()
        self._spec = spec
        self._tokens = count()
        self.state = self.journal.append(GoalCreated(spec=spec), None)[1]

    def run(self, kill_at: int = 0, limits: Limits | None = None) -> GoalState:
        """Take the goal up as a new process does: from its records alone."""
        self.journal.kill_at = kill_at
        state = fold(self.journal.records)
        if state.status is not State.ACHIEVED:
            state = self.journal.append(RunStarted(runner=PROCESS, limits=limits), state)[1]
        self.state = GoalLoop(state, self.ports()).run()
        return self.state

    def run_through(self) -> Sequence[Record]:
        """The records of a run that nothing disturbs."""
        self.run()
        return self.journal.records

    def ports(self) -> Ports:
        """All fakes, which the type checker holds against the protocols here."""
        new_token: Callable[[], str] = lambda: f"token-{next(self._tokens)}"  # noqa: E731 - typed
        return Ports(
            journal=self.journal,
            store=self.store,
            workers=self.workers,
            verifier=self.verifier,
            judges=self.judges if self._spec.judges else [],
            control=self.control,
            reporter=self.reporter,
            clock=self.clock,
            new_token=new_token,
            redact=lambda text: text.replace(SECRET, "[redacted]"),
        )

    def done(self, what: str) -> Sequence[str]:
        """The entries of the log that begin so."""
        return [entry for entry in self.log if entry.startswith(what)]

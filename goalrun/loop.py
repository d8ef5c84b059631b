"""The goal loop: the order of things, and nothing else. Every step is recorded before the next one begins."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeVar, assert_never

from goalrun.asking import BACK_OFF_SECONDS, Asking, QuotaStop, explained
from goalrun.core.decide import budget_stop, decide, rests_on, together, verified
from goalrun.core.events import (
    BaseTaken,
    BaseVerified,
    Event,
    GoalStopped,
    JudgementFinished,
    ProcessStarted,
    TurnFinished,
    TurnInterrupted,
    TurnParked,
    TurnStarted,
    VerificationFinished,
    WorkerEnded,
    WorkerFinished,
)
from goalrun.core.feedback import feedback
from goalrun.core.model import (
    NOTHING_SPENT,
    Continue,
    GoalState,
    Judgement,
    OpenTurn,
    ProcessIdentity,
    Snapshot,
    State,
    Stop,
    TurnOutcome,
    TurnRecord,
    VerificationReport,
    WorkerReport,
)
from goalrun.core.ports import (
    AnswerNeeded,
    Clock,
    Control,
    Journal,
    Judge,
    LimitReached,
    Reporter,
    Store,
    Task,
    Verifier,
    Worker,
)
from goalrun.core.prompt import judge_brief, turn_time, worker_prompt
from goalrun.core.value import duration
from goalrun.errors import EnvironmentFailure, Interrupted

DIFF_CHARS = 60_000
MAX_PARKS = 10
"""How often a worker may ask to wait in one turn; after that its turn counts like any other."""
PARK_SECONDS = (5.0, 60.0)
"""First and longest pause between two tries of the command that a worker waits for."""
PARKED_AT_MOST = 86_400.0
T = TypeVar("T")


class Ports(NamedTuple):
    """The world, as one goal sees it.

    Attributes:
        workers: the worker's agent, and those that stand in for it.
        judges: the same for each judge.
        new_token: makes fresh random text.
        redact: takes known secrets out of a text.
    """

    journal: Journal
    store: Store
    workers: Sequence[Worker]
    verifier: Verifier
    judges: Sequence[Sequence[Judge]]
    control: Control
    reporter: Reporter
    clock: Clock
    new_token: Callable[[], str]
    redact: Callable[[str], str]


class GoalLoop:
    """Runs one goal from where its journal stands to an end."""

    def __init__(self, state: GoalState, ports: Ports) -> None:
        self.state = state
        self._ports = ports
        self._asking = Asking(ports.clock, lambda: self.state, self._note, self._cut, {})

    def run(self) -> GoalState:
        """Go on until the goal ends; every end is recorded."""
        try:
            self._recover()
            self._take_base()
            while self._running():
                self._ports.control.check()
                self._turn()
                if self._running() and self._ports.control.pause_after_turn():
                    self._note(GoalStopped(state=State.PAUSED, detail="paused after one turn, as asked"))
        except Interrupted as asked:
            self._interrupted(asked)
        except AnswerNeeded as question:
            self._cut("it waits for a person")
            self._note(GoalStopped(state=State.WAITING, detail=str(question), question=question.key))
        except LimitReached as reached:
            self._cut(str(reached))
            self._note(GoalStopped(state=reached.stop.state, detail=reached.stop.detail))
        except QuotaStop as limit:
            self._note(GoalStopped(state=State.RATE_LIMITED, detail=explained(limit)))
        except (EnvironmentFailure, OSError) as failure:
            self._note(GoalStopped(state=State.ERROR, detail=explained(failure)))
        return self.state

    def _running(self) -> bool:
        return self.state.status is State.RUNNING

    def _turn(self) -> None:
        """One turn: worker → snapshot → verification → judgement → decision. What is recorded is not done again."""
        spent = budget_stop(self.state, self.state.usage)
        if spent is not None and (self.state.open is None or self.state.open.worker is None):
            self._note(GoalStopped(state=spent.state, detail=spent.detail))
            return
        report, snapshot = self._worked()
        verification = self._verified(snapshot)
        judgement = self._judged(report, snapshot, verification)
        outcome = TurnOutcome(
            turn=self._opened().turn,
            worker=report,
            snapshot=snapshot,
            verification=verification,
            judgement=judgement,
        )
        self._note(TurnFinished(record=_decided(self.state, outcome)))

    def _worked(self) -> tuple[WorkerReport, Snapshot]:
        opened = self.state.open
        if opened is not None and opened.worker is not None and opened.snapshot is not None:
            return opened.worker, opened.snapshot
        turn = len(self.state.turns) + 1
        report = opened.worker if opened is not None else None
        if report is None:
            report = self._report(turn)
            self._note(WorkerEnded(turn=turn, report=report))
        restore = self.state.spec.verification.protected_edits == "restore"
        snapshot = self._retrying(lambda: self._ports.store.take_turn(f"turn-{turn}", restore=restore))
        self._note(WorkerFinished(turn=turn, report=report, snapshot=snapshot))
        return report, snapshot

    def _report(self, turn: int) -> WorkerReport:
        """What the worker reports, once it no longer waits for anything."""
        while True:
            if self.state.open is not None and self.state.open.wait_for:
                self._wait_for(self.state.open.wait_for)
            report = self._asking.first("worker", self._ports.workers, lambda agent: self._run_worker(agent, turn))
            parks = self._opened().parks
            if not report.wait_for or parks >= MAX_PARKS:
                return report
            snapshot = self._retrying(partial(self._ports.store.snapshot, f"turn-{turn}-parked-{parks + 1}"))
            self._note(TurnParked(turn=turn, report=report, snapshot=snapshot))

    def _wait_for(self, what: str) -> None:
        """Let time pass until what the worker waits for is over; a command is tried less and less often."""
        pause, longest = PARK_SECONDS
        waited, end = 0.0, parked_until(what)
        while waited < end:
            if end == PARKED_AT_MOST and self._ports.workers[0].try_out(what, self._opened().turn, self._on_process):
                return
            self._ports.clock.idle(min(pause, end - waited))
            waited += pause
            pause = min(longest, pause * 2)

    def _run_worker(self, worker: Worker, turn: int) -> WorkerReport:
        control = self._ports.control
        given = control.hints()
        attempt = self.state.open.attempt + 1 if self.state.open is not None else 1
        # A crash between recording hints and forgetting them must not tell them twice.
        fresh = tuple(hint for hint in given if hint not in self.state.hints)
        self._note(TurnStarted(turn=turn, attempt=attempt, agent=worker.name, hints=(*self.state.hints, *fresh)))
        control.forget_hints(len(given))
        prompt = worker_prompt(self.state, self._ports.new_token())
        limits, usage = self.state.spec.limits, self.state.usage
        left = None if limits.max_usd is None or usage.usd is None else max(0.0, limits.max_usd - usage.usd)
        session = self.state.sessions.get(worker.name)
        time = turn_time(limits, usage)
        task = Task(prompt, turn, attempt, time, session, left, state=self.state, note=self._note)
        return worker.run(task, self._on_process)

    def _verified(self, snapshot: Snapshot) -> VerificationReport:
        opened = self._opened()
        if opened.verification is not None:
            return opened.verification
        label = f"turn-{opened.turn}"
        if self.state.spec.alone:
            return VerificationReport(outcome="pass", sandbox="none")
        report = self._retrying(lambda: self._ports.verifier.verify(snapshot, label, self._on_process))
        self._note(VerificationFinished(turn=opened.turn, report=report))
        return report

    def _judged(self, worker: WorkerReport, snapshot: Snapshot, verification: VerificationReport) -> Judgement | None:
        opened = self._opened()
        if opened.judgement is not None or not self._ports.judges or not verified(self.state.spec, verification):
            return opened.judgement
        judgement = self._ask(f"turn-{opened.turn}", snapshot, verification, worker)
        self._note(JudgementFinished(turn=opened.turn, judgement=judgement))
        return judgement

    def _ask(
        self,
        label: str,
        snapshot: Snapshot,
        verification: VerificationReport,
        worker: WorkerReport | None,
    ) -> Judgement:
        """All judges in turn, until one does not agree."""
        new_token = self._ports.new_token
        diff = self._ports.redact(self._ports.store.diff(snapshot, DIFF_CHARS))
        found: list[Judgement] = []
        for number, chain in enumerate(self._ports.judges, start=1):
            nonce = new_token()
            brief = judge_brief(self.state.spec, verification, snapshot, diff, worker, nonce, new_token())
            place = label if len(self._ports.judges) == 1 else f"{label}/judge-{number}"
            ask = partial(self._one_judge, brief, place, nonce)
            found.append(self._asking.first("judge", chain, ask))
            if not found[-1].verdict.achieved:
                break
        return together(found)

    def _one_judge(self, brief: str, label: str, nonce: str, judge: Judge) -> Judgement:
        return judge.judge(brief, label, nonce, self._on_process)

    def _take_base(self) -> None:
        """The base, and whether it passes already: then nobody has to be paid."""
        if self.state.base is None:
            self._note(BaseTaken(snapshot=self._retrying(lambda: self._ports.store.snapshot("base"))))
        if self.state.base_verification is not None or not self.state.spec.checks or self.state.base is None:
            return
        base = self.state.base
        report = self._retrying(lambda: self._ports.verifier.verify_base(base, self._on_process))
        judgement = None
        passes = verified(self.state.spec, report)
        if passes and not self.state.spec.force and self._ports.judges:
            judgement = self._ask("base", base, report, None)
        agreed = judgement.verdict.achieved if judgement is not None else not self._ports.judges
        achieved = passes and agreed and not self.state.spec.force
        rests = rests_on(report, judgement.judge if judgement is not None else "")
        detail = f"nothing to do: the workspace already passes; {rests}; --force runs the worker anyway"
        weak = [check.command for check in report.checks if check.grade == "weak" and not check.hidden]
        if weak and self.state.spec.verification.require_strong:
            detail = f"--require-strong: this check can only pass weakly here: {weak[0]}"
            self._note(GoalStopped(state=State.ERROR, detail=detail))
            return
        self._note(
            BaseVerified(report=report, judgement=judgement, achieved=achieved, detail=detail if achieved else "")
        )

    def _recover(self) -> None:
        """A worker that was cut by a crash has left edits: keep them before anything else runs."""
        opened = self.state.open
        if opened is not None and opened.launched and opened.worker is None:
            self._cut("goalrun itself was ended")

    def _interrupted(self, asked: Interrupted) -> None:
        detail = str(asked)
        opened = self.state.open
        if opened is not None and opened.launched and opened.worker is None:
            try:
                self._cut(detail)
            except EnvironmentFailure as failure:
                # The edits stay in the workspace, and the turn stays open: the resume snapshots them.
                detail = f"{detail}; the edits of the cut turn are not in a snapshot yet: {failure}"
        if asked.verb != "leave":
            state = State.STOPPED if asked.verb == "stop" else State.PAUSED
            self._note(GoalStopped(state=state, detail=detail))

    def _cut(self, reason: str) -> None:
        """Keep what a cut worker edited, and what its output tells."""
        opened = self._opened()
        snapshot = self._ports.store.snapshot(f"turn-{opened.turn}-interrupted-{opened.attempt}")
        usage, session = None, None
        worker = next((each for each in self._ports.workers if each.name == opened.agent), None)
        if opened.failed:
            # What a failed agent spent is in the record of its failure.
            usage = NOTHING_SPENT
        elif self.state.spec.flow is not None:
            # What its calls spent is recorded call by call; only what began and has no end is not known.
            usage = None if any(begun.spends for begun in self.state.flow.begun.values()) else NOTHING_SPENT
        elif worker is not None:
            usage, session = worker.cut(opened.turn, opened.attempt, self.state.sessions.get(opened.agent))
        why = opened.failed or reason
        cut = TurnInterrupted(turn=opened.turn, reason=why, snapshot=snapshot, usage=usage, session=session)
        self._note(cut)

    def _opened(self) -> OpenTurn:
        if self.state.open is None:
            raise AssertionError("no turn is open")
        return self.state.open

    def _retrying(self, action: Callable[[], T]) -> T:
        """Do something that only the machine can fail at: again after a wait, then give up."""
        for wait in BACK_OFF_SECONDS:
            try:
                return action()
            except EnvironmentFailure:
                self._ports.clock.sleep(wait)
        return action()

    def _on_process(self, role: Literal["worker", "check", "judge"], process: ProcessIdentity) -> None:
        self._note(ProcessStarted(role=role, process=process))

    def _note(self, *events: Event) -> None:
        for record, state in self._ports.journal.append_all(events, self.state):
            self.state = state
            self._ports.reporter.show(record, state)


def parked_until(what: str) -> float:
    """Seconds to wait at most: a duration says how long, anything else is a command to be tried."""
    try:
        return min(PARKED_AT_MOST - 1, duration(what))
    except ValueError:
        return PARKED_AT_MOST


def _decided(state: GoalState, outcome: TurnOutcome) -> TurnRecord:
    decision = decide(state, outcome)
    match decision:
        case Stop(state=ends, detail=detail):
            told = feedback(outcome, Continue(reason=detail))
            return TurnRecord(outcome=outcome, decision=ends.value, reason=detail, feedback=told)
        case Continue(reason=reason):
            told = feedback(outcome, decision)
            return TurnRecord(outcome=outcome, decision="continue", reason=reason, feedback=told)
        case _:
            assert_never(decision)

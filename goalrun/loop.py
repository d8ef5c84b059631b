"""The goal loop: the order of things, and nothing else. Every step is recorded before the next one begins."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar, assert_never

from goalrun.core.decide import budget_stop, decide, rests_on, verified
from goalrun.core.events import (
    BaseTaken,
    BaseVerified,
    Event,
    GoalStopped,
    JudgementFinished,
    ProcessStarted,
    TurnFinished,
    TurnInterrupted,
    TurnStarted,
    VerificationFinished,
    WorkerEnded,
    WorkerFailed,
    WorkerFinished,
)
from goalrun.core.feedback import feedback
from goalrun.core.model import (
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
from goalrun.core.ports import Clock, Control, Journal, Judge, Reporter, Store, Verifier, Worker
from goalrun.core.prompt import judge_brief, turn_time, worker_prompt
from goalrun.errors import EnvironmentFailure, Interrupted

BACK_OFF_SECONDS = (1.0, 4.0)
"""Waits between the attempts at something that the machine, not the worker, failed at."""
DIFF_CHARS = 60_000
T = TypeVar("T")


class Ports(NamedTuple):
    """The world, as one goal sees it.

    Attributes:
        new_token: makes fresh random text.
        redact: takes known secrets out of a text.
    """

    journal: Journal
    store: Store
    worker: Worker
    verifier: Verifier
    judge: Judge | None
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
        except EnvironmentFailure as failure:
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
            report = self._retrying(
                lambda: self._run_worker(turn), lambda reason: WorkerFailed(turn=turn, reason=reason)
            )
            self._note(WorkerEnded(turn=turn, report=report))
        restore = self.state.spec.verification.protected_edits == "restore"
        snapshot = self._retrying(lambda: self._ports.store.take_turn(f"turn-{turn}", restore=restore))
        self._note(WorkerFinished(turn=turn, report=report, snapshot=snapshot))
        return report, snapshot

    def _run_worker(self, turn: int) -> WorkerReport:
        control = self._ports.control
        given = control.hints()
        attempt = self.state.open.attempt + 1 if self.state.open is not None else 1
        # A crash between recording hints and forgetting them must not tell them twice.
        fresh = tuple(hint for hint in given if hint not in self.state.hints)
        self._note(TurnStarted(turn=turn, attempt=attempt, hints=(*self.state.hints, *fresh)))
        control.forget_hints(len(given))
        prompt = worker_prompt(self.state, self._ports.new_token())
        timeout = turn_time(self.state.spec.limits, self.state.usage)
        return self._ports.worker.run(prompt, turn, attempt, timeout, self._on_process)

    def _verified(self, snapshot: Snapshot) -> VerificationReport:
        opened = self._opened()
        if opened.verification is not None:
            return opened.verification
        label = f"turn-{opened.turn}"
        report = self._retrying(lambda: self._ports.verifier.verify(snapshot, label, self._on_process))
        self._note(VerificationFinished(turn=opened.turn, report=report))
        return report

    def _judged(self, worker: WorkerReport, snapshot: Snapshot, verification: VerificationReport) -> Judgement | None:
        opened = self._opened()
        if opened.judgement is not None or self._ports.judge is None or not verified(self.state.spec, verification):
            return opened.judgement
        judgement = self._ask(self._ports.judge, f"turn-{opened.turn}", snapshot, verification, worker)
        self._note(JudgementFinished(turn=opened.turn, judgement=judgement))
        return judgement

    def _ask(
        self,
        judge: Judge,
        label: str,
        snapshot: Snapshot,
        verification: VerificationReport,
        worker: WorkerReport | None,
    ) -> Judgement:
        new_token = self._ports.new_token
        diff = self._ports.redact(self._ports.store.diff(snapshot, DIFF_CHARS))
        nonce = new_token()
        brief = judge_brief(self.state.spec, verification, snapshot, diff, worker, nonce, new_token())
        # The judge repeats a failed question itself; a second round here would only cost.
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
        if passes and not self.state.spec.force and self._ports.judge is not None:
            judgement = self._ask(self._ports.judge, "base", base, report, None)
        agreed = judgement.verdict.achieved if judgement is not None else self._ports.judge is None
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
        state = State.STOPPED if asked.verb == "stop" else State.PAUSED
        self._note(GoalStopped(state=state, detail=detail))

    def _cut(self, reason: str) -> None:
        opened = self._opened()
        label = f"turn-{opened.turn}-interrupted-{opened.attempt}"
        snapshot = self._ports.store.snapshot(label)
        self._note(TurnInterrupted(turn=opened.turn, reason=reason, snapshot=snapshot))

    def _opened(self) -> OpenTurn:
        if self.state.open is None:
            raise AssertionError("no turn is open")
        return self.state.open

    def _retrying(self, action: Callable[[], T], failed: Callable[[str], Event] | None = None) -> T:
        """Do something that only the machine can fail at: again after a wait, then give up."""
        for wait in BACK_OFF_SECONDS:
            try:
                return action()
            except EnvironmentFailure as failure:
                if failed is not None:
                    self._note(failed(explained(failure)))
                self._ports.clock.sleep(wait)
        return action()

    def _on_process(self, role: Literal["worker", "check", "judge"], process: ProcessIdentity) -> None:
        self._note(ProcessStarted(role=role, process=process))

    def _note(self, event: Event) -> None:
        record, self.state = self._ports.journal.append(event, self.state)
        self._ports.reporter.show(record, self.state)


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


def explained(failure: EnvironmentFailure) -> str:
    """A failure and what to do about it, in one line."""
    return f"{failure}; {failure.hint}" if failure.hint else str(failure)

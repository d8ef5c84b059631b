"""Values of a goal for the tests of the core, each with defaults that make the goal achieved."""

from collections.abc import Iterable, Mapping
from typing import Literal

from goalrun.core.decide import decide
from goalrun.core.events import BaseTaken, Event, GoalCreated, Record
from goalrun.core.model import (
    CheckResult,
    Continue,
    GoalState,
    Judgement,
    ProcessIdentity,
    Snapshot,
    Tamper,
    TestCounts,
    TurnOutcome,
    TurnRecord,
    Usage,
    Verdict,
    VerificationReport,
    WorkerReport,
)
from goalrun.core.replay import advance, fold
from goalrun.core.spec import AgentSpec, GoalSpec, Limits, VerificationSpec

COMMAND = "pytest -q"
JUDGE = AgentSpec(name="owl", command=("owl",))
PROCESS = ProcessIdentity(pid=7, start="1", boot="b", host="h")

CheckOutcome = Literal["pass", "fail", "timeout", "tampered", "error", "not_run"]
ReportOutcome = Literal["pass", "weak_pass", "fail", "tampered", "error"]


def goal(checks: tuple[str, ...] = (COMMAND,), judge: AgentSpec | None = None, **limits: float | None) -> GoalSpec:
    return GoalSpec(
        id="g-1",
        objective="make tests pass",
        workspace="/ws",
        worker=AgentSpec(name="command", command=("agent",)),
        checks=checks,
        judges=() if judge is None else (judge,),
        limits=Limits.model_validate(limits),
    )


def changed(spec: GoalSpec, **changes: object) -> GoalSpec:
    """The goal with other fields; those of ``VerificationSpec`` go by their own names."""
    inner = {key: changes.pop(key) for key in list(changes) if key in VerificationSpec.model_fields}
    verification = spec.verification.but(**inner)
    return spec.but(verification=verification, **changes)


def snapshot(tree: str = "tree", **more: object) -> Snapshot:
    return Snapshot.model_validate({"commit": f"commit-{tree}", "tree": tree, **more})


def checked(
    outcome: CheckOutcome = "pass", passed: int | None = None, failing: tuple[str, ...] = (), **more: object
) -> CheckResult:
    counts = None if passed is None else TestCounts(passed=passed, failed=len(failing), skipped=0)
    given = {"command": COMMAND, "outcome": outcome, "tests": counts, "failing": failing, "exit_code": 0}
    return CheckResult.model_validate({**given, **more})


def reported(
    *checks: CheckResult, outcome: ReportOutcome | None = None, edits: Iterable[str] = ()
) -> VerificationReport:
    tampering = tuple(Tamper(path=path, kind="modified") for path in edits)
    green = all(check.outcome == "pass" for check in checks)
    found: ReportOutcome = outcome or ("tampered" if tampering else "pass" if green else "fail")
    return VerificationReport(outcome=found, checks=checks, tampering=tampering, sandbox="process", seconds=0.5)


WORKED: Mapping[str, object] = {
    "outcome": "ok",
    "exit_code": 0,
    "usage": Usage(total_tokens=10, usd=0.1),
    "seconds": 60.0,
}
GREEN = reported(checked())
RED = reported(checked("fail", failing=("test_a",), reason="exit status 1"))


def judged(*, achieved: bool = False, blocked: bool = False, reason: str = "", usage: Usage | None = None) -> Judgement:
    verdict = Verdict(achieved=achieved, blocked=blocked, reason=reason)
    return Judgement(verdict=verdict, judge="owl", usage=usage, seconds=0.2)


def spent(tokens: int, usd: float = 0.0) -> Usage:
    return Usage(input_tokens=tokens, output_tokens=0, total_tokens=tokens, usd=usd)


def turned(
    turn: int = 1,
    verification: VerificationReport = GREEN,
    judgement: Judgement | None = None,
    tree: str | None = None,
    **worker: object,
) -> TurnOutcome:
    return TurnOutcome(
        turn=turn,
        worker=WorkerReport.model_validate({**WORKED, **worker}),
        snapshot=snapshot(tree if tree is not None else f"tree-{turn}"),
        verification=verification,
        judgement=judgement,
    )


def created(spec: GoalSpec) -> GoalState:
    return fold(numbered(GoalCreated(spec=spec), BaseTaken(snapshot=snapshot("base"))))


def after(state: GoalState, *outcomes: TurnOutcome) -> GoalState:
    """The state after some turns, whatever was decided of them."""
    for outcome in outcomes:
        state = advance(state, TurnRecord(outcome=outcome, decision="continue", reason="so it goes"))
    return state


def settled(state: GoalState, outcome: TurnOutcome) -> GoalState:
    """The state after one turn and its decision."""
    decision = decide(state, outcome)
    if isinstance(decision, Continue):
        return advance(state, TurnRecord(outcome=outcome, decision="continue", reason=decision.reason))
    return advance(state, TurnRecord(outcome=outcome, decision=decision.state.value, reason=decision.detail))


def numbered(*events: Event, elapsed: float = 0.0) -> list[Record]:
    return [
        Record(seq=place, at="2026-01-01T00:00:00.000+00:00", elapsed=elapsed, event=event)
        for place, event in enumerate(events, start=1)
    ]

"""Whether a goal goes on after a turn. Pure and total; the first rule that matches wins."""

from collections.abc import Sequence

from goalrun.core.evidence import count
from goalrun.core.model import (
    NOTHING_SPENT,
    Continue,
    Decision,
    GoalState,
    Judgement,
    State,
    Stop,
    TurnOutcome,
    Usage,
    Verdict,
    VerificationReport,
    WorkerReport,
)
from goalrun.core.progress import standstill
from goalrun.core.spec import GoalSpec


def decide(state: GoalState, outcome: TurnOutcome) -> Decision:
    """What follows from a turn, given the state before it was counted in.

    The gate is the first rule: nothing but green verification and a judge that does not object is
    ``achieved``, and it comes before every limit, so success on the last allowed turn is success.
    """
    if state.spec.alone:
        return _as_the_flow_ended(outcome.worker)
    stop = _achieved(state, outcome) or _blocked(outcome) or _limit(state, outcome)
    if stop is not None:
        return stop
    base_tree = _tree_before(state)
    seen = state.turns[state.fresh_from :]
    still = standstill(base_tree, seen, outcome, state.spec.limits.stuck_after)
    if still.stuck:
        return Stop(state=State.STUCK, detail=f"{still.why}; resume with a hint: --hint TEXT")
    warning = f"You are repeating yourself: {still.why}. One more such turn ends the goal." if still.warned else ""
    return Continue(reason=what_is_missing(outcome), warning=warning)


def _tree_before(state: GoalState) -> str:
    before = state.turns[: state.fresh_from]
    if before:
        return before[-1].outcome.snapshot.tree
    return state.base.tree if state.base is not None else ""


def gate(state: GoalState, outcome: TurnOutcome) -> bool:
    """``min(verification, judgement)``: whether this outcome may be called achieved."""
    if outcome.worker.vetoed or not verified(state.spec, outcome.verification):
        return False
    if outcome.judgement is not None:
        return outcome.judgement.verdict.achieved
    return not state.spec.judges and bool(outcome.verification.checks)


def verified(spec: GoalSpec, report: VerificationReport) -> bool:
    """Whether the report is green and speaks of every check of the goal: a missing one has not passed."""
    run = {(check.command, check.hidden) for check in report.checks}
    needed = {(check, False) for check in spec.checks} | {(check, True) for check in spec.hidden_checks}
    strong = report.outcome == "pass" or not spec.verification.require_strong
    return report.green and strong and run >= needed


def together(judgements: Sequence[Judgement]) -> Judgement:
    """What several judges say: achieved if all do, blocked if one does; the least of them counts."""
    if len(judgements) == 1:
        return judgements[0]
    last = judgements[-1]
    usage = NOTHING_SPENT
    for each in judgements:
        usage = usage.plus(each.usage or Usage())
    return Judgement(
        verdict=Verdict(
            achieved=all(each.verdict.achieved for each in judgements),
            blocked=any(each.verdict.blocked for each in judgements),
            reason="; ".join(f"{each.judge}: {each.verdict.reason}" for each in judgements),
        ),
        judge=" and ".join(each.judge for each in judgements),
        attempts=sum(each.attempts for each in judgements),
        seconds=sum(each.seconds for each in judgements),
        usage=usage,
        brief=last.brief,
        reply=last.reply,
    )


def rests_on(report: VerificationReport, judge: str) -> str:
    """What an ``achieved`` rests on, in words: how many checks, their grade, the level, the judge."""
    checks = report.checks
    weak = sum(check.grade == "weak" and not check.hidden for check in checks)
    hidden = sum(check.hidden for check in checks)
    if not checks:
        passed = "no checks"
    else:
        passed = f"{count(len(checks), 'check')} passed"
        passed += f" ({_grade(report, weak, len(checks) - hidden)})"
        passed += f", {hidden} of them hidden" if hidden else ""
    asked = f"judge {judge} agrees" if judge else "no judge"
    return f"{passed}; {asked}; sandbox level: {report.sandbox}"


def _grade(report: VerificationReport, weak: int, shown: int) -> str:
    if weak == 0:
        return "strong"
    return f"{f'{weak} of them ' if weak < shown else ''}weak: {_why_weak(report)}"


def _why_weak(report: VerificationReport) -> str:
    reasons = dict.fromkeys(
        check.reason for check in report.checks if check.grade == "weak" and not check.hidden and check.reason
    )
    return "; ".join(reasons) or "judged by exit status alone"


def _achieved(state: GoalState, outcome: TurnOutcome) -> Stop | None:
    if not gate(state, outcome):
        return None
    judge = outcome.judgement.judge if outcome.judgement is not None else ""
    return Stop(state=State.ACHIEVED, detail=rests_on(outcome.verification, judge))


def _as_the_flow_ended(report: WorkerReport) -> Stop:
    ends = {"ok": State.DONE, "blocked": State.BLOCKED}.get(report.outcome, State.FAILED)
    return Stop(state=State.BLOCKED if report.vetoed else ends, detail=report.vetoed or report.reason)


def _blocked(outcome: TurnOutcome) -> Stop | None:
    if outcome.worker.outcome == "blocked":
        reason = outcome.worker.reason or "no reason given"
        return Stop(state=State.BLOCKED, detail=f"the worker reports an obstacle: {reason}")
    if outcome.judgement is not None and outcome.judgement.verdict.blocked:
        reason = outcome.judgement.verdict.reason or "no reason given"
        return Stop(state=State.BLOCKED, detail=f"the judge reports an obstacle: {reason}")
    return None


def spent_after(state: GoalState, outcome: TurnOutcome) -> Usage:
    """Tokens and USD of the goal with this turn counted in; running time is what the state says."""
    return state.usage.plus(uncounted(outcome))


def uncounted(outcome: TurnOutcome) -> Usage:
    """What of a turn's tokens and USD is not in the goal's yet: a flow's are counted call by call."""
    if not outcome.worker.counted:
        return turn_usage(outcome)
    return turn_usage(outcome.but(worker=WorkerReport(outcome="ok", usage=NOTHING_SPENT)))


def turn_usage(outcome: TurnOutcome) -> Usage:
    """Tokens and USD of one turn, worker and judge together; its seconds are left to the clock."""
    usage = outcome.worker.usage or Usage()
    if outcome.judgement is not None:
        usage = usage.plus(outcome.judgement.usage or Usage())
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        usd=usage.usd,
    )


def _limit(state: GoalState, outcome: TurnOutcome) -> Stop | None:
    limits = state.spec.limits
    turns = len(state.turns) + 1
    if turns >= limits.max_turns:
        return Stop(
            state=State.MAX_TURNS,
            detail=f"turn limit reached: {turns} of {limits.max_turns}; resume with --max-turns +N",
        )
    return budget_stop(state, spent_after(state, outcome))


def budget_stop(state: GoalState, spent: Usage) -> Stop | None:
    """The stop that a budget asks for after so much was spent, if any."""
    limits = state.spec.limits
    detail = ""
    known = limits.allow_unknown_spend
    if limits.max_tokens is not None and spent.total_tokens is None and not known:
        detail = "a token limit is set, but not all tokens were reported; resume with --allow-unknown-spend"
    elif limits.max_usd is not None and spent.usd is None and not known:
        detail = "a USD limit is set, but not every cost was reported; resume with --allow-unknown-spend"
    elif limits.max_tokens is not None and (spent.total_tokens or 0) >= limits.max_tokens:
        detail = f"token limit reached: {spent.total_tokens} of {limits.max_tokens}; resume with --max-tokens +N"
    elif limits.max_usd is not None and (spent.usd or 0.0) >= limits.max_usd:
        detail = f"USD limit reached: {spent.usd:.4f} of {limits.max_usd:.4f}; resume with --max-usd +X"
    elif limits.max_time is not None and spent.seconds >= limits.max_time:
        detail = f"time limit reached: {spent.seconds:.0f} s of {limits.max_time:.0f} s; resume with --max-time +TIME"
    return Stop(state=State.BUDGET_EXCEEDED, detail=detail) if detail else None


def what_is_missing(outcome: TurnOutcome) -> str:
    """One line on why the turn did not achieve the goal."""
    verification = outcome.verification
    if verification.tampering:
        paths = ", ".join(tamper.path for tamper in verification.tampering[:3])
        more = f" and {len(verification.tampering) - 3} more" if len(verification.tampering) > 3 else ""  # noqa: PLR2004
        kinds = {tamper.kind for tamper in verification.tampering}
        if kinds <= {"forged", "escaped"}:
            return f"the checks were tampered with while they ran: {paths}{more}"
        return f"protected paths were changed: {paths}{more}"
    failed = [check for check in verification.checks if check.outcome != "pass"]
    if failed:
        first = f"{failed[0].command}: {failed[0].reason or failed[0].outcome}"
        first = "a hidden check failed" if failed[0].hidden else first
        return first + (f" (and {len(failed) - 1} more)" if len(failed) > 1 else "")
    return _though_green(outcome)


def _though_green(outcome: TurnOutcome) -> str:
    if outcome.worker.vetoed:
        return f"the flow itself says no: {outcome.worker.vetoed}"
    if outcome.verification.outcome == "weak_pass" and outcome.judgement is None:
        return f"the checks passed, but only weakly: {_why_weak(outcome.verification)}"
    if outcome.judgement is not None:
        return f"the judge is not satisfied: {outcome.judgement.verdict.reason or 'no reason given'}"
    return f"verification: {outcome.verification.outcome}"


def score(outcome: TurnOutcome) -> tuple[int, int, int, int]:
    """How good a turn is, for ``best``: untampered, checks passed, tests passed, smaller diff."""
    checks = outcome.verification.checks
    return (
        int(outcome.verification.outcome not in {"tampered", "error"}),
        sum(check.outcome == "pass" for check in checks),
        sum(check.tests.passed for check in checks if check.tests is not None),
        -outcome.snapshot.diff_files,
    )

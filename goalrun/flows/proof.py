"""A step with checks is a small goal: what passes is what the checks say of a snapshot, never what anybody says."""

from collections.abc import Callable
from typing import NamedTuple

from goalrun.core.decide import verified
from goalrun.core.feedback import feedback
from goalrun.core.flow.model import Result, Step
from goalrun.core.model import Continue, Snapshot, TurnOutcome, VerificationReport, WorkerReport
from goalrun.core.spec import GoalSpec, VerificationSpec
from goalrun.flows.call import Made, folder_of
from goalrun.flows.calls import Calls
from goalrun.flows.ports import Files, Poll


class Proof(NamedTuple):
    """What a step, or a member of one, left, and whether the checks pass on it."""

    made: Made
    snapshot: Snapshot
    passed: bool = False


class Place(NamedTuple):
    """Where a small goal is tried.

    Attributes:
        label: what its snapshots are called.
    """

    step: Step
    path: str
    files: Files
    poll: Poll
    label: str = "steps"


def tried(calls: Calls, at: Place, attempt: Callable[[str], Made]) -> Proof:
    """Try until the checks pass, or as often as the step says.

    Args:
        calls: of the flow's run.
        at: where.
        attempt: one try; it is told what the checks said of the last one, "" the first time.
    """
    told = ""
    results: list[Result] = []
    while True:
        made = attempt(told)
        results.append(made.result)
        snapshot = at.files.snapshot(at.label)
        if made.result.status in {"blocked", "waiting", "skipped"}:
            return Proof(Made(_whole(results, made.result), made.why), snapshot)
        label = f"turn-{calls.task.turn}/flow-{calls.task.attempt}/{folder_of(at.path)}-checks-{len(results)}"
        report = calls.ports.verify(calls.state, at.step, snapshot, label, calls.on_process, at.poll)
        # An exit status is a claim like any other; an answer of the wrong form is of no use to what comes next.
        if verified(asked_of(calls.state.spec, at.step), report) and (made.result.ok or at.step.expect is None):
            done = made.result.but(status="done", reason="")
            return Proof(Made(_whole(results, done), made.why), snapshot, passed=True)
        told = _told(made.result, snapshot, report)
        if len(results) >= at.step.max_turns:
            failed = made.result.but(status="failed", reason=_reason(made.result, report))
            return Proof(Made(_whole(results, failed), made.why), snapshot)


def asked_of(spec: GoalSpec, step: Step) -> GoalSpec:
    """The goal that a step is by itself: its own checks, else the goal's; always in a clean worktree."""
    verification = {
        **dict(spec.verification),
        "worktree": True,
        "protect": (*spec.verification.protect, *step.protect),
        "may_change": (*spec.verification.may_change, *step.may_change),
    }
    own = {"flow": None, "checks": step.check, "hidden_checks": (), "judges": ()} if step.check else {}
    return spec.but(**own, verification=VerificationSpec(**verification))


def _told(result: Result, snapshot: Snapshot, report: VerificationReport) -> str:
    worker = WorkerReport(outcome="ok" if result.ok else "failed", reason=result.reason)
    outcome = TurnOutcome(turn=1, worker=worker, snapshot=snapshot, verification=report)
    return feedback(outcome, Continue(reason=""))


def _reason(result: Result, report: VerificationReport) -> str:
    """Why it does not count, in one line."""
    if report.tampering:
        return f"it changed what it may not: {', '.join(each.path for each in report.tampering[:3])}"
    failed = next((check for check in report.checks if check.outcome != "pass"), None)
    if failed is not None:
        return f"a check failed: {failed.command}" + (f" ({failed.reason})" if failed.reason else "")
    return result.reason or "its checks pass only weakly"


def _whole(results: list[Result], last: Result) -> Result:
    """The last try, with what all of them took."""
    return last.but(
        attempts=sum(each.attempts for each in results),
        seconds=sum(each.seconds for each in results),
        cached=all(each.cached for each in results),
        before=results[0].before,
    )

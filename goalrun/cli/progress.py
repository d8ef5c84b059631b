"""Progress of a running goal, a line per fact, on standard error."""

import sys
from typing import IO

from goalrun.cli.render import note, paint, painted, seconds
from goalrun.core import missing
from goalrun.core.decide import what_is_missing
from goalrun.core.events import (
    BaseTaken,
    BaseVerified,
    GoalStopped,
    JudgementFinished,
    Record,
    RunStarted,
    TurnFinished,
    TurnInterrupted,
    TurnStarted,
    VerificationFinished,
    WorkerFailed,
    WorkerFinished,
)
from goalrun.core.evidence import count, one_line
from goalrun.core.model import GoalState, VerificationReport

MAX_TAMPERS = 10


class LineReporter:
    """Prints what each record means."""

    def show(self, record: Record, state: GoalState) -> None:
        """One record; see ``core.ports.Reporter``."""
        for line in lines(record, state, sys.stderr):
            note(line)


class SilentReporter:
    """For where nobody looks."""

    def show(self, record: Record, state: GoalState) -> None:
        """Nothing."""


def lines(record: Record, state: GoalState, stream: IO[str]) -> list[str]:  # noqa: C901, PLR0911 - one case per event
    """What one record means to a person; nothing for records that only bookkeeping needs."""
    match record.event:
        case RunStarted():
            return _started(state, stream)
        case BaseTaken(snapshot=snapshot):
            return [f"  note: {one_line(warning)}" for warning in snapshot.warnings]
        case BaseVerified(report=report, achieved=achieved):
            hint = missing.hint(state.spec, report)
            told = [f"  hint: {hint}"] if hint else []
            return ["base: passes already" if achieved else "base:", *_verification(report, stream), *told]
        case TurnStarted(turn=turn, attempt=attempt):
            again = f" (attempt {attempt})" if attempt > 1 else ""
            return [paint(f"turn {turn} of {state.spec.limits.max_turns}{again}", "strong", stream)]
        case WorkerFailed(reason=reason):
            return [f"  worker could not be run: {one_line(reason)}; trying again"]
        case TurnInterrupted(reason=reason):
            return [f"  cut: {one_line(reason)}; the edits so far are kept"]
        case WorkerFinished(report=report, snapshot=snapshot):
            said = f": {one_line(report.reason)}" if report.reason else ""
            how = painted(report.outcome, stream)
            changed = count(snapshot.changed_files, "file")
            return [
                f"  worker {how} in {seconds(report.seconds)}, {changed} changed{said}",
                *(f"  note: process {one_line(each)} began meanwhile and is left alone" for each in report.untied),
                *(f"  put back {one_line(edit.path)} ({edit.kind})" for edit in snapshot.protected_edits),
            ]
        case VerificationFinished(report=report):
            return _verification(report, stream)
        case JudgementFinished(judgement=judgement):
            verdict = "is satisfied" if judgement.verdict.achieved else "is not satisfied"
            return [f"  judge {judgement.judge} {verdict}: {one_line(judgement.verdict.reason)}"]
        case TurnFinished(record=turn) if turn.decision == "continue":
            return [f"  → continue: {one_line(what_is_missing(turn.outcome))}"]
        case GoalStopped(state=ended, detail=detail):
            return [f"{painted(ended.value, stream)}: {one_line(detail, 600)}"]
        case _:
            return []


def _started(state: GoalState, stream: IO[str]) -> list[str]:
    spec = state.spec
    limits = spec.limits
    budget = [f"{limits.max_turns} turns", f"{seconds(limits.turn_timeout)} a turn"]
    budget += [f"{limits.max_tokens} tokens"] if limits.max_tokens else []
    budget += [f"{limits.max_usd:.2f} USD"] if limits.max_usd else []
    budget += [seconds(limits.max_time)] if limits.max_time else []
    live = "" if spec.verification.worktree else " in the live workspace (weak)"
    checks = "; ".join(one_line(check, 80) for check in spec.checks) or "none"
    return [
        f"{paint(spec.id, 'strong', stream)}  {one_line(spec.objective, 120)}",
        f"  workspace {one_line(spec.workspace, 400)}",
        f"  worker {spec.worker.name}; judge {spec.judge.name if spec.judge else 'none'}; limits {', '.join(budget)}",
        f"  checks{live}: {checks}",
        f"  worker isolation: {state.worker_isolation}",
    ]


def _verification(report: VerificationReport, stream: IO[str]) -> list[str]:
    found = [
        f"  {paint('tampered', 'alarm', stream)} {one_line(tamper.path)} ({tamper.kind})"
        for tamper in report.tampering[:MAX_TAMPERS]
    ]
    if len(report.tampering) > MAX_TAMPERS:
        found.append(f"  tampered and {len(report.tampering) - MAX_TAMPERS} more")
    for check in report.checks:
        tests = f", {check.tests.passed} passed, {check.tests.failed} failed" if check.tests else ""
        reason = f": {one_line(check.reason)}" if check.reason else ""
        outcome = painted(check.outcome, stream)
        hidden = "hidden " if check.hidden else ""
        what = f"{hidden}check {outcome} {one_line(check.command, 80)}"
        found.append(f"  {what} ({seconds(check.seconds)}{tests}){reason}")
    return found

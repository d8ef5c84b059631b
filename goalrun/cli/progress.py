"""Progress of a running goal, a line per fact, on standard error."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from goalrun.adapters.glimpse import head_of
from goalrun.cli.render import note, paint, painted, seconds, step_line
from goalrun.core import missing
from goalrun.core.decide import what_is_missing
from goalrun.core.events import (
    AgentFailed,
    BaseTaken,
    BaseVerified,
    CallStarted,
    FlowTold,
    GoalStopped,
    JudgementFinished,
    ProcessStarted,
    QuotaWait,
    Record,
    RunStarted,
    StepSettled,
    TurnFinished,
    TurnInterrupted,
    TurnParked,
    TurnStarted,
    VerificationFinished,
    WorkerFinished,
)
from goalrun.core.evidence import count, one_line
from goalrun.core.model import GoalState, Snapshot, Usage, VerificationReport, WorkerReport
from goalrun.core.spec import PLAIN_COMMAND, AgentSpec, GoalSpec

MAX_TAMPERS = 10
SAID_LINES = 15
"""Of each text, with -v."""


class LineReporter:
    """Prints what each record means; with the goal's folder also what was said: prompts, answers, checks' output."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def show(self, record: Record, state: GoalState) -> None:
        """One record; see ``core.ports.Reporter``."""
        for line in lines(record, state, sys.stderr):
            note(line)
        for line in said(record, state, self._folder) if self._folder is not None else ():
            note(f"    | {one_line(line)}")


def lines(record: Record, state: GoalState, stream: IO[str]) -> list[str]:  # noqa: C901, PLR0911, PLR0912 - one case per event
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
            if state.spec.alone:
                return [f"flow {state.spec.worker.name}{again}"]
            return [paint(f"turn {turn} of {state.spec.limits.max_turns}{again}", "strong", stream)]
        case CallStarted() | StepSettled() | FlowTold():
            return [_of_flow(record.event, stream)]
        case AgentFailed(role=role, reason=reason):
            return [f"  {role} failed: {one_line(reason)}"]
        case QuotaWait(detail=detail):
            return [f"  {paint('waiting', 'alarm', stream)}: {one_line(detail)}; goalrun stop or pause ends the wait"]
        case TurnParked(report=report):
            return [f"  the worker waits for: {one_line(report.wait_for)}"]
        case TurnInterrupted(reason=reason):
            return [f"  cut: {one_line(reason)}; the edits so far are kept"]
        case WorkerFinished(report=report, snapshot=snapshot):
            return _worked(report, snapshot, stream)
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


def _of_flow(event: CallStarted | StepSettled | FlowTold, stream: IO[str]) -> str:
    match event:
        case CallStarted(path=path, agent=agent):
            return f"    {one_line(path)} …" + (f" {one_line(agent, 80)}" if agent != PLAIN_COMMAND else "")
        case StepSettled(path=path, step=step):
            return f"  {step_line(path, step.model_dump(), stream)}"
        case FlowTold(what=what, text=text):
            return f"    {paint(one_line(text), 'strong', stream) if what == 'phase' else one_line(text)}"


def _worked(report: WorkerReport, snapshot: Snapshot, stream: IO[str]) -> list[str]:
    said = f": {one_line(report.reason)}" if report.reason else ""
    how, changed = painted(report.outcome, stream), count(snapshot.changed_files, "file")
    return [
        f"  worker {how} in {seconds(report.seconds)}, {changed} changed{_spent(report.usage)}{said}",
        *(f"  note: it was not allowed to use {one_line(each)}" for each in report.denials[:3]),
        *(f"  note: process {one_line(each)} began meanwhile and is left alone" for each in report.untied),
        *(f"  put back {one_line(edit.path)} ({edit.kind})" for edit in snapshot.protected_edits),
    ]


def said(record: Record, state: GoalState, folder: Path) -> Iterator[str]:
    """The head of a prompt, the end of a worker's answer, the end of what each check printed."""
    match record.event:
        case ProcessStarted(role="worker") if state.open is not None and state.spec.flow is None:
            # The worker waits for this record, and its prompt is there already.
            newest = sorted((folder / "turns" / f"turn-{state.open.turn}").glob(f"worker-{state.open.attempt}*"))[-1:]
            yield from (line for place in newest for line in head_of(place / "prompt.md", SAID_LINES))
        case WorkerFinished(report=report):
            yield from report.text.splitlines()[-SAID_LINES:]
        case VerificationFinished(report=report) | BaseVerified(report=report):
            for check in report.checks:
                yield f"{check.outcome}: {check.command}"
                yield from check.excerpt.splitlines()[-SAID_LINES:]
        case _:
            return


def _started(state: GoalState, stream: IO[str]) -> list[str]:
    spec = state.spec
    limits = spec.limits
    budget = [count(limits.max_turns, "turn"), f"{seconds(limits.turn_timeout)} a turn"]
    budget += [f"{limits.max_tokens} tokens"] if limits.max_tokens else []
    budget += [f"{limits.max_usd:.2f} USD"] if limits.max_usd else []
    budget += [seconds(limits.max_time)] if limits.max_time else []
    live = "" if spec.verification.worktree else " in the live workspace (weak)"
    checks = "; ".join(one_line(check, 80) for check in spec.checks) or "none"
    return [
        f"{paint(spec.id, 'strong', stream)}  {one_line(spec.objective, 120)}",
        f"  workspace {one_line(spec.workspace, 400)}",
        f"  worker {_names(spec.worker)}; {_judges(spec)}; limits {', '.join(budget)}",
        *([] if spec.alone else [f"  checks{live}: {checks}"]),
        f"  worker isolation: {state.worker_isolation}",
    ]


def _spent(usage: Usage | None) -> str:
    """Tokens and cost of a run, as far as they are known."""
    if usage is None:
        return ""
    tokens = f", {usage.total_tokens} tokens" if usage.total_tokens is not None else ""
    return tokens + (f", {usage.usd:.4f} USD" if usage.usd is not None else "")


def _judges(spec: GoalSpec) -> str:
    """Who judges, in words."""
    return "judge " + (" and ".join(map(_names, spec.judges)) or "none")


def _names(agent: AgentSpec) -> str:
    return ", else ".join(each.name for each in agent.chain)


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

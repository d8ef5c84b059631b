"""The result as JSON: stable and versioned (docs/cli.md). The same shape everywhere it is printed."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from goalrun.core.decide import turn_usage
from goalrun.core.model import (
    GoalState,
    Judgement,
    Snapshot,
    StepRecord,
    TurnOutcome,
    TurnRecord,
    Usage,
    VerificationReport,
    WorkerReport,
)

SCHEMA = 1
_BELOW = re.compile(r"[/\[]")
Json = dict[str, Any]


def head(state: GoalState) -> Json:
    """The result without its turn records, process and queue, which are kept apart."""
    shown = state.last_snapshot if state.turns or state.open is not None else None
    return {
        "schema": SCHEMA,
        "id": state.spec.id,
        "state": state.status.value,
        "detail": state.detail,
        "objective": state.spec.objective,
        "workspace": state.spec.workspace,
        "created_at": state.created_at,
        "turns": len(state.turns),
        "limits": state.spec.limits.model_dump(mode="json"),
        "usage": _usage(state.usage),
        "sandbox": _sandbox(state),
        "worker_isolation": state.worker_isolation or None,
        "verdict": _verdict(state),
        "base": _snapshot(state.base),
        "base_verification": verification(state.base_verification) if state.base_verification else None,
        "snapshot": _snapshot(shown),
        "best_turn": state.best,
    }


def turn(record: TurnRecord) -> Json:
    """One entry of ``turn_records``."""
    outcome = record.outcome
    worker = outcome.worker
    return {
        "turn": outcome.turn,
        "worker": {
            "outcome": worker.outcome,
            "exit_code": worker.exit_code,
            "seconds": round(worker.seconds, 3),
            "usage": _usage(worker.usage or Usage(seconds=worker.seconds)),
            "reason": worker.reason,
            "agent": worker.agent,
            "model": worker.model or None,
            "session": worker.session.id if worker.session is not None else None,
            "denials": list(worker.denials),
            **(_steps(worker) if worker.steps else {}),
            **({"untied": list(worker.untied)} if worker.untied else {}),
        },
        "snapshot": _snapshot(outcome.snapshot),
        "changed_files": outcome.snapshot.changed_files,
        "verification": verification(outcome.verification),
        "judgement": _judgement(outcome.judgement),
        "usage": _usage(turn_usage(outcome).but(seconds=_seconds(outcome))),
        "decision": record.decision,
        "reason": record.reason,
        "feedback": record.feedback,
    }


def _steps(worker: WorkerReport) -> Json:
    steps = {path: step.model_dump() for path, step in worker.steps.items()}
    return {"steps": steps, "counts": counts(worker.steps), "source": worker.source or None}


def counts(steps: Mapping[str, StepRecord]) -> Json:
    """How many steps of a flow ended how, and were reused; and how many workers: items and members, else steps.

    Args:
        steps: by their paths, with items (``ID[N]``) and members (``ID/NAME``) below them.
    """
    owners = {path[: mark.start()] for path in steps for mark in _BELOW.finditer(path)}
    kinds = {
        "steps": [step for path, step in steps.items() if not _BELOW.search(path)],
        "workers": [step for path, step in steps.items() if path not in owners],
    }
    return {
        kind: {**Counter(step.status for step in found), "cached": sum(step.cached for step in found)}
        for kind, found in kinds.items()
    }


def verification(report: VerificationReport) -> Json:
    """A verification, as turns and ``goalrun verify`` print it."""
    return {
        "outcome": report.outcome,
        "seconds": round(report.seconds, 3),
        "sandbox": report.sandbox,
        "checks": [
            {
                "command": check.command,
                "outcome": check.outcome,
                "grade": check.grade,
                "exit_code": check.exit_code,
                "seconds": round(check.seconds, 3),
                "tests": check.tests.model_dump() if check.tests else None,
                "reason": check.reason,
                "failing": list(check.failing),
                "output": check.output,
                "hidden": check.hidden,
            }
            for check in report.checks
        ],
        "tampering": [tamper.model_dump() for tamper in report.tampering],
    }


def _seconds(outcome: TurnOutcome) -> float:
    judged = outcome.judgement.seconds if outcome.judgement is not None else 0.0
    return outcome.worker.seconds + outcome.verification.seconds + judged


def _usage(usage: Usage) -> Json:
    return {**usage.model_dump(), "seconds": round(usage.seconds, 3)}


def _snapshot(snapshot: Snapshot | None) -> Json | None:
    if snapshot is None:
        return None
    shown: Json = {"commit": snapshot.commit, "tree": snapshot.tree}
    if snapshot.warnings:
        shown["warnings"] = list(snapshot.warnings)
    if snapshot.protected_edits:
        shown["protected_edits"] = [tamper.model_dump() for tamper in snapshot.protected_edits]
    return shown


def _judgement(judgement: Judgement | None) -> Json | None:
    if judgement is None:
        return None
    return {
        **judgement.verdict.model_dump(),
        "judge": judgement.judge,
        "attempts": judgement.attempts,
        "seconds": round(judgement.seconds, 3),
        "usage": _usage(judgement.usage or Usage(seconds=judgement.seconds)),
    }


def _latest(state: GoalState) -> tuple[VerificationReport | None, Judgement | None]:
    if state.turns:
        return state.turns[-1].outcome.verification, state.turns[-1].outcome.judgement
    return state.base_verification, state.base_judgement


def _sandbox(state: GoalState) -> str | None:
    report = _latest(state)[0]
    return report.sandbox if report is not None else None


def _verdict(state: GoalState) -> Json | None:
    judgement = _latest(state)[1]
    return None if judgement is None else {"achieved": judgement.verdict.achieved, "reason": judgement.verdict.reason}

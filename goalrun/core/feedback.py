"""What the next turn is told about the last one. Plain text, bounded; the prompt fences it as data."""

from collections.abc import Iterator

from goalrun.core.evidence import bounded, one_line
from goalrun.core.model import CheckResult, Continue, TurnOutcome

MAX_FEEDBACK_CHARS = 12_000
MAX_CHECK_CHARS = 3_000
MAX_LISTED = 30


def feedback(outcome: TurnOutcome, decision: Continue) -> str:
    """Protected edits first, then failing checks, then the judge's reason."""
    parts = [
        *_protected(outcome),
        *(part for check in outcome.verification.checks for part in _check(check)),
        *_worker(outcome),
    ]
    judgement = outcome.judgement
    if judgement is not None and not judgement.verdict.achieved:
        parts.append(f"The judge ({judgement.judge}) is not satisfied: {one_line(judgement.verdict.reason, 2000)}")
    if decision.warning:
        parts.append(decision.warning)
    return bounded("\n\n".join(parts), MAX_FEEDBACK_CHARS)


def failing_checks(checks: tuple[CheckResult, ...]) -> str:
    """The failing ones of some checks, as the feedback shows them."""
    return bounded("\n\n".join(part for check in checks for part in _check(check)), MAX_FEEDBACK_CHARS)


def _protected(outcome: TurnOutcome) -> Iterator[str]:
    restored = outcome.snapshot.protected_edits
    tampering = outcome.verification.tampering
    if restored:
        listed = "\n".join(f"- {tamper.path} ({tamper.kind})" for tamper in restored[:MAX_LISTED])
        yield f"Your edits to these protected paths were undone; they do not count:\n{listed}"
    for tamper in tampering:
        if tamper.kind == "forged":
            yield f"The result of this check is not true: a test that has to fail did not fail in it: {tamper.path}"
        elif tamper.kind == "escaped":
            yield f"While the checks ran, your code changed this protected path: {tamper.path}"
    edits = [tamper for tamper in tampering if tamper.kind not in {"forged", "escaped"}]
    if edits:
        listed = "\n".join(f"- {tamper.path} ({tamper.kind})" for tamper in edits[:MAX_LISTED])
        more = f"\n- and {len(edits) - MAX_LISTED} more" if len(edits) > MAX_LISTED else ""
        yield (
            "You changed protected paths. The checks ran without these edits, and the goal cannot be achieved "
            f"while they are there. Undo them (put new tests into new files):\n{listed}{more}"
        )


def _check(check: CheckResult) -> Iterator[str]:
    if check.outcome == "pass":
        return
    if check.hidden:
        yield "A check that you are not shown failed. The objective is not reached in full: think of what it asks for."
        return
    lines = [f"Check failed: {check.command}", f"Outcome: {check.outcome}. {check.reason}".rstrip(". ") + "."]
    if check.failing:
        lines.append("Failing tests:")
        lines.extend(f"- {test}" for test in check.failing[:MAX_LISTED])
        if len(check.failing) > MAX_LISTED:
            lines.append(f"- and {len(check.failing) - MAX_LISTED} more")
    if check.excerpt:
        lines.extend(("Output:", bounded(check.excerpt, MAX_CHECK_CHARS)))
    yield "\n".join(lines)


def _worker(outcome: TurnOutcome) -> Iterator[str]:
    worker = outcome.worker
    if worker.outcome == "timeout":
        yield f"Your last turn was ended after {worker.seconds:.0f} seconds. Work in smaller steps."
    elif worker.vetoed:
        yield f"A step of the flow says no: {one_line(worker.vetoed, 2000)}"
    elif worker.outcome == "failed" and worker.exit_code is None and worker.reason:
        yield f"A step of the flow failed: {one_line(worker.reason, 2000)}"
    elif worker.outcome == "failed":
        status = f"ended with exit status {worker.exit_code}." if worker.exit_code is not None else "failed."
        yield f"Your last turn {status}" + (f" {worker.reason}" if worker.exit_code is None and worker.reason else "")

"""What a flow does next: whether a step starts, or will never run, and why. There are no layers."""

from collections.abc import Mapping, Sequence
from typing import Literal

from goalrun.core.flow.model import Flow, Result, Step


def joined(
    flow: Flow, step: Step, needs: Sequence[str], settled: Mapping[str, Result]
) -> tuple[Literal["go", "skip", "wait"], str]:
    """Whether a step may start now, will never run, with the reason, or has to wait.

    Args:
        flow: the flow.
        step: one of its steps that is neither settled nor running.
        needs: what has to be settled before it.
        settled: what became of steps; one that waits for a person is not settled.
    """
    over = [need for need in needs if need in settled and settled[need].status != "waiting"]
    blocked = [need for need in over if settled[need].status == "blocked"]
    if blocked:
        return "skip", f"{blocked[0]} is blocked"
    good = [need for need in over if settled[need].ok or satisfied(flow.step(need), settled[need])]
    bad = [need for need in over if need not in good]
    if step.join == "all" and bad:
        return "skip", f"{bad[0]} {_became(settled[bad[0]])}"
    if not needs or len(good) == len(needs) or (step.join == "any" and good):
        return "go", ""
    if len(over) < len(needs):
        return "wait", ""
    return ("go", "") if step.join == "done" and good else ("skip", f"none of {', '.join(needs)} succeeded")


def _became(result: Result) -> str:
    return "was skipped" if result.status == "skipped" else f"is {result.status}"


def satisfied(step: Step, result: Result) -> bool:
    """Whether a settled step lets go what needs it."""
    return result.ok or (result.status == "failed" and step.optional)


def ending(flow: Flow, final: Step, settled: Mapping[str, Result]) -> Result:
    """What becomes of the flow as a whole, once nothing of it moves any more.

    Its output is that of the final step, else of the last step in order that is done.
    """
    steps = flow.main
    done = [step for step in steps if settled[step.id].ok]
    source = final if settled[final.id].ok else done[-1] if done else None
    told = settled[source.id] if source is not None else Result(status="skipped", text="(no output)")
    output = {"text": told.text, "json": told.json_, "agent": told.agent, "model": told.model}
    output["source"] = source.id if source is not None else ""
    blocked = next((step for step in steps if settled[step.id].status == "blocked"), None)
    waiting = next((step for step in steps if settled[step.id].status == "waiting"), None)
    failed = [step for step in steps if settled[step.id].status == "failed" and not step.optional]
    if blocked is not None:
        why = settled[blocked.id]
        text = f"{blocked.id} blocked the flow: {why.reason}\n\n{why.text}".strip()
        return Result(status="blocked", reason=f"{blocked.id}: {why.reason}", by=why.by or "worker", text=text)
    if waiting is not None:
        return Result(status="waiting", reason=settled[waiting.id].reason)
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return Result(status="failed", reason=f"{failed[0].id}: {settled[failed[0].id].reason}{more}", **output)
    if not done:
        return Result(status="failed", reason="no step ran", **output)
    return Result(status="done", **output)


def with_finally(result: Result, ended: Mapping[str, Result]) -> Result:
    """What becomes of a flow after the steps that run finally: the same, and what of them is not done is told."""
    bad = [f"finally, {name} {_became(each)}: {each.reason}" for name, each in ended.items() if not each.ok]
    return result.but(reason="; ".join(filter(None, (result.reason, *bad))))

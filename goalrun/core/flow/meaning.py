"""Keys of a step that mean nothing beside its others: said, not ignored."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from goalrun.core.flow.model import Step


class _Rule(NamedTuple):
    """Keys that mean something only where a condition holds."""

    keys: tuple[str, ...]
    holds: Callable[[Step], bool]
    needed: str


_RULES = (
    _Rule(("strategy", "pick", "score", "lead", "lead_prompt"), lambda step: bool(step.member), "member"),
    _Rule(("pick", "score"), lambda step: step.strategy == "compete", 'strategy = "compete"'),
    _Rule(("lead", "lead_prompt"), lambda step: step.strategy == "synthesize", 'strategy = "synthesize"'),
    _Rule(("max_turns", "protect", "may_change"), lambda step: bool(step.check), "check"),
    _Rule(("on_unclear",), lambda step: step.gate, "gate"),
    _Rule(("as_",), lambda step: step.each is not None, "each"),
    _Rule(("concurrency",), lambda step: step.each is not None or bool(step.member), "each or member"),
    _Rule(("with_",), lambda step: step.kind in {"flow", "python"}, "flow or python"),
    _Rule(("agent", "model"), lambda step: step.kind in {"prompt", "member", "python"}, "prompt or member"),
    _Rule(("idle_timeout",), lambda step: step.kind in {"prompt", "run", "member"}, "prompt, run or member"),
    _Rule(("apply",), lambda step: step.strategy != "all" or step.workspace == "worktree", 'workspace = "worktree"'),
    _Rule(
        ("workspace",),
        lambda step: step.strategy != "all" if step.member else step.kind in {"prompt", "run"},
        "prompt, run, or members that compete or are put together",
    ),
    _Rule(("setup",), lambda step: step.strategy != "all" or step.workspace == "worktree", 'workspace = "worktree"'),
)


def idle_keys(step: Step) -> Iterator[tuple[str, str, str]]:
    """Key, what is wrong with it, and what to do, for each that means nothing where it stands."""
    said: set[str] = set()
    for rule in _RULES:
        for key in rule.keys:
            if key in step.model_fields_set and key not in said and not rule.holds(step):
                said.add(key)
                name = key.rstrip("_")
                yield name, f"it means nothing without {rule.needed}", "add that, or take it out"
    if step.finally_:
        yield from ((key, "it means nothing for a step that runs finally", "take it out")
                    for key in ("needs", "final", "gate", "optional", "ask", "each") if getattr(step, key))  # fmt: skip
    if step.kind == "ask":
        yield from ((key, "it means nothing for a question to a person", "take it out")
                    for key in ("gate", "check", "each", "expect") if getattr(step, key))  # fmt: skip
    yield from _of_members(step)


def _of_members(step: Step) -> Iterator[tuple[str, str, str]]:
    if step.strategy == "synthesize" and step.member and step.lead is None:
        yield "lead", "who puts together what the members did is not said", 'lead = "AGENT"'
    for number, member in enumerate(step.member):
        if member.run is not None and (member.agent or member.prompt or member.prompt_add or member.model):
            yield "member", f"member {number + 1} is a command, and takes no agent, model or prompt", "keep one"
        if member.run is None and step.prompt is None and member.prompt is None:
            yield "member", f"member {number + 1} has no prompt", "give one to the step or to the member"

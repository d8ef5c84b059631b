"""What follows from a flow's text: which step comes after which, and which is its result."""

import heapq
from collections.abc import Iterator, Mapping, Sequence

from goalrun.core.flow.model import Flow, Step
from goalrun.core.flow.refs import ROOTS, Ref, find
from goalrun.core.flow.when import WhenError, parse

Where = tuple[str | int, ...]
"""A place in a flow's file: keys, and numbers in lists, as in ``("step", 2, "when")``."""


def roots(step: Step) -> frozenset[str]:
    """What a placeholder of this step may begin with."""
    return ROOTS | {step.as_} if step.each is not None else ROOTS


def texts(step: Step) -> Iterator[tuple[Where, str]]:
    """Every text of a step that takes placeholders, with its place in the step; ``when`` has its own grammar."""
    for key in ("prompt", "ask", "lead_prompt", "each"):
        value = getattr(step, key)
        if isinstance(value, str):
            yield (key,), value
    yield from _words(("run",), step.run)
    yield from _inside(("env",), dict(step.env))
    yield from _inside(("with",), dict(step.with_))
    for number, member in enumerate(step.member):
        for key in ("prompt", "prompt_add"):
            if getattr(member, key):
                yield ("member", number, key), getattr(member, key)
        yield from _words(("member", number, "run"), member.run)


def shell_texts(step: Step) -> Iterator[tuple[Where, str]]:
    """Every text of a step that a shell reads: there, a value could be taken for a command."""
    for key in ("run", "setup", "score"):
        if isinstance(getattr(step, key), str):
            yield (key,), getattr(step, key)
    for number, command in enumerate(step.check):
        yield ("check", number), command
    for number, member in enumerate(step.member):
        if isinstance(member.run, str):
            yield ("member", number, "run"), member.run


def _words(where: Where, run: str | tuple[str, ...] | None) -> Iterator[tuple[Where, str]]:
    if isinstance(run, tuple):
        yield from ((where, word) for word in run)


def _inside(where: Where, value: object) -> Iterator[tuple[Where, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, below in value.items():
            yield from _inside((*where, str(key)), below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _inside(where, below)


def refs(step: Step) -> list[tuple[Where, Ref]]:
    """Every placeholder of a step, with its place in the step; none of a guard that cannot be read."""
    found = [(where, ref) for where, text in texts(step) for ref in find(text, roots(step))]
    try:
        return found + [(("when",), ref) for ref in parse(step.when).refs]
    except WhenError:
        return found


def edges(step: Step) -> tuple[str, ...]:
    """The steps that have to be settled before this one: those it needs, and those that its texts refer to."""
    named = (ref[1] for _, ref in refs(step) if ref[0] == "steps" and len(ref) > 1)
    return tuple(dict.fromkeys(name for name in (*step.needs, *named) if name != step.id))


def final_step(flow: Flow) -> Step:
    """The step whose result is the flow's: the one that says so, else the last."""
    return next((step for step in flow.steps if step.final), (*flow.steps[:1], *flow.main)[-1])


def levels(flow: Flow) -> dict[str, int]:
    """How many steps have to come before each one, one after the other; in an order in which they could be done.

    A flow with a cycle has no such order; what is on it or behind it is left out.
    """
    before = {step.id: edges(step) for step in flow.steps}
    return _levels(before)


def _levels(before: Mapping[str, Sequence[str]]) -> dict[str, int]:
    place = {name: number for number, name in enumerate(before)}
    left = {name: sum(need in before for need in needs) for name, needs in before.items()}
    behind: dict[str, list[str]] = {name: [] for name in before}
    for name, needs in before.items():
        for need in needs:
            if need in before:
                behind[need].append(name)
    found: dict[str, int] = {}
    ready = [(0, place[name], name) for name in before if not left[name]]
    while ready:
        level, _, name = heapq.heappop(ready)
        found[name] = level
        for after in behind[name]:
            left[after] -= 1
            if not left[after]:
                # Levels never fall on the way, so the last need to be seen is the deepest.
                heapq.heappush(ready, (level + 1, place[after], after))
    return found

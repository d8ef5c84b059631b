"""A flow at work as lines for a terminal: the drawing of ``flow show --graph``, with what became of each step."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from rich.text import Text

from goalrun.cli.strokes import BAD, OFF, clock, icon, joined
from goalrun.core.evidence import one_line
from goalrun.core.flow.model import Flow
from goalrun.core.flow.outline import drawn
from goalrun.core.flow.plan import final_step
from goalrun.core.picture import Picture, StepPicture
from goalrun.core.spec import PLAIN_COMMAND

MAX_INNER = 6
"""Items and members of one step that are shown."""
_TELLING = {"running": 0, "waiting": 1, "blocked": 2, "failed": 3, "done": 4, "skipped": 5}
"""What is shown first of many items."""


def step_lines(flow: Flow, picture: Picture, now: datetime) -> list[Text]:
    """Every step with its rails; items and members below their own."""
    lines = []
    known = picture.steps
    for rail, name in drawn(flow):
        inner = {path: step for path, step in known.items() if name and path.startswith((f"{name}[", f"{name}/"))}
        lines.append(_step(f"  {rail}", name, known.get(name), now, tries="calls" if inner else "tries"))
        # The rail goes on below the step, unless nothing comes after it.
        lines += _inner(f"  {rail.replace('●', '│' if name != final_step(flow).id else ' ')}", name, inner, now)
    return lines


def _inner(rail: str, owner: str, inner: dict[str, StepPicture], now: datetime) -> Iterator[Text]:
    first = sorted(inner, key=lambda path: _TELLING.get(inner[path].status, 0))[:MAX_INNER]
    for path, step in inner.items():
        if path in first:
            yield _step(f"{rail}  ● ", path.removeprefix(owner).lstrip("/"), step, now)
    if len(inner) > MAX_INNER:
        counted = Counter(each.status for each in inner.values())
        yield joined((f"{rail}    {len(inner)} in all: {', '.join(f'{n} {s}' for s, n in counted.items())}", OFF))


def _step(rail: str, name: str, step: StepPicture | None, now: datetime, tries: str = "tries") -> Text:
    """One line; the step's icon is where its rail has a dot."""
    before, dot, behind = rail.partition("●")
    if not dot or step is None:
        return joined((before, OFF), icon("todo") if dot else "", (f"{behind} {one_line(name, 80)}", OFF))
    going = step.status == "running"
    took = (now - datetime.fromisoformat(step.began)).total_seconds() if going and step.began else step.seconds
    agent = step.model or step.agent
    # Those of an item are its own; a member is often called as its agent is.
    who = [one_line(agent, 40)] if agent not in {"", PLAIN_COMMAND, name} and tries == "tries" else []
    facts = [clock(max(0.0, took)), *who, *_facts(step, tries)]
    return joined(
        (before, OFF),
        icon("reused" if step.cached else step.status),
        (behind, OFF),
        (f" {one_line(name, 80)}", "bold" if going else ""),
        (f"  {' · '.join(facts)}", OFF),
        (f"  {one_line(step.reason, 200)}" if step.reason else "", BAD if step.status == "failed" else OFF),
    )


def _facts(step: StepPicture, tries: str) -> Iterator[str]:
    if step.cached:
        yield "reused"
    elif step.calls > 1:
        yield f"{step.calls} {tries}"
    if step.usage is not None and step.usage.total_tokens:
        yield f"{step.usage.total_tokens:,} tokens"
    if step.usage is not None and step.usage.usd:
        yield f"{step.usage.usd:.2f} USD"
    if step.winner:
        yield f"{one_line(step.winner, 40)} won"

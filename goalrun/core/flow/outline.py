"""A flow for people: its plan in order, and a drawing of what waits for what."""

from collections.abc import Iterator

from goalrun.core.flow.model import Flow, Step
from goalrun.core.flow.plan import edges, final_step, levels

MAX_SHOWN_CHARS = 60
_CORNERS = {
    # up, right, down, left
    (True, True, True, False): "├", (True, False, True, True): "┤", (True, True, True, True): "┼",
    (False, False, True, True): "╮", (False, True, True, False): "╭", (False, True, True, True): "┬",
    (True, False, False, True): "╯", (True, True, False, False): "╰", (True, True, False, True): "┴",
}  # fmt: skip


def outline(flow: Flow) -> str:
    """The plan in order: what runs after what, when, by whom, and what counts as done; one line for each step."""
    order = levels(flow)
    width = max(len(name) for name in order)
    depth = len(str(max(order.values()) + 1))
    lines = [f"{level + 1:>{depth}}  {name:<{width}}  {about(flow.step(name), flow)}" for name, level in order.items()]
    return "\n".join([_head(flow), *lines])


def _head(flow: Flow) -> str:
    size = f"{len(flow.steps)} step{'s' if len(flow.steps) > 1 else ''}"
    limits = [f"at most {flow.concurrency} calls at once"]
    if flow.budget.usd is not None:
        limits.append(f"at most {flow.budget.usd:g} USD")
    if flow.budget.tokens is not None:
        limits.append(f"at most {flow.budget.tokens} tokens")
    needed = [f"{name} (required)" if arg.required else name for name, arg in flow.args.items()]
    return f"{flow.name}: {size}; {', '.join(limits)}" + (f"; arguments {', '.join(needed)}" if needed else "")


def about(step: Step, flow: Flow) -> str:
    """One step: what it waits for, what it does, and how; one line."""
    return "; ".join([*_order(step), *_work(step), *_terms(step), *(["result"] if step == final_step(flow) else [])])


def _order(step: Step) -> Iterator[str]:
    if step.finally_:
        yield "finally"
        return
    needs = edges(step)
    joins = {"all": "after ", "any": "after any of ", "done": "after the end of "}
    if needs:
        yield joins[step.join] + ", ".join(needs)
    if step.when.strip():
        yield f"when {short(step.when)}"


def _work(step: Step) -> Iterator[str]:
    if step.each is not None:
        count = f"{len(step.each)} elements" if isinstance(step.each, tuple) else short(step.each)
        at_once = f", {step.concurrency} at once" if step.concurrency else ""
        yield f"for each {step.as_} of {count}{at_once}"
    if step.member:
        names = ", ".join(member.agent or (short(_words(member.run)) if member.run else "?") for member in step.member)
        how = {"all": "do", "compete": f"compete ({step.pick})", "synthesize": f"are put together by {step.lead}"}
        yield f"{names} {how[step.strategy]}"
    else:
        yield _doing(step)
    if step.workspace == "worktree" or step.strategy == "compete":
        yield "in worktrees of their own" if step.member else "in a worktree of its own"
    if not step.writes:
        yield "reads only"


def _doing(step: Step) -> str:
    match step.kind:
        case "prompt":
            return f"agent {step.agent}" if step.agent else "the goal's agent"
        case "run":
            return f"runs {short(_words(step.run))}"
        case "flow":
            return f"flow {step.flow}"
        case "python":
            return f"python {step.python}"
        case _:
            return f"asks a person: {short(step.ask or '')}"


def _terms(step: Step) -> Iterator[str]:
    if step.gate:
        yield "gate" + (" (passes if unclear)" if step.on_unclear == "pass" else "")
    if step.check:
        turns = f" within {step.max_turns} turns" if step.max_turns > 1 else ""
        yield f"has to pass{turns}: {short(', '.join(step.check))}"
    if step.expect is not None:
        yield f"answers {_expected(step)}"
    if step.retry.max:
        yield f"tried {step.retry.max + 1} times at most"
    if step.timeout is not None:
        yield f"{step.timeout:g} s at most"
    yield from (word for word, on in (("optional", step.optional), ("never reused", not step.cache)) if on)


def _expected(step: Step) -> str:
    if isinstance(step.expect, str):
        return {"json": "JSON", "array": "a list"}.get(step.expect, "by a schema")
    expect = step.expect or {}
    return "by a schema" if "$schema" in expect else f"with {', '.join(expect)}"


def _words(run: str | tuple[str, ...] | None) -> str:
    return run if isinstance(run, str) else " ".join(run or ())


def short(text: str) -> str:
    """A text as one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_SHOWN_CHARS else line[: MAX_SHOWN_CHARS - 1] + "…"


def graph(flow: Flow) -> str:
    """A drawing: one line for each step, rails to those that wait for it."""
    return "\n".join(f"{rail} {_label(name, flow)}".rstrip() for rail, name in drawn(flow))


def drawn(flow: Flow) -> list[tuple[str, str]]:
    """The rails of each line of the drawing, as wide as the widest, and the step that it is of; "" where rails turn."""
    order = levels(flow)
    behind = _behind(flow)
    rails: list[str | None] = []
    lines: list[tuple[str, str]] = []
    for name in order:
        here = _rail(rails, name)
        lines.append(("".join("● " if n == here else "│ " if rail else "  " for n, rail in enumerate(rails)), name))
        rails[here] = None
        above = {here, *(number for number, rail in enumerate(rails) if rail)}
        targets = {_rail(rails, after, here) for after in behind[name]}
        if targets - {here}:
            lines.append((_turn(len(rails), here, above, targets), ""))
        while rails and rails[-1] is None:
            rails.pop()
    width = max(len(rail) for rail, _ in lines)
    return [(f"{rail:<{width}}", name) for rail, name in lines]


def _behind(flow: Flow) -> dict[str, list[str]]:
    behind: dict[str, list[str]] = {step.id: [] for step in flow.steps}
    for step in flow.steps:
        for need in edges(step):
            if need in behind:
                behind[need].append(step.id)
    return behind


def _rail(rails: list[str | None], name: str, first: int = 0) -> int:
    """The rail that leads to a step: the one that does, else a free one, else one more."""
    if name in rails:
        return rails.index(name)
    free = [number for number, rail in enumerate(rails) if rail is None]
    number = first if first in free else next((n for n in free if n > first), len(rails))
    rails[number : number + 1] = [name]
    return number


def _turn(rails: int, here: int, above: set[int], targets: set[int]) -> str:
    """The line below a step, from its rail to those of the steps behind it; other rails pass through."""
    low, high = min(*targets, here), max(*targets, here)
    line = ""
    for number in range(rails):
        left, right = low < number <= high, low <= number < high
        if number == here or number in targets:
            line += _CORNERS[number in above, right, number in targets or number in above - {here}, left]
        else:
            line += "│" if number in above else "─" if left and right else " "
        line += "─" if right else " "
    return line


def _label(name: str, flow: Flow) -> str:
    if not name:
        return ""
    step = flow.step(name)
    said = [*_work(step), *(["gate"] if step.gate else []), *([f"when {short(step.when)}"] if step.when else [])]
    return f"{name}  {'; '.join(said)}"


def mermaid(flow: Flow) -> str:
    """The same as text for Mermaid (mermaid.js.org), which forges draw."""
    number = {name: place for place, name in enumerate(levels(flow))}
    lines = ["flowchart TD"]
    for name, place in number.items():
        step = flow.step(name)
        left, right = ("{{", "}}") if step.ask is not None else ("{", "}") if step.gate else ("[", "]")
        lines.append(f'    s{place}{left}"{_escaped(name)}<br/>{_escaped("; ".join(_work(step)))}"{right}')
    for name, place in number.items():
        step = flow.step(name)
        arrow = f'-. "{_escaped(short(step.when))}" .->' if step.when.strip() else "-->"
        lines += [f"    s{number[need]} {arrow} s{place}" for need in edges(step) if need in number]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Text in Mermaid's quotes, where only its own escapes of characters are read."""
    return "".join(char if char.isalnum() or char in " _-.,;:/=()" else f"#{ord(char)};" for char in text)

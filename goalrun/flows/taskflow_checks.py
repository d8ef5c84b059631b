"""What pi-taskflow itself refuses in a definition, and what has a type that it cannot have."""

import re
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

NEEDED = {
    "agent": ("task",),
    "parallel": ("branches",),
    "map": ("over", "task"),
    "gate": ("task",),
    "reduce": ("from", "task"),
    "approval": (),
    "flow": ("use",),
}
"""The types of phases, and what each has to have."""
MOST_PHASES = 1_000
_RETRY = {"max": (0, 20), "backoffMs": (0, 60_000), "factor": (1, 10)}
_TEXTS = ("type", "task", "as", "use", "join", "when", "agent", "model")
_FLAGS = ("final", "optional")


def wrong(data: object) -> list[str]:
    """All that is wrong with a definition, one line each, with the phase's id."""
    if not isinstance(data, dict):
        return ["a definition is an object"]
    phases = data.get("phases")
    if not isinstance(phases, list) or not phases:
        return [*_of_whole(data), "it has no phases, and no task, tasks or chain"]
    if len(phases) > MOST_PHASES:
        return [f"it has {len(phases)} phases; {MOST_PHASES} are the most"]
    if not all(isinstance(phase, dict) for phase in phases):
        return [*_of_whole(data), "a phase is an object"]
    found = [*_of_whole(data)]
    for number, phase in enumerate(phases, start=1):
        name = repr(phase["id"]) if _text(phase.get("id")) else f"number {number}"
        found += [f"phase {name}: {line}" for line in _of_phase(phase)]
    return found or list(_together(phases))


def _of_whole(data: dict[str, Any]) -> Iterator[str]:
    if not _text(data.get("name")):
        yield "name is missing"
    if not isinstance(data.get("description", ""), str):
        yield "description is no text"
    yield from _counted(data)
    budget = data.get("budget")
    if budget is not None and not isinstance(budget, dict):
        yield "budget is no object"
    for key in ("maxUSD", "maxTokens") if isinstance(budget, dict) else ():
        value = budget.get(key)
        if value is not None and (not _number(value) or value <= 0 or (key == "maxTokens" and value != int(value))):
            yield f"budget.{key} is {value!r:.40}; it has to be a number above 0"
    args = data.get("args")
    if args is not None and not isinstance(args, dict):
        yield "args is no object"
    for name, arg in args.items() if isinstance(args, dict) else ():
        if not isinstance(arg, dict):
            yield f"argument {name!r} is no object"
        elif not isinstance(arg.get("description", ""), str) or not isinstance(arg.get("required", False), bool):
            yield f"argument {name!r}: description is a text, required is true or false"
        elif _has_null(arg.get("default"), top=True):
            yield f"argument {name!r}: TOML has no null, which its default holds"


def _counted(data: dict[str, Any]) -> Iterator[str]:
    value = data.get("concurrency")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        yield f"concurrency is {value!r:.40}; it has to be a whole number from 1"


def _of_phase(phase: dict[str, Any]) -> Iterator[str]:
    if not _text(phase.get("id")):
        yield "id is missing"
    for key in _TEXTS:
        if phase.get(key) is not None and not isinstance(phase[key], str):
            yield f"{key} is no text"
    for key in _FLAGS:
        if phase.get(key) is not None and not isinstance(phase[key], bool):
            yield f"{key} is neither true nor false"
    for key in ("dependsOn", "from"):
        if phase.get(key) is not None and not _texts(phase[key]):
            yield f"{key} is no list of ids"
    if phase.get("join") not in {None, "all", "any"}:
        yield f"join is {phase['join']!r:.40}; it can be all or any"
    if phase.get("output") not in (None, "text", "json"):
        yield f"output is {phase['output']!r:.40}; it can be text or json"
    yield from _counted(phase)
    yield from _of_type(phase)
    yield from _of_retry(phase.get("retry"))


def _of_type(phase: dict[str, Any]) -> Iterator[str]:
    kind = phase.get("type") or "agent"
    if not isinstance(kind, str):
        return
    if kind not in NEEDED:
        yield f"unknown type {kind!r:.40}; known: {', '.join(NEEDED)}"
        return
    for key in NEEDED[kind]:
        value = phase.get(key)
        if value is None or value == [] or (isinstance(value, str) and not value.strip()):
            yield f"{key} is missing, which a phase of type {kind} needs"
    if kind == "parallel":
        yield from _of_branches(phase.get("branches"))
    if kind == "map":
        yield from _of_over(phase)
    given = phase.get("with")
    if kind == "flow" and given is not None and (not isinstance(given, dict) or _has_null(given)):
        yield "with is no object, or holds null, which TOML has not"


def _of_branches(branches: object) -> Iterator[str]:
    if branches is not None and not isinstance(branches, list):
        yield "branches is no list"
    for number, branch in enumerate(branches if isinstance(branches, list) else (), start=1):
        if not isinstance(branch, dict) or not _text(branch.get("task")):
            yield f"branch {number} has no task"
        elif not all(branch.get(key) is None or _text(branch[key]) for key in ("agent", "model")):
            yield f"branch {number}: agent and model are texts"


def _of_over(phase: dict[str, Any]) -> Iterator[str]:
    over = phase.get("over")
    if over is not None and (not isinstance(over, str | list) or _has_null(over)):
        yield "over is neither a text nor a list of values; TOML has no null"
    name = phase.get("as")
    if isinstance(name, str) and not re.fullmatch(r"[A-Za-z_]\w{0,63}", name):
        yield f"as is {name[:40]!r}; it has to be a name: letters, digits and _"
    elif name in {"args", "steps", "previous", "needs", "goal"}:
        yield f"as is {name!r}, which has a meaning of its own in placeholders"


def _of_retry(retry: object) -> Iterator[str]:
    if retry is not None and not isinstance(retry, dict):
        yield "retry is no object"
    for key, (least, most) in _RETRY.items() if isinstance(retry, dict) else ():
        value = retry.get(key)
        if value is not None and (not _number(value) or not least <= value <= most):
            yield f"retry.{key} is {value!r:.40}; it has to be from {least} to {most}"
        elif key == "max" and value is not None and value != int(value):
            yield f"retry.max is {value!r:.40}; it has to be a whole number"


def _together(phases: list[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with the phases as a whole, where each alone is right."""
    names = [phase["id"] for phase in phases]
    yield from (f"phase {name!r}: its id is given {n} times" for name, n in Counter(names).items() if n > 1)
    for phase in phases:
        for key in ("dependsOn", "from"):
            for need in phase.get(key) or ():
                if need not in names:
                    yield f"phase {phase['id']!r}: {key} names an unknown phase {need!r:.70}"
    finals = [phase["id"] for phase in phases if phase.get("final")]
    if len(finals) > 1:
        yield f"phase {finals[1]!r}: more than one phase is final: {', '.join(finals)}"
    try:
        TopologicalSorter({phase["id"]: dependencies(phase) for phase in phases}).prepare()
    except CycleError as failure:
        cycle = failure.args[1][::-1]
        yield f"phase {cycle[0]!r}: the phases wait for one another: {' -> '.join(cycle)}"


def dependencies(phase: dict[str, Any]) -> tuple[str, ...]:
    """The phases that one waits for, in the order in which they are declared."""
    return tuple(dict.fromkeys((*(phase.get("dependsOn") or ()), *(phase.get("from") or ()))))


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(_text(each) for each in value)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _has_null(value: object, *, top: bool = False) -> bool:
    if isinstance(value, dict):
        return any(_has_null(below) for below in value.values())
    if isinstance(value, list):
        return any(_has_null(below) for below in value)
    return value is None and not top

"""What is wrong with the form of a flow, in words: keys that nobody knows, values of the wrong kind."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from goalrun.core.flow.model import Arg, Flow, FlowBudget, Member, Retry, Step
from goalrun.core.flow.plan import Where
from goalrun.core.flow.problems import Problem
from goalrun.errors import meant

_TABLES: Mapping[str, type[BaseModel]] = {
    "step": Step, "member": Member, "args": Arg, "retry": Retry, "budget": FlowBudget, "flows": Flow,
}  # fmt: skip
_SHAPES = {
    "run": "a list of words, or text for a shell",
    "each": "a placeholder or a list",
    "needs": "a step's id, or a list of them",
    "check": "text, or a list of texts",
    "protect": "text, or a list of texts",
    "may_change": "text, or a list of texts",
    "expect": '"json", "array", a table of allowed values, or a schema\'s file',
}
_ELSEWHERE = {
    "dependsOn": "needs", "depends_on": "needs", "from": "needs", "task": "prompt", "over": "each", "use": "flow",
    "type": "no type: prompt, run, flow, python, ask or member says it", "output": "expect", "if": "when",
    "cmd": "run", "command": "run", "branches": "member", "members": "member", "phases": "step", "maxUSD": "usd",
    "maxTokens": "tokens", "uses": "flow", "continue-on-error": "optional",
}  # fmt: skip
"""What keys of other systems are called here."""


def faults(failure: ValidationError, data: Mapping[str, Any]) -> list[Problem]:
    """One problem for each place; a value of which no kind fits is one place."""
    found: dict[Where, Problem] = {}
    for error in failure.errors(include_url=False, include_context=False, include_input=False):
        where, named = _where(error["loc"], data)
        said = _unknown(where) if error["type"] == "extra_forbidden" else _wrong(where, error["type"], error["msg"])
        what = f"{', '.join(named)}: {said[0]}" if named else said[0]
        found.setdefault(where, Problem(where, what, said[1]))
    # A list of which every element is wrong also counts as empty.
    return [found[where] for where in found if not any(other[: len(where)] == where != other for other in found)]


def _where(loc: tuple[int | str, ...], data: Mapping[str, Any]) -> tuple[Where, list[str]]:
    """The part of a place that is in the data (the rest names what was tried), and the same in words."""
    where: list[str | int] = []
    words: list[str] = []
    at: Any = data
    for part in ("step" if key == "steps" else key for key in loc):
        held = "steps" if part == "step" else part
        if isinstance(at, dict) and held in at:
            at = at[held]
            words.append(str(part))
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            at = at[part]
            if where[-1] == "step" and isinstance(at, dict) and isinstance(at.get("id"), str):
                words = [*words[:-1], f"step {at['id'][:64]!r}"]
            else:
                words = [*words[:-1], f"{where[-1]} {part + 1}"]
        elif isinstance(at, dict) and part == loc[-1]:
            words.append(str(part))
            at = None
        else:
            break
        where.append(part)
    return tuple(where), words


def _unknown(where: Where) -> tuple[str, str]:
    key = str(where[-1])
    tables = [part for part in where[:-1] if isinstance(part, str) and part in _TABLES]
    model = _TABLES[tables[-1]] if tables else Flow
    known = sorted(field.alias or name for name, field in model.model_fields.items() if name != "source")
    known = ["step" if name == "steps" else name for name in known]
    here = _ELSEWHERE.get(key)
    hint = f"did you mean {here}?" if here else meant(key, known, f"known: {', '.join(known)}")
    return "nobody knows this key", hint


def _wrong(where: Where, kind: str, message: str) -> tuple[str, str]:
    key = where[-1] if where else ""
    if kind == "missing":
        return "it is missing", ""
    if kind in {"string_too_short", "too_short"}:
        return "it is empty", ""
    if key in _SHAPES and not kind.startswith("value_error"):
        return f"it must be {_SHAPES[str(key)]}", ""
    if kind == "string_pattern_mismatch":
        return "it may hold letters, digits, - and _ only", ""
    said = message.removeprefix("Value error, ").replace("Input should be", "it must be")
    return said[:1].lower() + said[1:], ""

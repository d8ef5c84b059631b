"""Definitions of pi-taskflow, as flows that mean the same: its JSON is read as its version 0.0.6 reads it."""

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tomli_w

from goalrun.core.evidence import one_line
from goalrun.core.flow.model import FLOW_NAME
from goalrun.core.flow.problems import problems
from goalrun.errors import FlowError
from goalrun.flows.parse import failed, parse_flow
from goalrun.flows.taskflow_checks import wrong
from goalrun.flows.taskflow_phases import Said, Texts, steps_of

AGENT = "pi"
"""Who its agents are run by: the program that pi-taskflow extends."""
CONCURRENCY, MOST = 8, 64
MAX_CHARS = 5_000_000
_KNOWN = {"name", "description", "args", "concurrency", "budget", "phases", "task", "tasks", "chain"}
_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
Finder = Callable[[str], str | None]
"""The text of a saved definition by its name; None where there is none."""


class Imported(NamedTuple):
    """A flow's TOML, and what of the definition could not be kept or means something else here; one line each."""

    toml: str
    told: tuple[str, ...]


def import_taskflow(text: str, source: str, name: str = "", find: Finder = lambda _name: None) -> Imported:
    """What a definition says, as TOML.

    Args:
        text: JSON, which may have comments.
        source: where it is from, for what is told.
        name: what the flow is to be called; "" as the definition says.
        find: finds the definitions that it uses; those become part of the flow.

    Raises:
        FlowError: it is none; ``found`` has every line.
    """
    try:
        return _imported(_read(text, source), source, name, find)
    except RecursionError as failure:
        raise FlowError(f"{source} is nested too deeply") from failure


def _imported(data: dict[str, Any], source: str, name: str, find: Finder) -> Imported:
    said = Said([])
    flow = _flow(data, said)
    flow["name"] = name or _called(str(data["name"]), said)
    missing = _inner(flow, [str(data["name"])], said, find, source)
    told = tuple(dict.fromkeys(one_line(line, 500) for line in said.lines))
    toml = _written(flow, (f"imported from {source}", *told))
    _proven(toml, source, missing)
    return Imported(toml, told)


def _read(text: str, source: str) -> dict[str, Any]:
    """A definition with its shorthand written out, which its own checks let pass."""
    if len(text) > MAX_CHARS:
        raise FlowError(f"{source} has more than {MAX_CHARS} characters")
    bare = _COMMENT.sub(lambda match: match[1] or re.sub(r"[^\n]", " ", match[0]), text)
    try:
        data = json.loads(bare, parse_constant=_finite, parse_float=_finite)
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as failure:
        raise FlowError(f"{source}: a text in it holds half a character (a lone surrogate)") from failure
    except ValueError as failure:
        raise FlowError(f"{source}: not valid JSON: {one_line(str(failure))}") from failure
    data = _longhand(data) if isinstance(data, dict) else data
    if lines := [f"{source}: {line}" for line in wrong(data)]:
        raise failed([one_line(line, 500) for line in lines])
    return dict(data)


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(f"{text} is no number")
    return number


def _longhand(data: dict[str, Any]) -> dict[str, Any]:
    """The phases of a chain, of tasks at once, or of one task; a step may be just its text."""
    if data.get("phases") is not None:
        return data
    rest = {key: value for key, value in data.items() if key not in {"chain", "tasks", "task"}}
    if data.get("chain") is not None and isinstance(data["chain"], list):
        steps: list[Any] = [_as_phase(step) for step in data["chain"]]
        for number, step in enumerate(steps, start=1):
            if isinstance(step, dict):
                before = {"dependsOn": [f"step{number - 1}"]} if number > 1 else {}
                last = {"final": True} if number == len(steps) else {}
                steps[number - 1] = {**step, "id": f"step{number}", **before, **last}
        return {"name": "chain", **rest, "phases": steps}
    if data.get("tasks") is not None and isinstance(data["tasks"], list):
        branches = [_as_phase(step) for step in data["tasks"]]
        return {"name": "parallel", **rest, "phases": [{"id": "parallel", "type": "parallel", "branches": branches}]}
    if data.get("task") is not None:
        own = {key: rest.pop(key) for key in ("agent", "model", "output", "thinking", "tools", "cwd") if key in rest}
        return {"name": "task", **rest, "phases": [{"id": "main", "task": data["task"], **own, "final": True}]}
    return data


def _as_phase(step: object) -> object:
    return {"task": step} if isinstance(step, str) else step


def _called(name: str, said: Said) -> str:
    if FLOW_NAME.fullmatch(name):
        return name
    short = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:64] or "imported"
    said.tell(f"the name {name!r} cannot be a flow's here: it is {short!r}")
    return short


def _flow(data: dict[str, Any], said: Said) -> dict[str, Any]:
    """A definition in the keys of a flow."""
    texts = Texts(data["phases"], said)
    steps = list(steps_of(data["phases"], texts, said))
    flow: dict[str, Any] = {"name": ""}
    if data.get("description"):
        flow["description"] = data["description"]
    flow["concurrency"] = min(MOST, int(data.get("concurrency") or CONCURRENCY))
    if flow["concurrency"] < (data.get("concurrency") or 0):
        said.tell(f"concurrency {data['concurrency']} is more than {MOST}, the most here")
    budget = data.get("budget") or {}
    kept = {ours: budget[theirs] for theirs, ours in (("maxUSD", "usd"), ("maxTokens", "tokens")) if budget.get(theirs)}
    if kept:
        flow["budget"] = kept
    for key in sorted(data.keys() - _KNOWN):
        said.tell(f"{key} = {_shown(data[key])} has no counterpart and is left out")
    declared = {name: _arg(name, arg, said) for name, arg in (data.get("args") or {}).items()}
    for name in dict.fromkeys(texts.args):
        if name not in declared:
            declared[name] = {}
            said.tell(f"argument {name!r} was not declared; it is here, as every argument is")
    names = {member.get("agent") for step in steps for member in (step, *step.get("member", ()))} - {None}
    if names:
        said.tell(f"agents are run by {AGENT}; what their profiles say (prompt, tools, model) is not taken over")
        said.tell("what may write in the workspace takes turns; writes = false lets steps that only read run at once")
    agents = {name: {"use": AGENT} for name in sorted(str(name) for name in names)}
    return {**flow, "args": declared, "agents": agents, "step": steps}


def _arg(name: str, given: Mapping[str, Any], said: Said) -> dict[str, Any]:
    arg: dict[str, Any] = {}
    if given.get("default") is not None:
        arg["default"] = given["default"]
    if given.get("required"):
        if "default" in arg:
            said.tell(f"argument {name!r}: required is left out, because it has a default")
        else:
            arg["required"] = True
    if given.get("description"):
        arg["help"] = given["description"]
    for key in sorted(given.keys() - {"default", "required", "description"}):
        said.tell(f"argument {name!r}: {key} has no counterpart and is left out")
    return arg


def _inner(flow: dict[str, Any], stack: list[str], said: Said, find: Finder, source: str) -> set[str]:
    """Put the definitions that a flow uses inside it; the names of those that are not found."""
    flows: dict[str, Any] = {}
    missing: set[str] = set()
    rest = [(flow, stack)]
    while rest:
        now, chain = rest.pop()
        for step in (step for step in now["step"] if "flow" in step):
            used = step["flow"]
            if used in chain:
                raise FlowError(one_line(f"{source}: flows use one another without end: {' -> '.join([*chain, used])}"))
            if used not in flows and (text := find(used)) is not None:
                data = _read(text, f"{source}, flow {used!r}")
                flows[used] = _flow(data, said._replace(where=f"flow {used!r}: "))
                rest.append((flows[used], [*chain, used]))
            if used in flows:
                # There, what is given and not declared is an argument as well.
                flows[used]["args"] = {**{key: {} for key in step.get("with", {})}, **flows[used]["args"]}
            elif used not in missing:
                missing.add(used)
                said.tell(f"phase {step['id']!r} uses flow {used!r}, which is not beside it: import it, too")
    for inner in flows.values():
        del inner["name"]
        # There, nobody sees to it that a flow that is used is given what it requires.
        inner["args"] = {
            name: {key: value for key, value in arg.items() if key != "required"} for name, arg in inner["args"].items()
        }
    flow["flows"] = flows
    return missing


def _written(flow: dict[str, Any], told: Sequence[str]) -> str:
    """A flow as TOML; told: comments above it."""
    comments = "".join(f"# {line}\n" for line in told)
    text = comments + _tables(flow, (), multiline=True)
    # A text with carriage returns does not survive as several lines.
    return text if tomllib.loads(text) == _pruned(flow) else comments + _tables(flow, (), multiline=False)


def _pruned(flow: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in flow.items() if value or key not in {"args", "agents", "flows"}}
    if "flows" in kept:
        kept["flows"] = {name: _pruned(inner) for name, inner in kept["flows"].items()}
    return kept


def _tables(flow: dict[str, Any], at: tuple[str, ...], *, multiline: bool) -> str:
    """A flow's head, its steps, one below the other, and the flows inside it."""
    kept = _pruned(flow)
    steps, flows = kept.pop("step"), kept.pop("flows", {})
    parts = [tomli_w.dumps(_below(at, kept), multiline_strings=multiline)] if kept else []
    for step in steps:
        text = tomli_w.dumps(_below((*at, "step"), step), multiline_strings=multiline)
        head, _, body = text.partition("\n")
        parts.append(f"[{head}]\n{body}")
    parts += [_tables(inner, ("flows", name), multiline=multiline) for name, inner in flows.items()]
    return "\n".join(parts)


def _below(at: tuple[str, ...], table: dict[str, Any]) -> dict[str, Any]:
    for key in reversed(at):
        table = {key: table}
    return table


def _proven(toml: str, source: str, missing: set[str]) -> None:
    """Hold what was made against what a flow file may say."""
    try:
        flow = parse_flow(tomllib.loads(toml), source)
    except FlowError as failure:
        raise failed([f"{source} cannot be a flow here: {line.split(': ', 1)[-1]}" for line in failure.found]) from None
    found = [
        problem
        for problem in problems(flow, {AGENT})
        if not any(problem.what.endswith(f"unknown flow {name!r}") for name in missing)
    ]
    if found:
        raise failed([f"{source} cannot be a flow here: {one_line(problem.what, 300)}" for problem in found])


def _shown(value: object) -> str:
    return one_line(json.dumps(value, ensure_ascii=False), 60)

"""What is wrong with a flow, before anything is spent: all of it, not just the first."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import NamedTuple, TypeVar

from goalrun.core.flow.args import complete, fitted
from goalrun.core.flow.expect import bad_expect
from goalrun.core.flow.meaning import idle_keys
from goalrun.core.flow.model import MAX_PROMPT_CHARS, Flow, Step
from goalrun.core.flow.plan import Where, edges, refs, roots, shell_texts, texts
from goalrun.core.flow.refs import PLACEHOLDER, ROOTS, Ref, find, shown
from goalrun.core.flow.when import WhenError, parse
from goalrun.errors import GoalrunError, SpecError, meant

STEP_FIELDS = ("output", "json", "diff", "status", "reason")
"""What ``{steps.ID.…}`` can be about; below ``json`` come its fields."""
GOAL_FIELDS = ("objective", "turn", "feedback", "hints", "prompt")
MOST_NAMES = 12
MOST_CYCLES = 20
FlowFinder = Callable[[str], Flow | None]
"""A flow that has a file of its own, by name; raises ``GoalrunError`` for one that is broken."""


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        where: its place in the flow's file.
        what: what is wrong, and at which step, on one line.
        source: that file; "" for a flow without one.
    """

    where: Where
    what: str
    hint: str = ""
    source: str = ""


_Key = TypeVar("_Key", int, str)


class _Scope(NamedTuple):
    """What the steps of a flow can name; ``find`` raises ``GoalrunError`` for a flow that is broken."""

    flow: Flow
    agents: frozenset[str]
    find: FlowFinder


def problems(flow: Flow, agents: Collection[str], flows: FlowFinder = lambda _name: None) -> list[Problem]:
    """Everything that is wrong with a flow and those that it uses.

    Args:
        flow: as it was read.
        agents: names that are known beside the flow's own.
        flows: finds flows that have files of their own.
    """
    survey = _Survey(flow, frozenset(agents), flows)
    survey.visit(flow, survey.agents, {}, ())
    return [*survey.found, *survey.recursion()]


class _Survey:
    """A walk over a flow and all that it uses, each of them once."""

    def __init__(self, top: Flow, agents: frozenset[str], flows: FlowFinder) -> None:
        self.agents = agents
        self.found: list[Problem] = []
        self._flows = flows
        self._loaded: dict[str, Flow | None] = {top.name: top}
        self._visited: dict[int, tuple[Flow, Where, list[tuple[int, Flow]]]] = {}

    def visit(self, flow: Flow, agents: frozenset[str], near: Mapping[str, Flow], at: Where) -> None:
        """Look at one flow, at those inside it, and at those with files that it uses."""
        calls: list[tuple[int, Flow]] = []
        self._visited[id(flow)] = (flow, at, calls)
        near = {**near, **flow.flows}
        scope = _Scope(flow, agents | set(flow.agents), lambda name: near.get(name) or self._load(name))
        found = [*_of_agents(flow, agents), *_of_whole(flow), *_of_steps(scope)]
        self.found += [_placed(problem, flow, at) for problem in found]
        for name, inner in flow.flows.items():
            self.visit(inner, scope.agents, near, (*at, "flows", name))
        for number, step in enumerate(flow.steps):
            used = _found(scope, step.flow)
            if used is not None:
                calls.append((number, used))
                if id(used) not in self._visited and step.flow not in near:
                    self.visit(used, self.agents, {}, ())

    def _load(self, name: str) -> Flow | None:
        if name not in self._loaded:
            self._loaded[name] = self._flows(name)
        return self._loaded[name]

    def recursion(self) -> Iterator[Problem]:
        """Flows that use one another without end; each chain once."""
        graph: Mapping[int, Sequence[int]] = {
            key: [id(used) for _, used in calls] for key, (_, _, calls) in self._visited.items()
        }
        for _ in range(MOST_CYCLES):
            cycle = _cycle(graph)
            if not cycle:
                return
            # The sorter goes from what is needed to what needs it; calls go the other way.
            chain = cycle[::-1]
            flow, at, calls = self._visited[chain[0]]
            number = next(number for number, used in calls if id(used) == chain[1])
            names = " -> ".join(self._visited[key][0].name for key in chain)
            what = f"flows use one another without end: {names}"
            yield _placed(Problem(("step", number, "flow"), what, "use another flow here"), flow, at)
            graph = _without(graph, cycle)


def _found(scope: _Scope, name: str | None) -> Flow | None:
    try:
        return scope.find(name) if name is not None else None
    except GoalrunError:
        return None


def _cycle(graph: Mapping[_Key, Iterable[_Key]]) -> list[_Key]:
    """A cycle, its first member last again, each before what needs it; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as failure:
        return list(failure.args[1])
    return []


def _without(graph: Mapping[_Key, Sequence[_Key]], cycle: list[_Key]) -> Mapping[_Key, Sequence[_Key]]:
    """The graph without what makes the cycle: what another one shares with it is left to be found."""
    gone = set(pairwise(cycle))
    return {key: [need for need in needs if (need, key) not in gone] for key, needs in graph.items()}


def _placed(problem: Problem, flow: Flow, prefix: Where) -> Problem:
    at = place(flow, problem.where)
    what = f"{at}: {problem.what}" if at else problem.what
    return Problem((*prefix, *problem.where), what, problem.hint, flow.source)


def _of_args(flow: Flow) -> Iterator[Problem]:
    for name, arg in flow.args.items():
        bounded = [key for key in ("min", "max") if getattr(arg, key) is not None]
        if bounded and arg.type not in {"int", "number"}:
            yield Problem(("args", name, bounded[0]), "it means something only for numbers", 'type = "int"')
        for key, value in (("default", arg.default), *(("enum", value) for value in arg.enum)):
            try:
                fitted(arg, value)
            except ValueError as failure:
                yield Problem(("args", name, key), str(failure))


def _of_whole(flow: Flow) -> Iterator[Problem]:
    yield from _of_args(flow)
    yield from _of_finally(flow)
    if "budget" in flow.model_fields_set and flow.budget.usd is None and flow.budget.tokens is None:
        yield Problem(("budget",), "the budget limits nothing", "usd = 1.5, or tokens = 500_000")
    for name, times in Counter(step.id for step in flow.steps).items():
        numbers = [number for number, step in enumerate(flow.steps) if step.id == name]
        if times > 1:
            yield Problem(
                ("step", numbers[1], "id"), f"the id {name!r} is given {times} times", "every step has its own"
            )
    finals = [(number, step.id) for number, step in enumerate(flow.steps) if step.final]
    if len(finals) > 1:
        names = ", ".join(name for _, name in finals)
        yield Problem(("step", finals[1][0], "final"), f"more than one step is final: {names}", "keep one of them")
    yield from _cycles(flow)


def _cycles(flow: Flow) -> Iterator[Problem]:
    graph: Mapping[str, Sequence[str]] = {step.id: edges(step) for step in flow.steps}
    numbers = {step.id: number for number, step in enumerate(flow.steps)}
    for _ in range(MOST_CYCLES):
        cycle = _cycle(graph)
        if not cycle:
            return
        what = f"the steps wait for one another: {' -> '.join(cycle)}"
        yield Problem(("step", numbers[cycle[0]]), what, "take out one of these needs or references")
        graph = _without(graph, cycle)


def _of_agents(flow: Flow, known: frozenset[str]) -> Iterator[Problem]:
    for name, table in flow.agents.items():
        ways = [key for key in ("use", "run", "command") if key in table]
        if len(ways) != 1:
            said = " and ".join(ways) or "none"
            yield Problem(("agents", name), f"an agent needs one of use, run, command; it has {said}")
        used = table.get("use")
        # An agent may have the name of the one that it uses, so its own flow's names do not count.
        if "use" in table and (not isinstance(used, str) or used not in known):
            yield from _unknown(("agents", name, "use"), "agent", str(used), known)


def _of_finally(flow: Flow) -> Iterator[Problem]:
    if not flow.main:
        yield Problem(("step", 0, "finally"), "all steps run finally", "one has to be the work that they follow")
    last = {step.id for step in flow.steps if step.finally_}
    for number, step in enumerate(flow.steps):
        for need in last.intersection(edges(step)):
            what = f"it waits for {need}, which runs when all others are over"
            yield Problem(("step", number), what, f"take out that, or the finally of {need}")


def _of_steps(scope: _Scope) -> Iterator[Problem]:
    for number, step in enumerate(scope.flow.steps):
        found = [*_named(step, scope), *_texts(step), *_refs(step, scope.flow), *_with(step, scope), *_meaning(step)]
        yield from (problem._replace(where=("step", number, *problem.where)) for problem in found)


def _named(step: Step, scope: _Scope) -> Iterator[Problem]:
    ids = {other.id for other in scope.flow.steps}
    for need in step.needs:
        if need == step.id:
            yield Problem(("needs",), "the step needs itself")
        elif need not in ids:
            yield from _unknown(("needs",), "step", need, ids)
    members = [(("member", number, "agent"), member.agent) for number, member in enumerate(step.member)]
    for where, agent in [(("agent",), step.agent), (("lead",), step.lead), *members]:
        if agent is not None and agent not in scope.agents:
            yield from _unknown(where, "agent", agent, scope.agents)


def _texts(step: Step) -> Iterator[Problem]:
    try:
        parse(step.when)
    except WhenError as failure:
        yield Problem(("when",), f"it cannot be read: {failure}", "compare with ==, combine with && and ||")
    for where, text in shell_texts(step):
        if found := find(text, ROOTS | {step.as_}):
            hint = "write run as a list of words" if where[-1] == "run" else "give it to run as a list, or as a file"
            yield Problem(where, f"a shell would read {shown(found[0])} as part of its commands", f"{hint}, or use env")
    longest = [(where, len(text)) for where, text in texts(step) if len(text) > MAX_PROMPT_CHARS]
    yield from (Problem(where, f"it has {size} characters; {MAX_PROMPT_CHARS} are the most") for where, size in longest)
    if isinstance(step.each, str) and not PLACEHOLDER.fullmatch(step.each.strip()):
        yield Problem(
            ("each",), "it is neither a list nor one placeholder", 'each = ["a", "b"], or "{steps.plan.json}"'
        )
    for key in ("prompt", "ask"):
        if getattr(step, key) is not None and not getattr(step, key).strip():
            yield Problem((key,), "it is empty")
    if step.each is not None and step.as_ in ROOTS - {"item"}:
        yield Problem(("as",), f"{step.as_!r} has a meaning of its own in placeholders", "take another name")
    if step.expect is not None and (why := bad_expect(step.expect)):
        yield Problem(("expect",), why)


def _refs(step: Step, flow: Flow) -> Iterator[Problem]:
    for where, ref in refs(step):
        yield from (problem._replace(where=where) for problem in _ref(ref, where, step, flow))


def _ref(ref: Ref, where: Where, step: Step, flow: Flow) -> Iterator[Problem]:
    root, names = ref[0], ref[1:]
    if root == "steps":
        yield from _step_ref(ref, step, flow)
    elif root == "args":
        if names and names[0] not in flow.args:
            yield from _unknown((), "argument", names[0], flow.args)
    elif root == "goal":
        if len(names) != 1 or names[0] not in GOAL_FIELDS:
            yield from _unknown((), "reference", shown(ref), [shown(("goal", name)) for name in GOAL_FIELDS])
    elif root in {"needs", "previous"}:
        # There it stands for what the members said.
        if not edges(step) and (root, where[0]) != ("needs", "lead_prompt"):
            yield Problem((), f"{shown(ref)} stands for nothing: the step needs no other", 'needs = ["…"]')
        elif names[:1] != () if root == "needs" else not _is_field(names):
            known = [shown(("needs",))] if root == "needs" else [shown(("previous", name)) for name in STEP_FIELDS]
            yield from _unknown((), "reference", shown(ref), known)
    else:
        yield from _item_ref(ref, where, step)


def _step_ref(ref: Ref, step: Step, flow: Flow) -> Iterator[Problem]:
    ids = [other.id for other in flow.steps]
    if len(ref) == 1 or ref[1] not in ids:
        yield from _unknown((), "step", ref[1] if len(ref) > 1 else shown(ref), ids)
    elif ref[1] == step.id:
        yield Problem((), f"the step refers to itself: {shown(ref)}")
    elif not _is_field(ref[2:]):
        yield from _unknown((), "reference", shown(ref), [shown(("steps", ref[1], name)) for name in STEP_FIELDS])


def _is_field(names: Ref) -> bool:
    return bool(names) and names[0] in STEP_FIELDS and (len(names) == 1 or names[0] == "json")


def _item_ref(ref: Ref, where: Where, step: Step) -> Iterator[Problem]:
    inside = roots(step) - (ROOTS - {"item"})
    if step.each is None and ref[0] == "item":
        yield Problem(
            (), f"{shown(ref)} means something only with each", "for the text itself, put blanks inside the braces"
        )
    elif step.each is not None and ref[0] != step.as_ and ref[0] in inside:
        yield Problem((), f"the elements are called {step.as_}, not {ref[0]}", shown((step.as_, *ref[1:])))
    elif step.each is not None and where[0] in {"when", "each"}:
        yield Problem((), f"{shown(ref)} has no meaning here: {where[0]} is read once, before the elements are known")
    elif ref[0] not in inside:
        yield from _unknown((), "reference", shown(ref), [shown((root,)) for root in sorted(roots(step))])


def _with(step: Step, scope: _Scope) -> Iterator[Problem]:
    if step.flow is None:
        return
    try:
        inner = scope.find(step.flow)
    except GoalrunError as failure:
        yield Problem(("flow",), str(failure), failure.hint)
        return
    if inner is None:
        yield from _unknown(("flow",), "flow", step.flow, scope.flow.flows)
        return
    try:
        later = [name for name, value in step.with_.items() if find(json.dumps(value), roots(step))]
        complete(step.with_, inner.args, later)
    except SpecError as failure:
        yield Problem(("with",), f"flow {step.flow!r}: {failure}", failure.hint)


def _meaning(step: Step) -> Iterator[Problem]:
    yield from (Problem((key,), what, hint) for key, what, hint in idle_keys(step))


def _unknown(where: Where, noun: str, name: str, known: Iterable[str]) -> Iterator[Problem]:
    names = sorted(known)
    listed = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
    hint = meant(name, names, f"known: {listed}" if names else "there is none")
    yield Problem(where, f"unknown {noun} {name!r}", hint)


def place(flow: Flow, where: Where) -> str:
    """A place in words: ``step 'deep', when``."""
    match where:
        case ("flows", str(name), *rest) if name in flow.flows:
            return ", ".join(filter(None, (f"flow {name!r}", place(flow.flows[name], tuple(rest)))))
        case ("step", int(number), *rest) if number < len(flow.steps):
            return ", ".join((f"step {flow.steps[number].id!r}", *_plain(rest)))
        case _:
            return ", ".join(_plain(where))


def _plain(where: Iterable[str | int]) -> Iterator[str]:
    yield from (f"number {part + 1}" if isinstance(part, int) else part for part in where)

"""What is wrong with a flow, before anything is spent: all of it, not just the first."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from goalrun.core.flow.args import complete
from goalrun.core.flow.expect import bad_expect
from goalrun.core.flow.meaning import idle_keys
from goalrun.core.flow.model import MAX_PROMPT_CHARS, Flow, Step
from goalrun.core.flow.plan import Where, edges, refs, roots, shell_texts, texts
from goalrun.core.flow.refs import PLACEHOLDER, ROOTS, Ref, find, shown
from goalrun.core.flow.when import WhenError, parse
from goalrun.errors import GoalrunError, SpecError

STEP_FIELDS = ("output", "json", "diff", "status", "reason")
"""What ``{steps.ID.…}`` can be about; below ``json`` come its fields."""
GOAL_FIELDS = ("objective", "turn", "feedback")
MOST_NAMES = 12
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


class _Scope(NamedTuple):
    """What the steps of a flow can name."""

    flow: Flow
    agents: frozenset[str]
    flows: FlowFinder
    chain: tuple[str, ...]

    def find(self, name: str) -> Flow | None:
        inline = self.flow.flows.get(name)
        return self.flows(name) if inline is None else inline


def problems(flow: Flow, agents: Collection[str], flows: FlowFinder = lambda _name: None) -> list[Problem]:
    """Everything that is wrong with a flow and those that it uses.

    Args:
        flow: as it was read.
        agents: names that are known beside the flow's own.
        flows: finds flows that have files of their own.
    """
    return list(_of_flow(_Scope(flow, frozenset(agents), flows, (flow.name,)), (), set()))


def _of_flow(scope: _Scope, prefix: Where, seen: set[int]) -> Iterator[Problem]:
    flow = scope.flow
    seen.add(id(flow))
    of_agents = list(_of_agents(scope))
    scope = scope._replace(agents=scope.agents | set(flow.agents))
    found = [*of_agents, *_of_whole(flow), *_of_steps(scope)]
    yield from (_placed(problem, flow, prefix) for problem in found)
    for name, inner in flow.flows.items():
        # Its steps may name what stands beside it.
        yield from _of_flow(scope._replace(flow=inner, flows=scope.find, chain=(*scope.chain, name)),
                            (*prefix, "flows", name), seen)  # fmt: skip
    for number, step in enumerate(flow.steps):
        if step.flow is not None:
            yield from _of_sub_flow(scope, step.flow, ("step", number, "flow"), prefix, seen)


def _placed(problem: Problem, flow: Flow, prefix: Where) -> Problem:
    at = place(flow, problem.where)
    what = f"{at}: {problem.what}" if at else problem.what
    where = (*prefix, *problem.where)
    return Problem(where, what, problem.hint, flow.source)


def _of_sub_flow(scope: _Scope, name: str, where: Where, prefix: Where, seen: set[int]) -> Iterator[Problem]:
    try:
        inner = scope.find(name)
    except GoalrunError as failure:
        yield _placed(Problem(where, str(failure), failure.hint), scope.flow, prefix)
        return
    if inner is None or name in scope.chain or id(inner) in seen or name in scope.flow.flows:
        return
    known = scope.agents - set(scope.flow.agents)
    yield from _of_flow(scope._replace(flow=inner, agents=known, chain=(*scope.chain, name)), (), seen)


def _of_whole(flow: Flow) -> Iterator[Problem]:
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
    graph = {step.id: edges(step) for step in flow.steps}
    place = {step.id: number for number, step in enumerate(flow.steps)}
    while graph:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as failure:
            cycle = list(failure.args[1])
            yield Problem(("step", place[cycle[0]]), f"the steps wait for one another: {' -> '.join(cycle)}",
                          "take out one of these needs or references")  # fmt: skip
            graph = {name: needs for name, needs in graph.items() if name not in cycle}
        else:
            return


def _of_agents(scope: _Scope) -> Iterator[Problem]:
    for name, table in scope.flow.agents.items():
        ways = [key for key in ("use", "run", "command") if key in table]
        if len(ways) != 1:
            said = " and ".join(ways) or "none"
            yield Problem(("agents", name), f"an agent needs one of use, run, command; it has {said}")
        used = table.get("use")
        # An agent may have the name of the one that it uses, so its own flow's names are not among these.
        if "use" in table and (not isinstance(used, str) or used not in scope.agents):
            yield from _unknown(("agents", name, "use"), "agent", str(used), scope.agents)


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
        if not edges(step):
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
    if step.flow in scope.chain:
        chain = " -> ".join((*scope.chain[scope.chain.index(step.flow) :], step.flow))
        yield Problem(("flow",), f"flows use one another without end: {chain}", "use another flow here")
        return
    try:
        inner = scope.find(step.flow)
    except GoalrunError:
        return
    if inner is None:
        yield from _unknown(("flow",), "flow", step.flow, scope.flow.flows)
        return
    try:
        complete(step.with_, inner.args)
    except SpecError as failure:
        yield Problem(("with",), f"flow {step.flow!r}: {failure}", failure.hint)


def _meaning(step: Step) -> Iterator[Problem]:
    yield from (Problem((key,), what, hint) for key, what, hint in idle_keys(step))


def _unknown(where: Where, noun: str, name: str, known: Iterable[str]) -> Iterator[Problem]:
    names = sorted(known)
    near = get_close_matches(name, names, 1)
    listed = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
    hint = f"did you mean {near[0]}?" if near else (f"known: {listed}" if names else "there is none")
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

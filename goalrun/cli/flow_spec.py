"""From a flow's file to a worker, frozen by value: its arguments, and everyone whom its steps name."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

from goalrun.adapters.agents.call import shell_command
from goalrun.cli.flows import proven
from goalrun.cli.spec import known_agent, worker_agent, worker_chain, worker_of
from goalrun.core.flow.args import complete, read_args
from goalrun.core.flow.model import Flow, Member, Step
from goalrun.core.flow.refs import fill
from goalrun.core.spec import PLAIN_COMMAND, AgentSpec, FlowUse, GoalSpec
from goalrun.core.value import JsonObject
from goalrun.errors import SpecError, meant
from goalrun.flows.files import read_flow
from goalrun.flows.steps import NOBODY
from goalrun.settings import AgentSettings, Settings, agents, load
from goalrun.wiring.session import Session


class FlowAsked(NamedTuple):
    """A flow on a command line, or in a goal file.

    Attributes:
        words: its arguments.
        alone: run for its own sake, with no goal around it.
        given: its arguments in a goal file.
    """

    flow: Flow
    words: tuple[str, ...]
    alone: bool
    given: JsonObject = MappingProxyType({})


def flow_use(asked: FlowAsked, objective: str, settings: Settings, session: Session) -> FlowUse:
    """The worker that a flow is.

    Raises:
        SpecError: an argument is missing or unknown, or an agent is.
    """
    flow = asked.flow
    if settings.workers:
        raise SpecError(
            f"the worker is the flow {flow.name}: several workers beside it mean nothing", hint="give one -w"
        )
    undecided = next((step.id for step in _steps(flow, flow.flows) if step.undecided), None)
    if undecided is not None and (asked.alone or not settings.checks):
        hint = 'check = ["pytest -q"]'
        raise SpecError(f"step {undecided!r}: members that compete need a check to be told apart", hint=hint)
    given = read_args(asked.words, flow.args) if asked.words or asked.alone else _with(asked.given, objective)
    first = next(iter(flow.args), None)
    if not asked.alone and first is not None and first not in given:
        # A goal's objective is what its flow is about.
        given = {**given, first: objective}
    found: dict[str, AgentSpec] = {}
    flow = _staffed(flow, {}, found, lambda name, table: _agent(name, table, settings, session))
    if any(step.kind == "python" for step in _steps(flow, flow.flows)):
        # Whom a function will ask is known when it does.
        for name in sorted({NOBODY, *flow.agents, *agents(settings)} - found.keys()):
            with suppress(SpecError):
                found[name] = _agent(name, flow.agents.get(name), settings, session)
    return FlowUse(
        flow=flow, alone=asked.alone, args=complete(given, flow.args), agents=found, slots=settings.max_agents
    )


def flow_again(spec: GoalSpec, session: Session) -> FlowUse:
    """A goal's flow from its file, as it is now, with the arguments that it was given.

    Raises:
        FlowError: it is gone, or wrong.
        SpecError: an argument or an agent of it is not known.
    """
    if spec.flow is None:
        raise AssertionError(f"{spec.id} has no flow")
    workspace = Path(spec.workspace)
    settings = load(workspace).settings
    flow, _ = proven(read_flow(Path(spec.flow.flow.source)), workspace)
    known = {name: value for name, value in spec.flow.args.items() if name in flow.args}
    found: dict[str, AgentSpec] = {}
    if NOBODY in spec.flow.agents:
        # Whoever does what names nobody was chosen at start.
        found[NOBODY] = spec.flow.agents[NOBODY]
    flow = _staffed(flow, {}, found, lambda name, table: _agent(name, table, settings, session))
    return spec.flow.model_copy(update={"flow": flow, "args": complete(known, flow.args), "agents": found})


def _with(given: object, objective: str) -> Any:  # noqa: ANN401 - the shape of what is given
    """Arguments of a goal file; of placeholders they hold that of the objective alone."""
    if isinstance(given, str):
        return fill(given, lambda _: objective, {"goal"})
    if isinstance(given, Mapping):
        return {key: _with(value, objective) for key, value in given.items()}
    return [_with(value, objective) for value in given] if isinstance(given, list | tuple) else given


def _staffed(
    flow: Flow,
    around: Mapping[str, JsonObject],
    found: dict[str, AgentSpec],
    resolve: Callable[[str, JsonObject | None], AgentSpec],
) -> Flow:
    """A flow whose steps name agents that are ``found``; a name that means others in several flows becomes several.

    Args:
        flow: the flow.
        around: the agents that the flows around it describe.
        found: everyone so far; grows.
        resolve: finds an agent by its name and what a flow says of it.
    """
    described = {**around, **flow.agents}

    def own(name: str, model: str | None) -> str:
        if name == NOBODY and model is None and NOBODY in found:
            return NOBODY
        table = described.get(name)
        if model is not None:
            used = name if name != NOBODY else resolve(NOBODY, None).name
            table = {**(table or {"use": used}), "model": model}
            name = f"{used} {model}"
            if "use" not in table:
                raise SpecError(f"agent {used!r} is a command of its own: it takes no model", hint="leave out model")
        agent = resolve(name, table)
        taken = (key for key in (name, f"{flow.name}/{name}", *(f"{flow.name}/{name}-{n}" for n in range(2, 1000))))
        key = next(key for key in taken if found.get(key, agent) == agent)
        found[key] = agent
        return key

    steps = tuple(_renamed(step, own) for step in flow.steps)
    # One from a file of its own knows nobody of those around it.
    near = {
        name: described if Path(inner.source).absolute() == Path(flow.source).absolute() else {}
        for name, inner in flow.flows.items()
    }
    inside = {name: _staffed(inner, near[name], found, resolve) for name, inner in flow.flows.items()}
    return flow.model_copy(update={"steps": steps, "flows": inside})


def _renamed(step: Step, own: Callable[[str, str | None], str]) -> Step:
    """A step with the names under which ``own`` has found those whom it asks, with the models that it wants."""

    def asks(agent: str | None, model: str | None) -> str | None:
        return own(agent or NOBODY, model) or None

    members = tuple(
        each
        if each.run is not None
        else each.model_copy(update={"agent": asks(each.agent or step.agent, each.model or step.model)})
        for each in step.member
    )
    agent = asks(step.agent, step.model) if step.kind == "prompt" else step.agent
    lead = asks(step.lead, None) if step.lead is not None else None
    return step.model_copy(update={"agent": agent, "lead": lead, "member": members})


def group_use(settings: Settings, session: Session) -> FlowUse | None:
    """Several workers as one: a flow of one step that they all do; None where there are not several.

    Raises:
        SpecError: how they do it is not said, or cannot be done, or one of them cannot be had.
    """
    if not settings.workers:
        return None
    if len(settings.workers) == 1 or settings.strategy is None:
        missing = "no strategy" if settings.strategy is None else "only one of them"
        hint = "--strategy compete or synthesize with two or more; -w a,b is a worker and its stand-in"
        raise SpecError(f"workers are given, and {missing}", hint=hint)
    if settings.worker is not None or settings.worker_cmd is not None:
        raise SpecError("both one worker and several are given", hint="give worker or workers")
    if settings.strategy == "compete" and not settings.checks:
        raise SpecError("--strategy compete needs a check: it picks the winner", hint='add -c "pytest -q"')
    found = {",".join(chain): worker_chain(chain, settings, session) for chain in settings.workers}
    merges = settings.strategy == "synthesize"
    step = Step(
        id=settings.strategy,
        prompt="{goal.prompt}",
        member=tuple(Member(agent=",".join(chain)) for chain in settings.workers),
        strategy=settings.strategy,
        lead=",".join(settings.workers[0]) if merges else None,
        apply="lead" if merges else "tree",
    )
    flow = Flow(name=settings.strategy, steps=(step,), concurrency=max(4, min(64, len(settings.workers))))
    return FlowUse(flow=flow, agents=found, slots=settings.max_agents)


def _steps(flow: Flow, flows: Mapping[str, Flow]) -> Iterator[Step]:
    """All steps of a flow and of those that it uses."""
    for step in flow.steps:
        yield step
        if step.flow is not None and step.flow in flows:
            below = flows[step.flow]
            yield from _steps(below, {**flows, **below.flows})


def _agent(name: str, described: JsonObject | None, settings: Settings, session: Session) -> AgentSpec:
    if name == NOBODY:
        worker = worker_of(settings, session)
        # A command of a step spends nothing; nobody knows what the user's own in the place of an agent spends.
        return worker if worker.name != PLAIN_COMMAND else worker.but(name="worker_cmd")
    known = agents(settings)
    agent = known_agent(name, known) if described is None else described_agent(name, described, known)
    return worker_agent(name, agent, session)


def described_agent(name: str, given: JsonObject, known: Mapping[str, AgentSettings]) -> AgentSettings:
    """An agent that a flow describes: one that is known, with another model, or a command of its own."""
    data: dict[str, Any] = dict(given)
    base: dict[str, Any] = {}
    if "use" in data:
        of = str(data.pop("use"))
        if of not in known:
            raise SpecError(f"agents.{name}: unknown agent {of!r}", hint=meant(of, known, f"known: {', '.join(known)}"))
        base = known[of].model_dump()
        if data.get("model"):
            base |= _with_model(name, of, known[of], str(data["model"]))
    if "run" in data:
        run = data.pop("run")
        base["command"] = shell_command(run) if isinstance(run, str) else run
    # Which tools it has is its command line's; a step's `writes = false` keeps it from changing files.
    data.pop("tools", None)
    try:
        return AgentSettings.model_validate({**base, **data, "order": 0})
    except ValidationError as failure:
        problem = failure.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise SpecError(f"agents.{name}.{where}: {problem['msg']}") from failure


def _with_model(name: str, of: str, agent: AgentSettings, model: str) -> dict[str, Any]:
    if not agent.model_flag:
        raise SpecError(f"agents.{name}: {of} has no flag for a model", hint="set it where that agent is configured")
    extra = (agent.model_flag, model)
    return {
        "command": (*agent.command, *extra),
        "resume": (*agent.resume, *extra) if agent.resume else (),
        "model": model,
    }

"""Goal files of the form ``[goal]``: a goal, its worker, and the flows and agents of that, in one file."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from goalrun.core.flow.model import Flow, Step
from goalrun.core.flow.plan import refs
from goalrun.core.value import JsonObject
from goalrun.errors import FlowError
from goalrun.flows.parse import parse_flow

WORKER = "worker"
_BESIDE = frozenset({"goal", "agents", "flows"})
_LIMITS = {"max_turns": "max_turns", "time": "max_time", "stuck_after": "stuck_after", "turn_timeout": "turn_timeout"}
_BUDGET = {"usd": "max_usd", "tokens": "max_tokens"}


class GoalFile(NamedTuple):
    """What a goal file says.

    Attributes:
        settings: in the shape of a configuration file; agents that are no command line of their own are left out.
        flow: its worker as a flow of one step, with all the file's agents and flows; None for a single agent.
    """

    settings: dict[str, Any]
    flow: Flow | None


def parse_goal_file(data: Mapping[str, Any], source: str = "", text: str = "") -> GoalFile:
    """A goal from the data of a file that has a table ``[goal]``.

    Raises:
        FlowError: its worker is wrong in form; the settings are checked where they are put together.
    """
    goal = data.get("goal")
    if not isinstance(goal, Mapping):
        raise FlowError(f"{source}: goal is no table", hint="[goal]")
    settings = {key: value for key, value in data.items() if key not in _BESIDE}
    settings |= {
        key: value for key, value in goal.items() if key not in {"worker", "check", "budget", "judge", *_LIMITS}
    }
    for key, name in (("check", "checks"), ("judge", "judge")):
        if key in goal:
            settings[name] = _judge(goal[key], source) if key == "judge" else _listed(goal[key])
    settings["limits"] = {**_table(settings, "limits", source), **_limits(goal, source)}
    moved = {key: _listed(settings.pop(key)) for key in ("protect", "may_change") if key in settings}
    settings["verification"] = {**_table(settings, "verification", source), **moved}
    agents = data.get("agents", {})
    settings["agents"] = {name: agent for name, agent in dict(agents).items() if "command" in agent}
    worker = goal.get("worker")
    if isinstance(worker, str) or (isinstance(worker, dict) and worker.keys() == {"agent"}):
        settings["worker"] = worker if isinstance(worker, str) else worker["agent"]
        worker = None
    return GoalFile(settings, None if worker is None else _flow(data, worker, source, text))


def _flow(data: Mapping[str, Any], worker: object, source: str, text: str) -> Flow:
    step = {"id": WORKER, **worker} if isinstance(worker, dict) else worker
    beside = {key: data[key] for key in ("agents", "flows") if key in data}
    return parse_flow({**beside, "step": [step]}, WORKER, source, text)


def unwrapped(flow: Flow) -> tuple[Flow, JsonObject]:
    """The flow that is a goal file's worker, and what it is given; one that needs more than that stays a step."""
    step = flow.steps[0]
    plain = step == Step(id=WORKER, flow=step.flow, with_=step.with_) if step.flow in flow.flows else False
    if not plain or step.flow is None or any(ref != ("goal", "objective") for _, ref in refs(step)):
        return flow, {}
    inner = flow.flows[step.flow]
    beside = {name: other for name, other in flow.flows.items() if name != step.flow}
    agents, flows = {**flow.agents, **inner.agents}, {**beside, **inner.flows}
    return inner.model_copy(update={"agents": agents, "flows": flows}), step.with_


def _limits(goal: Mapping[str, Any], source: str) -> dict[str, Any]:
    budget = _table(goal, "budget", source)
    unknown = budget.keys() - _BUDGET.keys()
    if unknown:
        raise FlowError(f"{source}: goal, budget: unknown key {min(unknown)!r}", hint="known: tokens, usd")
    spend = {_BUDGET[key]: value for key, value in budget.items()}
    return {**{name: goal[key] for key, name in _LIMITS.items() if key in goal}, **spend}


def _judge(judge: object, source: str) -> object:
    """The name of the agent that judges; it is asked once the checks pass, and never before."""
    if not isinstance(judge, dict):
        return judge
    if judge.get("when", "checks-pass") != "checks-pass" or judge.keys() - {"agent", "when"} or "agent" not in judge:
        raise FlowError(f'{source}: goal, judge: it is {{ agent = NAME, when = "checks-pass" }}', hint="or only a name")
    return judge["agent"]


def _table(data: Mapping[str, Any], key: str, source: str) -> Mapping[str, Any]:
    table = data.get(key, {})
    if not isinstance(table, dict):
        raise FlowError(f"{source}: {key} is no table")
    return table


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value

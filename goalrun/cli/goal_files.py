"""Goal files with a table ``[goal]``, as what ``start`` was asked for."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from goalrun.cli.flow_spec import FlowAsked, described_agent
from goalrun.cli.flows import proven
from goalrun.errors import FlowError, SettingsError
from goalrun.flows.files import parse_text, read_text
from goalrun.flows.goals import parse_goal_file
from goalrun.settings import AgentSettings, Loaded, agents, load


def read_goal_file(file: Path, workspace: Path, flags: Mapping[str, Any]) -> tuple[Loaded, FlowAsked | None]:
    """Settings with those of a goal file, and the flow that is its worker.

    Raises:
        UserError: the file cannot be read, or says something that is wrong.
    """
    try:
        text = read_text(file)
        data = parse_text(text, file)
    except FlowError:
        # Where settings are read it is said more exactly.
        return load(workspace, file, flags), None
    if "goal" not in data:
        return load(workspace, file, flags), None
    made = parse_goal_file(data, str(file), text)
    known = agents(load(workspace).settings)
    judges = _named(made.settings.get("judge"))
    described = {name: _agent(name, table, known, judges) for name, table in _tables(data, file).items()}
    loaded = load(workspace, file, flags, {**made.settings, "agents": described})
    if made.flow is None:
        return loaded, None
    flow, given = proven(made.flow, workspace)
    return loaded, FlowAsked(flow, (), alone=False, given=given)


def _tables(data: Mapping[str, Any], file: Path) -> dict[str, dict[str, Any]]:
    tables = data.get("agents", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise SettingsError(f"{file}: agents is no table of tables", hint="[agents.NAME]")
    return tables


def _agent(
    name: str, table: dict[str, Any], known: Mapping[str, AgentSettings], judges: Collection[str]
) -> dict[str, Any]:
    """What a configuration file would say of an agent; a plain command that judges is asked as it stands."""
    if "command" in table:
        return table
    agent = described_agent(name, table, known)
    if "run" in table and name in judges:
        agent = agent.but(judge=agent.command)
    return agent.model_dump(exclude_defaults=True, mode="json")


def _named(chain: object) -> list[str]:
    return [chain] if isinstance(chain, str) else [str(each) for each in chain] if isinstance(chain, list) else []

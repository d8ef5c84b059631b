"""What a shell is offered for words that only this machine knows. A damaged state folder or file offers nothing.

Shells evaluate what they are offered: nothing goes there but letters, digits and a few marks.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from goalrun.errors import GoalrunError

MOST = 50
HARMLESS = (GoalrunError, OSError, ValueError)
"""What the command itself will say: a shell that asks what could come next has no use for an error."""
_NAME = re.compile(r"[\w.:-]+")
_OTHER = re.compile(r"[^\w .,/-]+")
Offered = list[tuple[str, str]]


def goals(incomplete: str) -> Offered:
    """Ids of goals, newest first, with what each is about."""
    from goalrun.adapters.home import Home, home_folder

    try:
        home = Home(home_folder())
        home.refuse_other()
        ids = [goal for goal in home.ids() if goal.startswith((incomplete, f"g-{incomplete}", f"f-{incomplete}"))]
        results = list(home.results(ids[:MOST], turns=False))
    except HARMLESS:
        return []
    return [
        (str(each["id"]), _OTHER.sub(" ", f"{each['state']}  {each.get('objective', '')}")[:80]) for each in results
    ]


def flows(incomplete: str) -> Offered:
    """Names of flows, with where each is from."""
    from goalrun.cli.flows import flow_folders
    from goalrun.flows.files import find_flows

    try:
        known = find_flows(flow_folders(_workspace()))
    except HARMLESS:
        return []
    return [(each.name, each.origin) for each in known if each.name.startswith(incomplete)]


def workers(incomplete: str) -> list[str]:
    """Names of agents; behind a comma, of those that stand in."""
    return _chained(incomplete, _agents(judges=False))


def judges(incomplete: str) -> list[str]:
    """Names of agents that can judge."""
    return _chained(incomplete, [*_agents(judges=True), "none"])


def _chained(incomplete: str, known: Iterable[str]) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in known if name.startswith(last) and _NAME.fullmatch(name)]


def _agents(*, judges: bool) -> list[str]:
    from goalrun.settings import agents, load

    try:
        known = agents(load(_workspace()).settings)
    except HARMLESS:
        return []
    return [name for name, agent in known.items() if agent.judge or not judges]


def _workspace() -> Path:
    from goalrun.wiring.session import workspace_here

    return workspace_here()[0]


def among(*words: str) -> Callable[[str], list[str]]:
    """Offers some words."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]

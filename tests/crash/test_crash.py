"""The share of the crash suite that runs with every test run: about a hundred deaths, each named point among them.

``python tests/crash/suite.py --kills 2000`` beside this file tries thousands; see there for the kinds. The share: some
scenarios are killed at their first named point, then what takes them up at the next one with a new name, and so on to
the end; and one scenario dies in all the other ways, chosen by a seed. ``GOALRUN_CRASH=all`` does that with every
scenario.
"""

import os
import random
import re
from pathlib import Path

import pytest
from crash.suite import CALLS, Death, Job, measure, plan, run_job
from crash.trials import SCENARIOS

import goalrun

ALL = os.environ.get("GOALRUN_CRASH") == "all"
LEFT_OUT = ("start -d", "step", "pause of a dead goal")
"""What the slow suite alone tries: they meet what others meet."""
ALWAYS = ("start, with troubles", "hint")
"""The first meets nearly every point."""
SMALL = ("clean", "hint", "restore")
"""What is so short that it is killed at Python's own points, too."""
SAMPLED = "resume"
KILLS, SEED = 320, 5
LEAST = {"start": 70, "start, restoring, at level process": 70, "start, with troubles": 70}
KINDS = re.compile(r'kind: Literal\["(\w+)"\]')
POINTS = re.compile(r'reached\("([a-z ]+)"\)')


def wrong(deaths: list[Death]) -> list[str]:
    return [f"{death.kind} at {death.labels[0]}: {problem}" for death in deaths for problem in death.problems]


def named_points() -> set[str]:
    """What the product names, read from its source; git's verbs are those that it happens to use."""
    source = Path(goalrun.__file__).parent
    kinds = KINDS.findall((source / "core" / "events.py").read_text("utf-8"))
    fixed = {name for path in (source / "adapters").glob("*.py") for name in POINTS.findall(path.read_text("utf-8"))}
    return fixed | {f"journal {kind} {place}" for kind in kinds for place in ("before", "written", "durable")}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name", [each.name for each in SCENARIOS if each.name in ALWAYS or (ALL and each.name not in LEFT_OUT)]
)
def test_a_command_that_is_killed_at_every_named_point_loses_nothing(name: str) -> None:
    deaths = run_job(Job(name, "walk" if name in SMALL else "named", (0,)))
    assert wrong(deaths) == []
    struck = {death.labels[0] for death in deaths}
    assert len(struck) >= LEAST.get(name, 5)
    if name == "start, with troubles":
        # It meets everything but an end that is asked for, a judge, flows, a salvage and a removal.
        kinds = ("goal_stopped", "judgement_finished", "call_started", "call_finished", "step_settled", "flow_told",
                 "flow_replaced", "answered")  # fmt: skip
        left = {f"journal {kind} {place}" for kind in kinds for place in ("before", "written", "durable")}
        left |= {"journal salvaged", "damaged journal moved", "goal removed"}
        assert named_points() - struck <= left


@pytest.mark.timeout(900)
def test_a_flow_that_is_killed_at_every_record_of_its_calls_loses_nothing_and_pays_for_nothing_twice() -> None:
    deaths = run_job(Job("wrap", "calls", (0,)))
    assert wrong(deaths) == []
    assert {death.labels[0] for death in deaths} == set(CALLS)


@pytest.mark.timeout(900)
def test_other_deaths_lose_nothing() -> None:
    jobs = plan([measure(SAMPLED)], KILLS, random.Random(SEED))  # noqa: S311 - a sample, the same each time
    for kind in ("point", "moment", "everything", "twice", "stopped", "supervisor"):
        arguments = [argument for job in jobs if job.kind == kind for argument in job.arguments]
        deaths = run_job(Job(SAMPLED, kind, tuple(arguments[: 8 if ALL else 1])))
        assert deaths, kind
        assert wrong(deaths) == []

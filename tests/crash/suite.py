"""Thousands of deaths, and the history of them.

    python tests/crash/suite.py [--kills 2000] [--jobs 2] [--seed 1] [--scenario NAME] [--kind KIND]

Every scenario of ``trials`` (a command, what surrounds it, what has to come of it) is killed in these ways:

    point        at every point that it meets, in turn; where there are more than asked for, at a sample with every name
    walk         at every point with a new name, one after the other in the life of one goal; ``named`` the same, only
                 where goalrun itself names a point or starts a process; ``calls``, only at records of a flow's calls
    moment       at a random moment of its run; everything that it has started goes on for as long as it can
    everything   at a random moment, together with everything that it has started, as when the machine goes down
    twice        at a point, and then what takes it up, twice more
    stopped      stopped (SIGSTOP) at a point, then killed
    supervisor   not it but the supervisor of what it runs is killed, or stopped

After each death the history is looked at (``history``); in the end the goal has to be achieved as if nothing had been.
Prints what became of all and ends with status 1 if anything was wrong. What repeats one death:

    python tests/crash/suite.py --again SCENARIO KIND ARGUMENT
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from crash.place import Place
from crash.trials import SCENARIOS, Scenario, Stage, Trial, points, walk

KINDS = ("walk", "supervisor", "stopped", "twice", "everything", "moment", "point")
"""In the order in which they get their share: those with few deaths first; ``point`` gets the rest."""
SHARES = {"supervisor": 0.03, "stopped": 0.06, "twice": 0.08, "everything": 0.08, "moment": 0.12}
CHUNK = 12
Argument = Any


class Job(NamedTuple):
    """Some deaths of one kind in one scenario; the argument of each says all that there is to repeat it."""

    scenario: str
    kind: str
    arguments: tuple[Argument, ...]


class Death(NamedTuple):
    """One death: where it struck, and what was wrong."""

    scenario: str
    kind: str
    argument: Argument
    labels: tuple[str, ...]
    seconds: float
    problems: tuple[str, ...]


@cache
def scenario(name: str) -> Scenario:
    """The scenario of a name."""
    return next(each for each in SCENARIOS if each.name == name)


def run_job(job: Job) -> list[Death]:
    """Try some deaths in a place of their own."""
    with tempfile.TemporaryDirectory(prefix="goalrun-crash-") as folder:
        stage = Stage(Place(Path(folder).resolve() / "place"), scenario(job.scenario))
        return [death for argument in job.arguments for death in _deaths(stage, job, argument)]


def _deaths(stage: Stage, job: Job, argument: Argument) -> Iterator[Death]:
    if job.kind in WALKS:
        trials = list(walk(stage, **WALKS[job.kind]))
    else:
        stage.set_up()
        trials = list(WAYS[job.kind](stage, argument))
    wrong = stage.finish()
    for trial in trials:
        last = wrong if trial is trials[-1] else []
        yield Death(job.scenario, job.kind, argument, (trial.label,), trial.seconds, (*trial.problems, *last))


def _at_point(stage: Stage, at: Argument) -> Iterator[Trial]:
    yield stage.kill({"at": at})


def _stopped(stage: Stage, at: Argument) -> Iterator[Trial]:
    yield stage.kill({"at": at, "stop": True})


def _twice(stage: Stage, argument: Argument) -> Iterator[Trial]:
    for at in argument:
        yield stage.kill({"at": at})


def _at_moment(stage: Stage, delay: float) -> Iterator[Trial]:
    yield stage.strike("moment", delay)


def _everything(stage: Stage, delay: float) -> Iterator[Trial]:
    yield stage.strike("everything", delay)


def _supervisor(stage: Stage, argument: Argument) -> Iterator[Trial]:
    verb, number = argument
    yield stage.strike(f"supervisor {verb}", number)


CALLS = [
    f"journal {kind} {place}"
    for kind in ("call_started", "call_finished", "step_settled")
    for place in ("before", "written", "durable")
]
WALKS: dict[str, dict[str, Any]] = {"walk": {}, "named": {"named": True}, "calls": {"among": CALLS}}
WAYS: dict[str, Callable[[Stage, Argument], Iterator[Trial]]] = {
    "point": _at_point, "stopped": _stopped, "twice": _twice, "moment": _at_moment, "everything": _everything,
    "supervisor": _supervisor,
}  # fmt: skip


def measure(name: str) -> tuple[str, list[tuple[str, int]], float]:
    """The points of a scenario, and how long it takes, undisturbed."""
    with tempfile.TemporaryDirectory(prefix="goalrun-crash-") as folder:
        stage = Stage(Place(Path(folder).resolve() / "place"), scenario(name))
        return name, *points(stage)


def plan(measured: Sequence[tuple[str, list[tuple[str, int]], float]], kills: int, chance: random.Random) -> list[Job]:
    """What to try: every kind gets its share, spread over the scenarios by how many points they have."""
    jobs = [Job(name, "walk", (0,)) for name, _, _ in measured]
    left = kills - sum(len({label for label, _ in found}) for _, found, _ in measured)
    total = sum(len(found) for _, found, _ in measured)
    for name, found, seconds in measured:
        scene, share = scenario(name), max(0, left) * len(found) / total
        counts = {kind: round(share * part) + 1 for kind, part in SHARES.items()}
        arguments: dict[str, list[Argument]] = defaultdict(list)
        arguments["stopped"] = chance.sample(found, min(len(found), counts["stopped"]))
        arguments["twice"] = [tuple(chance.choices(found, k=3)) for _ in range(-(-counts["twice"] // 3))]
        for kind in ("moment", "everything"):
            arguments[kind] = [round(chance.uniform(0.1, seconds), 3) for _ in range(counts[kind])]
        if scene.words[0] in {"start", "wrap", "resume", "step"} and not scene.live and "-d" not in scene.words:
            arguments["supervisor"] = [
                (chance.choice(("KILL", "STOP")), chance.randrange(1, 9)) for _ in range(counts["supervisor"])
            ]
        if scene.live or scene.verb:
            # What runs beside it would be struck too.
            for kind in ("moment", "everything"):
                arguments[kind] = []
        rest = max(0, round(share) - sum(map(len, arguments.values())))
        arguments["point"] = found if rest >= len(found) else chance.sample(found, rest)
        for kind, all_of in arguments.items():
            jobs += [Job(name, kind, tuple(all_of[at : at + CHUNK])) for at in range(0, len(all_of), CHUNK)]
    return jobs


def told(deaths: Sequence[Death]) -> str:
    """What became of all deaths: the history of the suite, as a table."""
    struck = [death for death in deaths if death.labels != ("",)]
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for death in struck:
        table[death.scenario][death.kind] += 1
    width = max(map(len, table), default=10)
    lines = [" ".join(["scenario".ljust(width), *(kind.rjust(10) for kind in KINDS), "total".rjust(7)])]
    for name, counts in table.items():
        row = [str(counts[kind]).rjust(10) for kind in KINDS]
        lines.append(" ".join([name.ljust(width), *row, str(counts.total()).rjust(7)]))
    totals = Counter(death.kind for death in struck)
    row = [str(totals[kind]).rjust(10) for kind in KINDS]
    lines.append(" ".join(["all".ljust(width), *row, str(totals.total()).rjust(7)]))
    named = {label for death in struck for label in death.labels}
    slowest = max((death.seconds for death in struck), default=0.0)
    wrong = [death for death in deaths if death.problems]
    lines += [
        "",
        f"kills: {len(struck)}; runs that ended before they were to die: {len(deaths) - len(struck)}",
        f"points by name: {len(named)}",
        f"nothing of a dead run lived longer than {slowest:.2f} s",
        f"deaths with something wrong: {len(wrong)}",
    ]
    for death in wrong:
        again = f"--again {json.dumps(death.scenario)} {death.kind} '{json.dumps(death.argument)}'"
        lines.append(f"  {death.scenario}, {death.kind}, at {death.labels[0] or 'the end'}: repeat with {again}")
        lines += [f"    {problem}" for problem in death.problems]
    return "\n".join(lines)


def main() -> int:
    """Run the suite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenario", default="", choices=["", *(each.name for each in SCENARIOS)])
    parser.add_argument("--kind", default="", choices=["", *KINDS])
    parser.add_argument("--again", nargs=3, metavar=("SCENARIO", "KIND", "ARGUMENT"))
    asked = parser.parse_args()
    began = time.monotonic()
    deaths: list[Death] = []
    with ProcessPoolExecutor(asked.jobs) as pool:
        if asked.again:
            name, kind, argument = asked.again
            jobs = [Job(name, kind, (json.loads(argument),))]
        else:
            names = [each.name for each in SCENARIOS if asked.scenario in {"", each.name}]
            jobs = plan(list(pool.map(measure, names)), asked.kills, random.Random(asked.seed))  # noqa: S311
            jobs = [job for job in jobs if asked.kind in {"", job.kind}]
        running = {pool.submit(run_job, job): job for job in jobs}
        for done in as_completed(running):
            deaths += done.result()
            wrong = sum(bool(death.problems) for death in deaths)
            sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {len(deaths)} deaths, {wrong} with something wrong\n")
    sys.stdout.write(f"{told(deaths)}\nseed {asked.seed}, {time.monotonic() - began:.0f} s\n")
    return 1 if any(death.problems for death in deaths) else 0


if __name__ == "__main__":
    sys.exit(main())

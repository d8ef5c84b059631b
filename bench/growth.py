"""How `list` and `status` behave in a large state folder, and with a long journal: ratios to a small one."""

import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from measure import goalrun, line, milliseconds, side_by_side

FEW_GOALS, FEW_RECORDS = 10, 100
RUNS = 7


def run(scratch: Path, *, quick: bool) -> None:
    """Many goals, then many records and turns."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from large.states import long_journal, many_goals

    from goalrun.adapters.home import Home

    goals, records, turns = (1000, 5000, 50) if quick else (10_000, 100_000, 500)
    workspace = scratch / "grown"
    workspace.mkdir()
    small, large = scratch / "few-goals", scratch / "many-goals"
    for home, count in ((small, FEW_GOALS), (large, goals)):
        # The goal of this workspace is the oldest one.
        begin = datetime(2026, 1, 1, tzinfo=UTC)
        many_goals(Home(home), workspace, 1, begin)
        many_goals(Home(home), scratch, count - 1, begin + timedelta(days=1))
    commands = [["list"], ["list", "-n", "50"], ["list", "--json"], ["status"]]
    _compare(f"{FEW_GOALS} and {goals} goals", small, large, workspace, commands)
    few, many = scratch / "few-records", scratch / "many-records"
    for home, count, made in ((few, FEW_RECORDS, 1), (many, records, turns)):
        goal = many_goals(Home(home), workspace, 1)[0]
        taken = milliseconds(partial(long_journal, Home(home).folder(goal), count, made))
        line(f"{count} records, {made} turns: {taken / count * 1000:.0f} µs a record")
    commands = [["list"], ["status"], ["show"], ["logs"]]
    _compare(f"{FEW_RECORDS} and {records} records", few, many, workspace, commands)


def _compare(title: str, small: Path, large: Path, workspace: Path, commands: list[list[str]]) -> None:
    for words in commands:
        homes = {"small": small, "large": large}
        taken = side_by_side({name: partial(goalrun, words, workspace, home) for name, home in homes.items()}, RUNS)
        name, before, after = " ".join(words), taken["small"], taken["large"]
        line(f"{title}: goalrun {name:14} {before:5.0f} ms and {after:6.0f} ms: {after / before:.2f} x")

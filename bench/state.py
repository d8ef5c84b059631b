"""How `list` and `status` behave in a large state folder, and with a long journal: ratios to a small one.

``python bench/state.py [--goals 10000] [--records 100000] [--turns 500]``; a few minutes. Nothing is asserted here.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from large.states import long_journal, many_goals

from goalrun.adapters.home import Home
from goalrun.adapters.views import JOURNAL

RUNS = 7


def seconds(home: Path, workspace: Path, *arguments: str) -> float:
    """The median of some runs of the program."""
    taken = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-P", "-m", "goalrun", *arguments],
            cwd=workspace,
            env={**os.environ, "GOALRUN_HOME": str(home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def compare(title: str, small: Path, large: Path, workspace: Path, commands: list[list[str]]) -> None:
    """Print what each command takes in both state folders."""
    for command in commands:
        before, after = (seconds(home, workspace, *command) for home in (small, large))
        print(f"{title}: goalrun {' '.join(command):22} {before:6.3f} s {after:7.3f} s  x{after / before:.2f}")


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser()
    options.add_argument("--goals", type=int, default=10_000)
    options.add_argument("--records", type=int, default=100_000)
    options.add_argument("--turns", type=int, default=500)
    asked = options.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="goalrun-bench-"))
    try:
        workspace = scratch / "workspace"
        workspace.mkdir()
        small, large = scratch / "small", scratch / "large"
        for home, count in ((small, 10), (large, asked.goals)):
            # The goal of this workspace is the oldest one.
            begin = datetime(2026, 1, 1, tzinfo=UTC)
            many_goals(Home(home), workspace, 1, begin)
            many_goals(Home(home), scratch, count - 1, begin + timedelta(days=1))
        compare(
            f"10 and {asked.goals} goals",
            small,
            large,
            workspace,
            [["list"], ["list", "-n", "50"], ["list", "--json"], ["status"]],
        )
        few, many = scratch / "few", scratch / "many"
        for home, records, turns in ((few, 100, 1), (many, asked.records, asked.turns)):
            goal = many_goals(Home(home), workspace, 1)[0]
            began = time.perf_counter()
            long_journal(Home(home).folder(goal), records, turns)
            taken = time.perf_counter() - began
            size = (Home(home).folder(goal) / JOURNAL).stat().st_size
            print(f"{records} records, {turns} turns: {taken / records * 1e6:.0f} µs a record, {size >> 20} MiB")
        title = f"100 and {asked.records} records"
        compare(title, few, many, workspace, [["list"], ["status"], ["show"], ["logs"]])
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()

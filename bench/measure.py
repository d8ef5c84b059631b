"""What the measurements share: the program run, a repository made, medians, and lines with their targets."""

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0")


def median_ms(action: Callable[[], object], runs: int) -> float:
    """The median time of an action in milliseconds, after one run that does not count."""
    taken = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        action()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken[1:])


def silent(argv: Sequence[str], cwd: Path, env: dict[str, str] | None = None, *, check: bool = True) -> None:
    """Run a command and throw its output away."""
    subprocess.run(
        argv, cwd=cwd, env=env, check=check, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def goalrun(arguments: Sequence[str], cwd: Path, home: Path, *, check: bool = True) -> None:
    """Run goalrun with a state folder of its own."""
    env = {**os.environ, "GOALRUN_HOME": str(home)}
    silent([sys.executable, "-P", "-m", "goalrun", *arguments], cwd, env, check=check)


def repository(top: Path, files: int, size: int = 4096) -> Path:
    """A repository with so many files of random text, 100 in a folder, in one commit."""
    for number in range(files):
        path = top / place(number)
        if number % 100 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(os.urandom(size // 2).hex() + "\n", encoding="ascii")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"], ["repack", "-adq"]):
        silent([*GIT, *words], top)
    return top


def place(number: int) -> str:
    """Where in a repository a file lies."""
    return f"part-{number // 5000}/folder-{number // 100}/file-{number}.txt"


def records(home: Path) -> list[tuple[float, str, dict[str, object]]]:
    """The records of the only goal: running time in seconds, kind, and all of it."""
    (journal,) = home.glob("goals/*/journal.db")
    with sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True) as db:
        rows = db.execute("SELECT elapsed, body FROM record ORDER BY seq").fetchall()
    found = [(elapsed, json.loads(body)) for elapsed, body in rows]
    return [(elapsed, body["kind"], body) for elapsed, body in found]


def line(text: str, ratio: float | None = None, most: float | None = None) -> None:
    """Print a measurement, and whether it keeps its target; ``most`` is the largest ratio that does."""
    verdict = ""
    if ratio is not None and most is not None:
        verdict = "" if ratio <= most else f"   FALLS SHORT: {ratio:.2f} of at most {most:.2f}"
    sys.stdout.write(f"{text}{verdict}\n")
    sys.stdout.flush()

"""What the measurements share: programs run, a repository made, times, and lines with their targets."""

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

GIT = ("git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0")
FILES_IN_A_FOLDER, FOLDERS_IN_A_PART = 100, 50
SHORT: list[str] = []
"""What falls short of its target."""


def milliseconds(action: Callable[[], object]) -> float:
    """The time of an action."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def median(action: Callable[[], object], runs: int) -> float:
    """The median time of an action in milliseconds, after one run that does not count."""
    action()
    return statistics.median(milliseconds(action) for _ in range(runs))


def side_by_side(actions: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """The median times of several actions that take turns, so that what else the machine does hits all of them."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(runs + 1):
        for name, action in actions.items():
            if (time_taken := milliseconds(action)) and number:
                taken[name].append(time_taken)
    return {name: statistics.median(times) for name, times in taken.items()}


def silent(argv: Sequence[str], cwd: Path, env: dict[str, str] | None = None, *, check: bool = True) -> None:
    """Run a command and throw its output away."""
    null = subprocess.DEVNULL
    subprocess.run(argv, cwd=cwd, env=env, check=check, stdin=null, stdout=null, stderr=null)


def goalrun(arguments: Sequence[str], cwd: Path, home: Path, *, check: bool = True) -> None:
    """Run goalrun with a state folder of its own."""
    env = {**os.environ, "GOALRUN_HOME": str(home)}
    silent([sys.executable, "-P", "-m", "goalrun", *arguments], cwd, env, check=check)


def repository(top: Path, files: int, size: int = 4096) -> Path:
    """A repository with so many files of random text in one commit."""
    for number in range(files):
        path = top / place(number)
        if number % FILES_IN_A_FOLDER == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(os.urandom(size // 2).hex() + "\n", encoding="ascii")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"], ["repack", "-adq", "--window=0"]):
        silent([*GIT, *words], top)
    return top


def keep_apart(folder: Path) -> None:
    """Have ext4 (chattr(1), T) put what is in each folder below into a region of the disk of its own.

    It takes ten times as long to make a file in a region in which thousands were removed in the last minutes: what one
    measurement leaves behind is not to be in the way of the next.
    """
    if shutil.which("chattr"):
        silent(["chattr", "+T", str(folder)], folder, check=False)


def place(number: int) -> str:
    """Where in a repository a file lies."""
    folder = number // FILES_IN_A_FOLDER
    return f"part-{folder // FOLDERS_IN_A_PART}/folder-{folder}/file-{number}.txt"


def records(home: Path) -> list[tuple[float, str]]:
    """The records of the only goal: running time in seconds, and kind."""
    (journal,) = home.glob("goals/*/journal.db")
    with sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True) as db:
        rows = db.execute("SELECT elapsed, body FROM record ORDER BY seq").fetchall()
    return [(elapsed, str(json.loads(body)["kind"])) for elapsed, body in rows]


def line(text: str, value: float | None = None, most: float = 0.0, unit: str = "x") -> None:
    """Print a measurement; with a value also whether it is at most what it should be."""
    if value is not None:
        text += f" | {value:.2f} {unit}, target at most {most:g}"
        if value > most:
            text += " | FALLS SHORT"
            SHORT.append(text)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()

"""What a turn costs beside the worker and the checks, against git and against a plain shell loop."""

import shutil
import statistics
from pathlib import Path

from measure import GIT, goalrun, line, median_ms, place, records, repository, silent

CHECK = "false"
FIXED_MS, STATUS_FACTOR, WORKTREE_FACTOR = 60.0, 4.0, 0.1
"""The targets of a turn: 60 ms + 4 x git status; 0.1 x git worktree add + remove of 5,000 files or more."""
WORKER = """turn=$(cat {counter}); echo $((turn + 1)) > {counter}
{edits}
mkdir -p new
for ((i = 0; i < {new}; i++)); do echo "$turn $i" > new/$turn-$i.txt; done
"""


def worker(scratch: Path, changed: int) -> Path:
    """A script that edits half as many tracked files and adds as many new ones, with fresh content in each run."""
    edits = "\n".join(f'echo "$turn" > {place(number * 7)}' for number in range(changed // 2))
    counter = scratch / "counter"
    counter.write_text("0\n", encoding="ascii")
    script = scratch / "worker.sh"
    script.write_text(WORKER.format(counter=counter, edits=edits, new=changed - changed // 2), encoding="utf-8")
    return script


def measure(scratch: Path, files: int, changes: tuple[int, ...], turns: int) -> None:
    """Print one line for each number of changed files."""
    top = repository(scratch / "workspace", files)
    for changed in changes:
        one(scratch, top, files, changed, turns)
        silent([*GIT, "reset", "-q", "--hard"], top)
        silent([*GIT, "clean", "-qffdx"], top)


def one(scratch: Path, top: Path, files: int, changed: int, turns: int) -> None:
    script = worker(scratch, changed)
    loop = median_ms(lambda: plain_turn(script, top), 5)
    home = scratch / "state"
    first, turn, detail = turns_of(script, top, home, turns)
    status = median_ms(lambda: silent([*GIT, "status"], top), 5)
    beside = scratch / "beside"
    worktree = median_ms(lambda: add_and_remove(top, beside), 1 if files > 10_000 else 3)
    shutil.rmtree(home)
    added = turn - loop
    allowed = FIXED_MS + STATUS_FACTOR * status
    line(
        f"turn {files:6} files, n = {changed:4}: {turn:7.1f} ms, plain loop {loop:6.1f}, so {added:7.1f} added "
        f"({added / status:5.1f} x git status of {status:6.1f}; {added / worktree:5.3f} x worktree add + remove of "
        f"{worktree:8.1f}); first turn {first:.0f}, {detail}",
        added / allowed,
        1.0,
    )
    if files >= 5000 and changed == 10:
        line("   against git worktree add + remove", added / worktree, WORKTREE_FACTOR)


def plain_turn(script: Path, top: Path) -> None:
    """What a loop in a shell would do."""
    silent(["bash", str(script)], top)
    silent(["bash", "-euo", "pipefail", "-c", CHECK], top, check=False)


def add_and_remove(top: Path, beside: Path) -> None:
    silent([*GIT, "worktree", "add", "-q", "--detach", str(beside)], top)
    silent([*GIT, "worktree", "remove", "--force", str(beside)], top)


def turns_of(script: Path, top: Path, home: Path, turns: int) -> tuple[float, float, str]:
    """Milliseconds of the first turn, the median of the others, and what the base took."""
    words = ["start", "bench", "--worker-cmd", f"bash {script}", "-c", CHECK, "--stuck-after", "0"]
    goalrun([*words, "--max-turns", str(turns)], top, home, check=False)
    found = records(home)
    ends = [elapsed for elapsed, kind, _ in found if kind in ("base_verified", "turn_finished")]
    taken = [(after - before) * 1000 for before, after in zip(ends, ends[1:], strict=False)]
    if len(taken) != turns:
        raise SystemExit(f"{len(taken)} of {turns} turns were run")
    base = next(elapsed for elapsed, kind, _ in found if kind == "base_taken")
    return taken[0], statistics.median(taken[1:]), f"base taken after {base:.2f} s, verified after {ends[0]:.2f} s"

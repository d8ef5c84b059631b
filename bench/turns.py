"""What a turn costs beside the worker and the checks, against git and against a plain shell loop."""

import os
import statistics
from functools import partial
from itertools import pairwise, product
from pathlib import Path

from measure import GIT, goalrun, keep_apart, line, median, place, records, repository, side_by_side, silent

CHECK = "false"
FIXED_MS, STATUS_FACTOR, WORKTREE_FACTOR = 60.0, 4.0, 0.1
"""Targets from 5,000 files on, with 10 changed: 60 ms + 4 x git status; 0.1 x git worktree add + remove.

With more a turn may cost more: then it is told what each costs. In a small repository git costs next to nothing, and
what is left is what two commands cost that are supervised and have namespaces of their own."""
WORTHWHILE_FILES, CHANGED = 5000, 10
LARGE_FILES = 50_000
WORKER = """turn=$(cat {counter}); echo $((turn + 1)) > {counter}
{edits}
mkdir -p new
for ((i = 0; i < {new}; i++)); do echo "$turn $i" > new/$turn-$i.txt; done
"""


def run(scratch: Path, *, quick: bool) -> None:
    """A line for each size and each number of changed files."""
    sizes, changes, turns = ((200, 5000), (CHANGED, 0), 5) if quick else ((200, 5000, 80_000), (CHANGED, 0, 1000), 9)
    keep_apart(scratch)
    tops = {files: repository(scratch / f"of-{files}", files) for files in sizes}
    added: dict[tuple[int, int], float] = {}
    # What makes few files, and has a target, comes first, and what removes most comes last: see ``keep_apart``, which
    # not every file system can.
    for changed, (files, top) in product(changes, tops.items()):
        silent([*GIT, "reset", "-q", "--hard"], top)
        silent([*GIT, "clean", "-qffdx"], top)
        added[files, changed] = _one(scratch, top, files, changed, turns)
    for files, top in tops.items():
        _against_a_worktree(scratch, top, files, {changed: added[files, changed] for changed in sorted(changes)})


def _worker(scratch: Path, changed: int) -> Path:
    """A script that edits half as many tracked files and adds as many new ones, with fresh content in each run."""
    edits = "\n".join(f'echo "$turn" > {place(number)}' for number in range(changed // 2))
    counter = scratch / "counter"
    counter.write_text("0\n", encoding="ascii")
    script = scratch / "worker.sh"
    script.write_text(WORKER.format(counter=counter, edits=edits, new=changed - changed // 2), encoding="utf-8")
    return script


def _one(scratch: Path, top: Path, files: int, changed: int, turns: int) -> float:
    """Milliseconds that a turn costs more than in a loop in a shell."""
    script, home = _worker(scratch, changed), scratch / f"state-{files}-{changed}"
    # What was written until now is on its way to the disk: the first one to sync would wait for it.
    os.sync()
    base, turn = _turns(script, top, home, turns)
    plain = side_by_side(
        {"loop": partial(_plain, script, top), "status": partial(silent, [*GIT, "status"], top)}, turns
    )
    status, added = plain["status"], turn - plain["loop"]
    allowed, unit = FIXED_MS + STATUS_FACTOR * status, "of 60 ms + 4 x git status"
    aimed = files >= WORTHWHILE_FILES and changed <= CHANGED
    line(
        f"{files:6} files, {changed:4} changed: turn {turn:6.0f} ms, plain loop {plain['loop']:5.0f} ms, added "
        f"{added:5.0f} ms = {added / status:5.1f} x git status ({status:.0f} ms); base {base:.1f} s"
        + (f"; {added / changed:.2f} ms a changed file" if changed > CHANGED else "")
        + ("" if aimed or changed > CHANGED else f" | {added / allowed:.2f} {unit}, no target"),
        added / allowed if aimed else None,
        1.0,
        unit,
    )
    return added


def _against_a_worktree(scratch: Path, top: Path, files: int, added: dict[int, float]) -> None:
    # Again and again, as a loop would that makes a worktree in each turn: the first ones cost much less.
    worktree = median(partial(_add_and_remove, top, scratch / "beside"), 1 if files > LARGE_FILES else 7)
    ratios = ", ".join(f"{cost / worktree:.3f} x ({changed} changed)" for changed, cost in added.items())
    line(
        f"{files:6} files: git worktree add + remove {worktree:.0f} ms; a turn adds {ratios}",
        added[CHANGED] / worktree if files >= WORTHWHILE_FILES else None,
        WORKTREE_FACTOR,
        f"with {CHANGED} changed",
    )


def _plain(script: Path, top: Path) -> None:
    """What a loop in a shell would do."""
    silent(["bash", str(script)], top)
    silent(["bash", "-euo", "pipefail", "-c", CHECK], top, check=False)


def _add_and_remove(top: Path, beside: Path) -> None:
    silent([*GIT, "worktree", "add", "-q", "--detach", str(beside)], top)
    silent([*GIT, "worktree", "remove", "--force", str(beside)], top)


def _turns(script: Path, top: Path, home: Path, turns: int) -> tuple[float, float]:
    """Seconds until the base was taken and verified; the median of the turns but the first in milliseconds."""
    words = ["start", "bench", "--worker-cmd", f"bash {script}", "-c", CHECK, "--stuck-after", "0"]
    goalrun([*words, "--max-turns", str(turns)], top, home, check=False)
    ends = [elapsed for elapsed, kind in records(home) if kind in {"base_verified", "turn_finished"}]
    taken = [(after - before) * 1000 for before, after in pairwise(ends)]
    if len(taken) != turns:
        raise SystemExit(f"{len(taken)} of {turns} turns were run")
    return ends[0], statistics.median(taken[1:])

"""A disk that fails at each change of the state folder in turn: one clear line, nothing lost, and it goes on after.

    python tests/faults/suite.py [--all] [--only TEXT] [--jobs N]

``shim.c`` is preloaded into goalrun, its supervisors and git. A goal of two turns is run once to see its calls; then
it is run again and again, with one call failing, or all from one on: ENOSPC, EIO, EROFS, or a short write. Each time
this looks at what goalrun said, at its records, the store, the workspace and the processes that are left; then the
disk is well again and the goal has to be achieved. By default one call of each kind is failed in each way; ``--all``
takes every single call.
"""

import argparse
import errno
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

SHIM = Path(__file__).with_name("shim.c")
WORK = "work.txt"
CHECK = f"test $(wc -l < {WORK}) -ge 2"
SHORT = "short"
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EROFS": errno.EROFS, SHORT: 0}
WRITES = {"write", "pwrite", "writev"}
SECONDS = 90.0
KINDS = {"turn_started": r"^turn \d+ of", "worker_finished": r"^  worker ok", "turn_finished": r"^  → "}
"""Records, and the lines that goalrun prints once they are durable."""


class Call(NamedTuple):
    """A call that changed something below the state folder; ``kind`` is the same for the same place in the program."""

    number: int
    name: str
    kind: str


class Fault(NamedTuple):
    """A call that fails, and how; with ``keep`` so do all that follow."""

    call: Call
    error: str
    keep: bool

    def __str__(self) -> str:
        return f"{self.call.number:4} {self.error:6} {'on  ' if self.keep else 'once'} {self.call.kind}"


class Row(NamedTuple):
    """What came of a fault: the exit code, what goalrun said, how often a worker ran, and what should not be."""

    fault: Fault
    code: int
    said: str
    paid: int
    problems: tuple[str, ...]


class Disk:
    """A place with a project, and a state folder on a disk that can fail.

    Args:
        top: an empty folder.
        shim: the compiled shim.
    """

    def __init__(self, top: Path, shim: Path) -> None:
        self.top = top.resolve()
        self.state, self.project, self.paid = (self.top / name for name in ("state", "project", "paid"))
        self._shim, self._count, self._log = shim, self.top / "count", self.top / "log"
        self.project.mkdir()
        (self.project / "user.txt").write_text("of the user\n", encoding="utf-8")
        subprocess.run(["git", "init", "--quiet"], cwd=self.project, check=True)
        self.before = self.of_the_user()

    def of_the_user(self) -> dict[str, bytes]:
        """Every file of the workspace but the worker's own."""
        return {
            str(path): path.read_bytes() for path in self.project.rglob("*") if path.is_file() and path.name != WORK
        }

    def run(
        self, *arguments: str, fault: Fault | None = None, shim: bool = False
    ) -> "subprocess.CompletedProcess[str]":
        """The program; with ``shim`` its calls are counted, with ``fault`` one of them fails."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("GOALRUN_", "GIT_", "XDG_"))}
        environment |= {"GOALRUN_HOME": str(self.state), "XDG_CONFIG_HOME": str(self.top), "NO_COLOR": "1"}
        if shim or fault is not None:
            self._count.write_bytes(bytes(8))
            self._log.write_bytes(b"")
            environment |= {"LD_PRELOAD": str(self._shim), "FAULT_ROOT": str(self.state)}
            environment |= {"FAULT_COUNT": str(self._count), "FAULT_LOG": str(self._log)}
        if fault is not None:
            environment |= {"FAULT_AT": str(fault.call.number), "FAULT_KEEP": str(int(fault.keep))}
            environment["FAULT_ERRNO"] = str(ERRORS[fault.error])
        return subprocess.run(
            [sys.executable, "-P", "-m", "goalrun", *arguments],
            cwd=self.project, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=SECONDS,
        )  # fmt: skip

    def start(self, *, fault: Fault | None = None, shim: bool = False) -> "subprocess.CompletedProcess[str]":
        """A goal that takes two turns."""
        worker = f"echo paid >> {self.paid}; echo x >> {WORK}"
        return self.run("start", "two lines", "--worker-cmd", worker, "-c", CHECK, fault=fault, shim=shim)

    def calls(self) -> list[Call]:
        """What the last run with the shim did."""
        return [self._call(*line.split(" ", 2)) for line in self._log.read_text("utf-8").splitlines()]

    def _call(self, number: str, name: str, path: str) -> Call:
        place = path.removesuffix(" !").removeprefix(str(self.state))
        for pattern, text in ((r"g-\d{8}-\w{9}", "GOAL"), (r"\b[0-9a-f]{38}\b", "HASH"), (r"/[0-9a-f]{2}\b", "/XX"),
                              (r"\.\d+\.tmp", ".tmp"), (r"((?:tmp|bulk)\w*[-_])\w{6}\b", r"\1"), (r"/t\w{6}$", "/tmp"),
                              (r"verify-\w{8}", "verify-"), (r"turn-\d", "turn-N")):  # fmt: skip
            place = re.sub(pattern, text, place)
        return Call(int(number), name, f"{name} {place or '/'}")

    def left(self) -> list[str]:
        """The processes that still know of this place."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"FAULT_COUNT={self._count}".encode() in (entry / "environ").read_bytes():
                    found.append(f"process {entry.name} is left: {(entry / 'cmdline').read_bytes()!r}")
        return found

    def journals(self) -> list[Path]:
        """The journal of each goal."""
        return sorted(self.state.glob("goals/*/journal.db"))

    def kinds(self) -> "Counter[str]":
        """How many records of each kind the journals hold."""
        found: Counter[str] = Counter()
        for path in self.journals():
            with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
                found.update(kind for (kind,) in db.execute("SELECT json_extract(body, '$.kind') FROM record"))
        return found


def compiled(folder: Path) -> Path | str:
    """The shim, or why there is none."""
    if sys.platform != "linux":
        return "LD_PRELOAD as it is used here is Linux's"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return "there is no C compiler"
    library = folder / "shim.so"
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, SHIM, "-ldl"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"the shim cannot be compiled: {done.stderr[-300:]}" if done.returncode else library


def attempt(fault: Fault, top: Path, shim: Path) -> Row:
    """A run with a fault, and what is wrong after it; the place is removed if nothing is."""
    disk = Disk(top, shim)
    try:
        done = disk.start(fault=fault)
    except subprocess.TimeoutExpired:
        return Row(fault, -1, "", 0, (f"it hangs: see {top}",))
    problems = [*_wrong_end(done, disk), *disk.left(), *_lost(done, disk), *_wrong_after(done, disk)]
    paid = len(disk.paid.read_text("utf-8").splitlines()) if disk.paid.exists() else 0
    if paid > 3:
        problems.append(f"the worker ran {paid} times")
    if not problems:
        shutil.rmtree(top)
    return Row(fault, done.returncode, _last_word(done), paid, tuple(f"{problem} (see {top})" for problem in problems))


def _last_word(done: "subprocess.CompletedProcess[str]") -> str:
    complaints = [line for line in done.stderr.splitlines() if line.startswith("goalrun: ")]
    return (complaints or [" | ".join(done.stdout.splitlines()[:2])])[-1]


def _wrong_end(done: "subprocess.CompletedProcess[str]", disk: Disk) -> Iterator[str]:
    text = done.stdout + done.stderr
    if done.returncode not in {0, 2, 11}:
        yield f"exit code {done.returncode}: {_last_word(done)}"
    if "Traceback" in text or "a bug in goalrun" in text:
        yield f"a traceback: {text[-500:]}"
    achieved = done.stdout.startswith("achieved")
    work = disk.project / WORK
    if achieved != (done.returncode == 0) or (achieved and work.read_text("utf-8") != "x\nx\n"):
        yield f"exit code {done.returncode}, and it says: {done.stdout!r}"
    complaints = [line for line in done.stderr.splitlines() if line.startswith("goalrun: ")]
    ends = [line for line in done.stdout.splitlines() if line.startswith("error")]
    if done.returncode and len(complaints) + len(ends) != 1:
        yield f"not one clear line: {text[-500:]!r}"


def _lost(done: "subprocess.CompletedProcess[str]", disk: Disk) -> Iterator[str]:
    kept = disk.kinds()
    for kind, line in KINDS.items():
        if (told := len(re.findall(line, done.stderr, re.MULTILINE))) > kept[kind]:
            yield f"{told} records of kind {kind} were acknowledged, {kept[kind]} are there"
    if disk.of_the_user() != disk.before:
        yield "files of the workspace changed"


def _wrong_after(done: "subprocess.CompletedProcess[str]", disk: Disk) -> Iterator[str]:
    """With a disk that works again."""
    before = disk.kinds()
    listed = disk.run("list")
    if listed.returncode or listed.stdout.count("running"):
        yield f"list: {listed.stdout!r} {listed.stderr!r}"
    if done.returncode and '"achieved"' not in disk.run("status", "--json").stdout:
        again = disk.run("resume") if before["goal_created"] else disk.start()
        if again.returncode or not again.stdout.startswith("achieved"):
            yield f"afterwards: exit code {again.returncode}: {again.stdout!r} {again.stderr[-500:]!r}"
    if after := before - disk.kinds():
        yield f"records are gone: {after}"
    for store in disk.state.glob("goals/*/store.git"):
        checked = subprocess.run(
            ["git", "--git-dir", store, "fsck", "--full", "--strict"], capture_output=True, text=True, check=False
        )
        complaints = [line for line in checked.stderr.splitlines() if not line.startswith("notice:")]
        if checked.returncode or complaints:
            yield f"git fsck: {checked.stdout!r} {complaints!r}"


def recorded(top: Path, shim: Path) -> list[Call]:
    """What a run without a fault does."""
    disk = Disk(top, shim)
    done = disk.start(shim=True)
    if done.returncode:
        raise AssertionError(done.stderr)
    return disk.calls()


def faults(calls: Sequence[Call], *, every: bool) -> list[Fault]:
    """Each kind of call, or every call, fails in each way that it can."""
    firsts = {call.kind: call for call in reversed(calls)}
    chosen = list(calls) if every else sorted(firsts.values())
    ways = [(error, keep) for error in ("ENOSPC", "EIO", "EROFS") for keep in (False, True)]
    found = [Fault(call, error, keep) for call in chosen for error, keep in ways]
    return found + [Fault(call, SHORT, keep=False) for call in chosen if call.name in WRITES]


def share(calls: Sequence[Call], number: int, seed: int) -> list[Fault]:
    """Some faults, the same for the same calls: no kind of call twice."""
    chance = random.Random(seed)  # noqa: S311 - which to try
    by_kind: dict[str, list[Fault]] = {}
    for fault in faults(calls, every=True):
        by_kind.setdefault(fault.call.kind, []).append(fault)
    kinds = chance.sample(sorted(by_kind), min(number, len(by_kind)))
    return [chance.choice(by_kind[kind]) for kind in kinds]


def tried(chosen: Sequence[Fault], top: Path, shim: Path, jobs: int) -> Iterator[Row]:
    """Each fault in a place of its own."""
    places = [top / f"fault-{number}" for number in range(len(chosen))]
    for place in places:
        place.mkdir()
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(attempt, chosen, places, [shim] * len(chosen))


def main() -> int:
    """Try, and print the history."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--all", action="store_true")
    options.add_argument("--only", default="", help="faults whose line holds this text")
    options.add_argument("--share", type=int, default=0, help="so many, chosen by chance")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = options.parse_args()
    top = Path(tempfile.mkdtemp(prefix="goalrun-faults-"))
    shim = compiled(top)
    if isinstance(shim, str):
        sys.stderr.write(f"{shim}\n")
        return 2
    (top / "first").mkdir()
    calls = recorded(top / "first", shim)
    chosen = share(calls, asked.share, asked.seed) if asked.share else faults(calls, every=asked.all)
    chosen = [fault for fault in chosen if asked.only in str(fault)]
    rows = []
    for row in tried(chosen, top, shim, asked.jobs):
        rows.append(row)
        sys.stdout.write(f"{row.fault}  → {row.code}, worker ran {row.paid} times  {row.said[:160]}\n")
        for problem in row.problems:
            sys.stdout.write(f"     VIOLATION {problem}\n")
        sys.stdout.flush()
    for title, counted in (
        ("faults by call", Counter(row.fault.call.name for row in rows)),
        ("faults by error", Counter(f"{row.fault.error}{' from there on' if row.fault.keep else ''}" for row in rows)),
        ("exit codes", Counter(str(row.code) for row in rows)),
        ("runs of the worker, of 2 that are needed", Counter(str(row.paid) for row in rows)),
    ):
        sys.stdout.write(f"{title}: {', '.join(f'{name} {number}' for name, number in sorted(counted.items()))}\n")
    bad = sum(bool(row.problems) for row in rows)
    sys.stdout.write(f"{len(calls)} calls in a whole run, {len(rows)} faults, {bad} with violations\n")
    if not bad:
        shutil.rmtree(top)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())

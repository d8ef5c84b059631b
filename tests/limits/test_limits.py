"""What commands may try at full size: floods of output, storms of processes, a full disk, a sandbox that breaks.

A share runs by default, all of it with GOALRUN_LIMITS=all.
"""

import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import MEASURE, PYTHON, Done, Program, slow, write

from goalrun.adapters import isolation
from goalrun.adapters.files import remove_tree
from goalrun.adapters.process import HEAD_BYTES, TAIL_BYTES, Command, run
from goalrun.adapters.sandbox import probe
from goalrun.errors import ProcessFailure

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc, and only Linux adopts orphans"),
    pytest.mark.timeout(300),
]
ALL = os.environ.get("GOALRUN_LIMITS") == "all"
REST = pytest.mark.skipif(not ALL, reason="only with GOALRUN_LIMITS=all")
HOSTILE = Path(__file__).with_name("hostile.py")
MADE = "touch made.txt"
WORKER_OUTPUT = "turns/turn-1/worker-1"
TWO_GB = 2_000_000_000
MAX_PEAK_BYTES = 200 << 20
DEADLINE = "5"
"""Seconds; a thousand processes are started in a fifth of one."""
GENEROUS_SECONDS = 60.0
"""Far above the deadline and the second of grace, far below what the processes would take."""


def one_turn(worker: str, check: str, *options: str) -> tuple[str, ...]:
    """The command line of a goal that has one turn."""
    return ("start", "be good", "--worker-cmd", worker, "-c", check, "--max-turns", "1", "--json", *options)


def evidence(program: Program, done: Done, name: str) -> Path:
    """A file in the goal's folder."""
    return program.home / "goals" / str(done.json["id"]) / name


def skip_without(level: str) -> None:
    """Skip where a level does not work."""
    if reason := probe(level):
        pytest.skip(f"level {level}: {reason}")


def left(marker: str) -> list[int]:
    """The processes that carry a marker, also those whose first thread has ended."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            # A process whose first thread has ended shows its command line in the others alone.
            if entry.name.isdigit() and any(
                marker.encode() in (task / "cmdline").read_bytes() for task in (entry / "task").iterdir()
            ):
                found.append(int(entry.name))
    return found


@pytest.fixture
def marker() -> Iterator[str]:
    """What stands on the command line of every process of a test; the last resort of a failing one."""
    text = f"limits-{secrets.token_hex(8)}"
    yield text
    while found := left(text):
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


# Output

FLOODS = {
    "one line": "head -c {size} /dev/zero",
    "lines": "(yes 'all work and no play' || true) | head -c {size}",
    "no text": r"(yes $'\377\376\200\001' || true) | head -c {size}",
    "escapes": r"(yes $'\033[31mred\033[0m \033]0;title\007 \r\b\xe2\x80\xae' || true) | head -c {size}",
}


@pytest.mark.parametrize(
    ("flood", "size", "level"),
    [
        ("one line", TWO_GB, "bwrap"),
        ("escapes", 20_000_000, "process"),
        *(pytest.param(flood, TWO_GB, level, marks=REST) for flood in FLOODS for level in ("bwrap", "process")),
    ],
)
def test_a_flood_from_a_check_takes_no_memory_and_leaves_its_ends(
    flood: str, size: int, level: str, program: Program, tmp_path: Path
) -> None:
    skip_without(level)
    check = f"test -e made.txt; echo FIRST; {FLOODS[flood].format(size=size)}; echo LAST; exit 1"
    arguments = one_turn(MADE, check, "--sandbox", level)
    done = program.under([sys.executable, "-c", MEASURE, tmp_path / "peak"], *arguments)
    turn = done.json["turn_records"][0]
    kept = evidence(program, done, turn["verification"]["checks"][0]["output"]).read_bytes()
    assert_head_and_tail(kept, size)
    _, _, shown = turn["feedback"].partition("Output:\n")
    assert shown.startswith("FIRST\n")
    assert shown.endswith("LAST\n")
    assert len(shown) < 10_000
    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs"} and c not in "\n\t"]
    assert done.json["state"] == "max_turns"
    assert int((tmp_path / "peak").read_text("ascii")) * 1024 < MAX_PEAK_BYTES


def assert_head_and_tail(kept: bytes, size: int) -> None:
    """Both ends of a flood are there, bounded, and the gap between them is counted."""
    gap = re.search(rb"\n\[\.\.\. (\d+) bytes left out \.\.\.\]\n", kept)
    assert gap is not None
    assert kept.startswith(b"FIRST\n")
    assert kept.endswith(b"LAST\n")
    assert len(kept) - len(gap[0]) <= HEAD_BYTES + TAIL_BYTES
    assert len(kept) - len(gap[0]) + int(gap[1]) == len("FIRST\n") + size + len("LAST\n")


@pytest.mark.parametrize("worker_isolation", [pytest.param("auto", marks=REST), pytest.param("off", marks=REST)])
def test_a_flood_from_a_worker_takes_no_memory_and_leaves_its_ends(
    worker_isolation: str, program: Program, tmp_path: Path
) -> None:
    flood = FLOODS["one line"].format(size=TWO_GB)
    worker = f"echo FIRST; {flood}; echo LAST; echo FIRST >&2; {flood} >&2; echo LAST >&2; touch made.txt"
    arguments = one_turn(worker, "test -e made.txt", "--worker-isolation", worker_isolation)
    done = program.under([sys.executable, "-c", MEASURE, tmp_path / "peak"], *arguments)
    report = done.json["turn_records"][0]["worker"]
    for name in ("stdout", "stderr"):
        assert_head_and_tail((evidence(program, done, WORKER_OUTPUT) / name).read_bytes(), TWO_GB)
    assert (done.code, report["outcome"]) == (0, "ok")
    assert int((tmp_path / "peak").read_text("ascii")) * 1024 < MAX_PEAK_BYTES


# Processes

GOOD_ENDS = {"orphans": "1000 orphans", "let_go": "let go", "headless": "headless"}
DEADLINES = {"storm": "1000 children", "deaf": "deaf", "held": "held", "breeding": "breeding"}
SAID = {**GOOD_ENDS, **DEADLINES}
SHARE = {("storm", "process"), ("orphans", "bwrap"), ("headless", "bwrap")}


@pytest.mark.parametrize(
    ("deed", "level"),
    [
        pytest.param(
            deed,
            level,
            marks=[] if (deed, level) in SHARE else [REST],
        )
        for deed in SAID
        for level in ("bwrap", "landlock", "process")
    ],
)
def test_nothing_of_a_check_is_left(deed: str, level: str, program: Program, marker: str) -> None:
    skip_without(level)
    bring = f"cp {shlex.quote(str(HOSTILE))} ."
    options = ("--sandbox", level, "--check-timeout", DEADLINE)
    done = program.run(*one_turn(bring, f"{PYTHON} hostile.py {deed} {marker}", *options))
    assert left(marker) == []
    found = done.json["turn_records"][0]["verification"]["checks"][0]
    assert evidence(program, done, found["output"]).read_text("ascii") == f"{SAID[deed]}\n"
    assert (done.code, found["outcome"]) == ((0, "pass") if deed in GOOD_ENDS else (3, "timeout"))
    assert found["seconds"] < GENEROUS_SECONDS
    assert program.run("list").code == 0, "the machine can be used"


@pytest.mark.parametrize(
    ("deed", "worker_isolation"),
    [pytest.param(deed, value, marks=REST) for deed in SAID for value in ("auto", "off")],
)
def test_nothing_of_a_worker_is_left(deed: str, worker_isolation: str, program: Program, marker: str) -> None:
    if worker_isolation == "auto" and (reason := isolation.probe()):
        pytest.skip(reason)
    worker = f"{PYTHON} {shlex.quote(str(HOSTILE))} {deed} {marker}"
    options = ("--worker-isolation", worker_isolation, "--turn-timeout", DEADLINE)
    done = program.run(*one_turn(worker, "false", *options))
    assert left(marker) == []
    report = done.json["turn_records"][0]["worker"]
    assert (evidence(program, done, WORKER_OUTPUT) / "stdout").read_text("ascii") == f"{SAID[deed]}\n"
    assert (done.code, report["outcome"]) == (3, "ok" if deed in GOOD_ENDS else "timeout")
    assert report["seconds"] < GENEROUS_SECONDS
    assert program.run("list").code == 0, "the machine can be used"


DIG = """
import os, sys
here = os.open(".", os.O_RDONLY)
for _ in range(int(sys.argv[1])):
    os.mkdir("d", dir_fd=here)
    here = os.open("d", os.O_RDONLY, dir_fd=here)
    os.closerange(3, here)
os.close(os.open("x", os.O_CREAT, dir_fd=here))
"""


@pytest.mark.parametrize(("worker", "check"), [(0, 3000), pytest.param(1500, 0, marks=slow), (3000, 0)])
def test_folders_may_be_deeper_than_a_path_can_be_long(worker: int, check: int, program: Program) -> None:
    """1,500 folders in one another fit into a path, 3,000 do not: git does not see what is in those."""
    dig = f"rm -rf d; {PYTHON} {write(program.home.parent, {'dig.py': DIG}) / 'dig.py'}"
    shutil.rmtree(program.cwd / "tests")
    (program.cwd / "test_shop.py").write_text(
        "import unittest\nclass A(unittest.TestCase):\n    def test(self): 1 / 0\n"
    )
    options = ("--sandbox", "process", "--max-turns", "2", "--worker-isolation", "off")
    done = program.start(*options, worker=f"date > now; {dig} {worker}", check=f"{dig} {check}; {PYTHON} -m unittest")
    # What pytest does with old folders cannot.
    remove_tree(program.cwd)
    assert done.code == 3, done.err


# A full disk


@pytest.fixture
def grow(program: Program) -> Iterator[Callable[[], None]]:
    """A state folder on a disk of three megabytes, and what makes it larger."""

    def mount(*options: str) -> str:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(program.home)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr.strip()

    program.home.mkdir(mode=0o700)
    if os.geteuid() != 0 or (reason := mount("size=3m", "mode=0700")):
        pytest.skip(f"no small disk can be made: {reason if os.geteuid() == 0 else 'only root can mount one'}")
    try:
        yield lambda: _expect_nothing(mount("remount", "size=100m"))
    finally:
        subprocess.run(["umount", str(program.home)], check=True)


def _expect_nothing(said: str) -> None:
    assert said == ""


FULL: dict[str, tuple[str, str]] = {
    "evidence of a check": (MADE, "test -e made.txt; head -c 5000000 /dev/zero"),
    "files of a check": (MADE, "test -e made.txt; head -c 50000000 /dev/zero > big || true; echo said"),
    "output of a worker": ("head -c 5000000 /dev/zero; touch made.txt", "test -e made.txt"),
}


@pytest.mark.usefixtures("grow")
def test_output_that_finds_no_room_is_a_failure_and_takes_none(program: Program) -> None:
    output = program.home / "out"
    command = Command(argv=("head", "-c", "5000000", "/dev/zero"), cwd=program.cwd, env={}, stdout=output, timeout=60.0)
    with pytest.raises(ProcessFailure, match="No space left on device"):
        run(command, lambda _: None, lambda: None)
    # What is recorded next needs the room.
    assert output.stat().st_size == 0


@pytest.mark.parametrize("what", [pytest.param(what, marks=REST) for what in FULL])
def test_a_full_disk_is_an_error_and_the_goal_goes_on_once_there_is_room(
    what: str, program: Program, grow: Callable[[], None]
) -> None:
    done = program.run(*one_turn(*FULL[what]))
    assert (done.code, done.json["state"], done.json["turns"]) == (11, "error", 0)
    assert "No space left on device" in done.json["detail"]
    assert str(program.home) in done.json["detail"]
    assert stored(program, done) == "error"
    grow()
    resumed = program.run("resume", "--json")
    assert (resumed.code, resumed.json["state"], resumed.json["turns"]) == (0, "achieved", 1)


def stored(program: Program, done: Done) -> Any:  # noqa: ANN401 - of JSON
    """The state that a later command finds."""
    return program.run("status", str(done.json["id"]), "--json").json["state"]


# A sandbox that breaks

NEW_USER = ("unshare", "--user", "--map-root-user")
"""Namespaces of its own, in which root may forbid further ones; the machine's stay as they are."""


def forbid(kind: str) -> str:
    """The shell command that lets no more namespaces be made (namespaces(7), /proc/sys/user)."""
    return f"echo 0 > /proc/sys/user/max_{kind}_namespaces"


@pytest.fixture
def confined() -> None:
    """Where namespaces can be nested, and bubblewrap works inside."""
    skip_without("bwrap")
    inside = [*NEW_USER, "bwrap", "--unshare-user", "--ro-bind", "/", "/", "true"]
    done = subprocess.run(inside, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no sandbox inside of a user namespace: {done.stderr.strip()}")


@pytest.mark.usefixtures("confined")
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=REST) for kind in ("user", "net", "pid")])
def test_a_sandbox_that_a_worker_breaks_is_an_error_and_no_pass(kind: str, program: Program) -> None:
    worker = f"touch made.txt; {forbid(kind)}"
    done = program.under(NEW_USER, *one_turn(worker, "test -e made.txt", "--worker-isolation", "off"))
    assert (done.code, done.json["state"], done.json["turns"]) == (11, "error", 0)
    assert "sandbox of a command could not be set up" in done.json["detail"]
    assert "namespace" in done.json["detail"]
    assert stored(program, done) == "error"
    resumed = program.run("resume", "--json")
    assert (resumed.code, resumed.json["turns"]) == (0, 1)
    assert resumed.json["detail"].endswith("sandbox level: bwrap")


@pytest.mark.usefixtures("confined")
@REST
def test_a_sandbox_that_broke_is_not_given_up_for_a_weaker_one(program: Program) -> None:
    worker = f"touch made.txt; {forbid('user')}"
    program.under(NEW_USER, *one_turn(worker, "test -e made.txt", "--worker-isolation", "off"))
    broken = (*NEW_USER, "sh", "-c", f'{forbid("user")}; exec "$@"', "sh")
    assert program.under(broken, "resume", "--json").code != 0


@pytest.mark.usefixtures("confined")
@pytest.mark.parametrize("option", ["--require-sandbox", pytest.param("--sandbox=bwrap", marks=REST)])
def test_a_sandbox_that_cannot_be_set_up_is_refused_at_once(option: str, program: Program) -> None:
    broken = (*NEW_USER, "sh", "-c", f'{forbid("user")}; exec "$@"', "sh")
    done = program.under(broken, *one_turn("touch ran.txt", "true", option))
    assert done.code == 2
    assert "namespace" in done.err.splitlines()[-2]
    assert not (program.cwd / "ran.txt").exists()

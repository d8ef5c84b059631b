"""A state folder on a file system without kernel locks: the owner's identity decides, and goalrun says so."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from locks.shims import NEEDS_LINUX, NO_FLOCK, REST, held_at, shim
from support import GOOD_WORKER, Program, finish, wait_until

pytestmark = NEEDS_LINUX
DAY = 86_400
NOTE = "note: the state folder's file system has no kernel locks"
START = ("start", "x", "--worker-cmd", "true", "-c", "false")
HOLDER = """
import sys
from pathlib import Path
from goalrun.adapters.lock import WorkspaceLock
from goalrun.adapters.points import EVENT

home, workspace, goal, point, nth = sys.argv[1:]
left = int(nth)

def wait(event, arguments):
    global left
    if event == EVENT and arguments[0] == point:
        left -= 1
        if left == 0:
            print("at the point", flush=True)
            sys.stdin.readline()

sys.addaudithook(wait)
lock = WorkspaceLock(Path(home), Path(workspace), goal)
lock.acquire(wait=True, poll=lambda: None, on_wait=lambda who: print("waits", who, flush=True))
print("holds", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
"""


def holder(tmp_path: Path, goal: str, point: str = "", nth: int = 0) -> "subprocess.Popen[str]":
    """A process that wants the workspace, where flock(2) fails; it can be held at a point on its way."""
    (tmp_path / "ws").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "state", tmp_path / "ws", goal, point, str(nth)],
        env={**os.environ, **shim(tmp_path), **NO_FLOCK["ENOSYS"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def says(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_who_has_a_number_that_nobody_can_see_yet_is_waited_for(tmp_path: Path) -> None:
    """The first one's claim, its third file after its wish and the counter, is written but has no name yet."""
    first = holder(tmp_path, "g-first", "file written", 3)
    assert says(first) == "at the point"
    second = holder(tmp_path, "g-second")
    assert says(second) == f"waits goal g-first (pid {first.pid}) has {tmp_path / 'ws'}"
    go_on(first)
    assert says(first) == "holds"
    go_on(first)
    assert says(first) == "released"
    assert says(second) == "holds"
    for process in (first, second):
        process.communicate("\n")


def test_who_died_before_it_had_a_number_is_not_waited_for(tmp_path: Path) -> None:
    first = holder(tmp_path, "g-first", "lock choosing", 1)
    assert says(first) == "at the point"
    first.kill()
    first.communicate()
    second = holder(tmp_path, "g-second")
    assert says(second) == "holds"
    second.communicate("\n")


@pytest.mark.parametrize("name", ["ENOLCK", *(pytest.param(each, marks=REST) for each in ("ENOSYS", "EOPNOTSUPP"))])
def test_a_goal_runs_and_says_what_it_rests_on(name: str, program: Program, tmp_path: Path) -> None:
    program.environment = {**shim(tmp_path), **NO_FLOCK[name]}
    done = program.start("--json", worker=GOOD_WORKER)
    assert (done.code, done.json["state"]) == (0, "achieved"), done.err
    assert done.err.count(NOTE) == 1
    doctor = program.run("doctor")
    assert doctor.code == 0
    assert re.search(r"^-- +kernel locks +not in the state folder's file system$", doctor.out, re.MULTILINE)
    program.environment = {}
    assert NOTE not in program.start("--force", worker="true").err


def test_a_file_system_without_any_locks_is_refused_in_one_line(program: Program, tmp_path: Path) -> None:
    """SQLite needs fcntl(2) locks: without them there is no journal, and nothing is started."""
    for failure in (errno.ENOLCK, errno.EOPNOTSUPP):
        program.environment = {**shim(tmp_path), **NO_FLOCK["ENOSYS"], "SHIM_FCNTL": str(failure)}
        done = program.start(worker=f"touch {tmp_path}/ran", check="false")
        assert done.code == 11
        assert "has no file locks (fcntl)" in done.err
        assert "GOALRUN_HOME" in done.err
        assert not (tmp_path / "ran").exists()
    program.environment = {}
    assert program.goals() == []


def test_a_live_holder_is_not_robbed_whatever_the_clock_says_and_a_dead_one_frees(
    program: Program, tmp_path: Path
) -> None:
    without = {**shim(tmp_path), **NO_FLOCK["ENOLCK"]}
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    worker = f"echo x >> {begun}; until test -e {gate}; do sleep 0.02; done; {GOOD_WORKER}"
    program.environment = without
    first = program.spawn("start", "x", "--worker-cmd", worker, "-c", "test -e never")
    wait_until(begun.exists, "the first worker began")
    goal = program.goals()[0]["id"]
    for path in program.home.rglob("*"):
        os.utime(path, (0, 0), follow_symlinks=False)
    for seconds in (DAY, -DAY):
        program.environment = {**without, "SHIM_SECONDS": str(seconds)}
        assert program.run("status", goal, "--json").json["state"] == "running"
        busy = program.start("--no-wait", worker="true", check="false")
        assert (busy.code, f"goal {goal} (pid {first.pid})" in busy.err) == (8, True), busy.err
        again = program.run("resume", goal)
        assert (again.code, "is running already" in again.err) == (8, True), again.err
    first.kill()
    first.communicate()
    assert program.run("status", goal, "--json").json["state"] == "interrupted"
    gate.touch()
    resumed = program.run("resume", goal, "--max-turns", "1", "--json")
    assert (resumed.code, resumed.json["turns"]) == (3, 1), resumed.err
    assert begun.read_text("ascii") == "x\nx\n"


def test_two_resumes_at_once_one_wins(program: Program, tmp_path: Path) -> None:
    program.environment = {**shim(tmp_path), **NO_FLOCK["ENOSYS"]}
    program.start("--max-turns", "1", worker="date +%N > n.txt", check="false")
    goal = program.goals()[0]["id"]
    with held_at(program, "runner locked", "resume", goal, "--max-turns", "2") as first:
        second = program.run("resume", goal, "--max-turns", "2")
        assert second.code == 8
        assert f"goal {goal} is in the hands of another command" in second.err
        assert first.finish().code == 3
    assert program.goals()[0]["turns"] == 2


def test_a_claim_of_another_host_counts_and_the_way_out_is_told(program: Program, tmp_path: Path) -> None:
    """The first lock that is held is the claim on the goal's own folder, the second that on the workspace."""
    program.environment = {**shim(tmp_path), **NO_FLOCK["ENOSYS"]}
    with held_at(program, "lock held", *START, nth=2) as first:
        (record,) = (program.home / "locks").glob("*.json")
        first.process.kill()
        first.process.communicate()
    claim = json.loads(record.read_bytes())
    claim["owner"]["host"] = "elsewhere"
    record.write_text(json.dumps(claim), "utf-8")
    busy = program.start("--no-wait", worker="true", check="true")
    assert busy.code == 8
    assert f"on elsewhere) has {program.cwd}; if that process is gone, remove {record}" in busy.err
    waiting = program.spawn("start", "x", "--worker-cmd", "true", "-c", "true")
    wait_until(lambda: "on elsewhere" in program.goals()[0]["detail"], "it waits")
    record.unlink()
    assert finish(waiting).code == 0

"""Nothing grows that need not: many goals, long journals, many turns, many files.

A small share by default; the sizes that are promised with GOALRUN_LARGE=all (about half an hour). No time is measured
here: ``bench/run.py growth`` prints how long commands take, and what that is of their time in a small state folder.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from large.states import BEGIN, long_journal, many_goals
from support import Program, repository, script

from goalrun.adapters.home import Home
from goalrun.adapters.journal import records, replay
from goalrun.adapters.views import JOURNAL

ALL = os.environ.get("GOALRUN_LARGE") == "all"
GOALS, RECORDS, TURNS_RECORDED = (10_000, 100_000, 500) if ALL else (200, 600, 30)
TURNS, EARLY, LATE = (500, 20, 480) if ALL else (24, 4, 22)
FILES = 80_000 if ALL else 800
MAX_PEAK_BYTES = 150 << 20
LISTED = 20
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.timeout(3600 if ALL else 180),
]

WATCHED = """
import atexit, json, os, sqlite3, sys
connected, statements, connect = [], [], sqlite3.connect
def traced(*arguments, **options):
    db = connect(*arguments, **options)
    db.set_trace_callback(statements.append)
    return db
sqlite3.connect = traced
sys.addaudithook(lambda event, seen: connected.append(str(seen[0])) if event == "sqlite3.connect" else None)
@atexit.register
def tell():
    with open(os.environ["SEEN"], "w") as file:
        json.dump([connected, statements], file)
from goalrun.__main__ import main
sys.exit(main())
"""


class Seen(NamedTuple):
    """What a run of the program did to journals."""

    out: str
    connected: list[str]
    statements: list[str]


def watched(program: Program, *arguments: str) -> Seen:
    """Run the program, and see which databases it opens and what it asks of them."""
    seen = program.home.parent / "seen.json"
    done = subprocess.run(
        [sys.executable, "-P", "-c", WATCHED, *arguments],
        cwd=program.cwd,
        env={**program.env(), "SEEN": str(seen)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Seen(done.stdout, *json.loads(seen.read_text()))


def test_looking_opens_no_more_journals_among_many_goals_than_among_few(program: Program, project: Path) -> None:
    home = Home(program.home)
    mine = many_goals(home, project, 1)[0]
    others = many_goals(home, project.parent, GOALS, BEGIN + timedelta(days=1))
    listed = watched(program, "list", "--json")
    found = json.loads(listed.out)
    newest = [Path(name.split("?")[0]).parent.name for name in listed.connected]
    assert newest == sorted(others, reverse=True)[:LISTED]
    assert (len(found["goals"]), found["more"], len(listed.connected)) == (LISTED, GOALS + 1 - LISTED, LISTED)
    for arguments in (("status",), ("status", mine), ("show", "--json"), ("logs",)):
        seen = watched(program, *arguments)
        assert mine in seen.out or arguments == ("logs",)
        assert {Path(name.split("?")[0]).parent.name for name in seen.connected} == {mine}, arguments


def test_looking_at_a_goal_reads_none_of_its_records_and_its_turns_only_to_show_them(
    program: Program, project: Path
) -> None:
    home = Home(program.home)
    goal = many_goals(home, project, 1)[0]
    long_journal(home.folder(goal), RECORDS, TURNS_RECORDED)
    for arguments, turns in ((("list",), False), (("status",), False), (("status", "--json"), True), (("show",), True)):
        seen = watched(program, *arguments)
        assert not [statement for statement in seen.statements if "FROM record" in statement], arguments
        assert any("FROM turn" in statement for statement in seen.statements) is turns, arguments
    assert len(json.loads(watched(program, "show", "--json").out)["turn_records"]) == TURNS_RECORDED


def test_following_a_journal_reads_each_record_once(program: Program, project: Path) -> None:
    home = Home(program.home)
    goal = many_goals(home, project, 1)[0]
    long_journal(home.folder(goal), RECORDS, TURNS_RECORDED)
    path = home.folder(goal) / JOURNAL
    everything = list(records(path))
    last = everything[-1].seq
    assert len(everything) == last
    assert [record.seq for record in records(path, after=last - 3)] == [last - 2, last - 1, last]
    assert list(records(path, after=last)) == []
    assert len(replay(path).turns) == TURNS_RECORDED


class Grown(NamedTuple):
    """What a running goal has, as seen from outside."""

    descriptors: int
    threads: int
    processes: int
    temporary: int
    state: tuple[str, ...]


def grown(pid: int, program: Program, temporary: Path) -> Grown:
    """What may not grow; the store's objects and refs, and the evidence of each turn, do so by their nature."""
    kept = ("/turns/", "/store.git/objects/", "/store.git/refs/")
    paths = (
        # How many objects a worktree for checks has counts, and not which.
        re.sub(r"(/[.]git/objects/).*[0-9a-f]{2}.*", r"\1…", str(path.relative_to(program.home)))
        for path in program.home.rglob("*")
    )
    return Grown(
        descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=len(list(Path(f"/proc/{pid}/task").iterdir())),
        processes=len(psutil.Process(pid).children(recursive=True)),
        temporary=sum(1 for _ in temporary.rglob("*")),
        state=tuple(sorted(path for path in paths if not any(name in f"/{path}/" for name in kept))),
    )


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes; proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


WORKER = """
import os, pathlib, sys, time
turn, meeting = os.environ["GOALRUN_TURN"], pathlib.Path(sys.argv[1])
pathlib.Path("note.txt").write_text(turn)
if turn in sys.argv[2:]:
    (meeting / f"at-{turn}").touch()
    end = time.monotonic() + 60
    while not (meeting / f"go-{turn}").exists() and time.monotonic() < end:
        time.sleep(0.01)
"""


@contextmanager
def meeting_at(program: Program, folder: Path, turns: list[int], last: int) -> Iterator[subprocess.Popen[str]]:
    """A goal whose worker waits in some turns until the test has looked."""
    worker = script(folder / "worker.py", WORKER) + f" {shlex.quote(str(folder))} {' '.join(map(str, turns))}"
    limits = ("--max-turns", str(last), "--stuck-after", "0", "--worker-isolation", "off")
    running = program.spawn("start", "count", "--worker-cmd", worker, "-c", "false", *limits, "--json")
    try:
        yield running
        out, err = running.communicate(timeout=3000)
        assert running.returncode == 3, err
        assert json.loads(out)["turns"] == last
    finally:
        running.kill()
        running.communicate()


def test_nothing_of_a_running_goal_grows_with_its_turns(program: Program, tmp_path: Path) -> None:
    folder, temporary = tmp_path / "meeting", tmp_path / "tmp"
    folder.mkdir()
    temporary.mkdir()
    program.environment["TMPDIR"] = str(temporary)
    seen, memory = [], 0
    with meeting_at(program, folder, [EARLY, LATE], TURNS) as running:
        for turn in (EARLY, LATE):
            wait_until_long((folder / f"at-{turn}"), running)
            seen.append(grown(running.pid, program, temporary))
            memory = peak(running.pid)
            (folder / f"go-{turn}").touch()
    assert seen[0] == seen[1]
    assert memory < MAX_PEAK_BYTES
    assert list(temporary.iterdir()) == []


def wait_until_long(path: Path, running: subprocess.Popen[str]) -> None:
    """Wait for a file, for as long as the program that leads to it runs."""
    while not path.exists():
        assert running.poll() is None, running.communicate()
        with_time(running)


def with_time(running: subprocess.Popen[str]) -> None:
    """Let a moment pass, or the program end."""
    try:
        running.wait(timeout=0.05)
    except subprocess.TimeoutExpired:
        return


def test_a_workspace_of_many_files_takes_no_more_memory(tmp_path: Path) -> None:
    folder = tmp_path / "meeting"
    folder.mkdir()
    project = repository(tmp_path / "project", {f"{n % 100}/{n}.txt": f"{n}\n" for n in range(FILES)})
    program = Program(home=tmp_path / "state", cwd=project)
    with meeting_at(program, folder, [2], 2) as running:
        wait_until_long(folder / "at-2", running)
        memory = peak(running.pid)
        (folder / "go-2").touch()
    assert memory < MAX_PEAK_BYTES

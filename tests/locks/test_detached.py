"""Goals that nobody sits in front of: they outlive their terminal, obey from anywhere, and come back after a reboot."""

import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from locks.shims import NEEDS_LINUX, REST, held_at
from support import GOOD_WORKER, PYTHON, Program, finish, running, wait_until

pytestmark = NEEDS_LINUX
CHECK = "grep -q discount.*100 shop.py"


def begin(worker: str, check: str = CHECK) -> tuple[str, ...]:
    return ("start", "x", "--worker-cmd", worker, "-c", check, "--no-baseline")


def gated(tmp_path: Path) -> tuple[str, Path, Path]:
    """A worker that says that it has begun and waits until it is let go."""
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    return f"echo x >> {begun}; until test -e {gate}; do sleep 0.02; done; {GOOD_WORKER}", begun, gate


def state(program: Program, goal: str = "") -> dict[str, Any]:
    return program.run("status", *([goal] if goal else []), "--json").json


def rebooted(program: Program, goal: str) -> None:
    """Kill a goal's process, and let its owner record be of another boot: pids start anew after one."""
    path = program.home / "goals" / goal / "owner.json"
    owner = json.loads(path.read_bytes())
    os.kill(owner["pid"], signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{owner['pid']}").exists() or state(program, goal)["pid"] is None, "it is dead")
    path.write_text(json.dumps({**owner, "boot": "another", "pid": os.getpid()}), "utf-8")


def test_a_goal_outlives_the_terminal_and_the_shell_that_it_was_started_from(program: Program, tmp_path: Path) -> None:
    worker, begun, gate = gated(tmp_path)
    command = shlex.join(["-P", "-m", "goalrun", *begin(worker), "--detach"])
    terminal, inside = pty.openpty()
    shell = subprocess.Popen(
        ["setsid", "--ctty", "bash", "-c", f"{PYTHON} {command} > {tmp_path}/id; cat"],
        cwd=program.cwd, env=program.env(), stdin=inside, stdout=inside, stderr=inside,
    )  # fmt: skip
    os.close(inside)
    wait_until(begun.exists, "the worker began")
    wait_until(lambda: (tmp_path / "id").read_text("ascii").endswith("\n"), "the id was printed")
    # The terminal goes, with a SIGHUP for its session; the shell is killed too.
    os.close(terminal)
    shell.kill()
    shell.wait()
    goal = (tmp_path / "id").read_text("ascii").strip()
    assert state(program, goal)["state"] == "running"
    gate.touch()
    wait_until(lambda: state(program, goal)["state"] == "achieved", "it is achieved")
    assert begun.read_text("ascii") == "x\n"


def test_commands_work_from_anywhere_and_one_that_follows_leaves_the_goal_alone(
    program: Program, tmp_path: Path
) -> None:
    worker, begun, gate = gated(tmp_path)
    goal = program.run(*begin(worker), "--detach").out.strip()
    wait_until(begun.exists, "the worker began")
    away = Program(program.home, tmp_path / "away", {"HOME": str(tmp_path / "away")})
    away.cwd.mkdir()
    following, cut = (away.spawn("logs", "--follow", goal) for _ in range(2))
    assert cut.stdout is not None
    assert cut.stdout.readline()
    cut.send_signal(signal.SIGINT)
    assert finish(cut).code == 130
    assert state(away, goal)["state"] == "running"
    assert away.run("pause", goal).out == f"paused  {goal}\n"
    assert finish(following).code == 0
    gate.touch()
    assert away.run("resume", goal, "--detach").code == 0
    followed = away.run("logs", "--follow", goal)
    assert (followed.code, state(away, goal)["state"]) == (0, "achieved")
    assert away.run("stop", goal).code == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_detached_goal_that_the_system_ends_is_interrupted_and_brought_back(
    number: signal.Signals, program: Program, tmp_path: Path
) -> None:
    """What a shutdown does: a signal, and time to keep the edits. It is no pause that somebody asked for."""
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    worker = f"echo x >> {begun}; until test -e {gate}; do sleep 0.02; done; {GOOD_WORKER}"
    goal = program.run(*begin(worker), "--detach").out.strip()
    wait_until(begun.exists, "the worker began")
    os.kill(state(program, goal)["pid"], number)
    wait_until(lambda: state(program, goal)["pid"] is None, "it has ended")
    assert state(program, goal)["state"] == "interrupted"
    assert running(str(gate)) == []
    gate.touch()
    assert program.run("resume", "--all").out == f"resumed  {goal}\n"
    wait_until(lambda: state(program, goal)["state"] == "achieved", "it is achieved")


def test_after_a_reboot_all_that_were_interrupted_come_back_and_nothing_else(program: Program, tmp_path: Path) -> None:
    worker, begun, gate = gated(tmp_path)
    folders = {name: tmp_path / name for name in ("one", "gone", "paused", "stopped")}
    goals = {}
    for name, folder in folders.items():
        shutil.copytree(program.cwd, folder)
        goals[name] = program.run(*begin(worker), "--detach", cwd=folder).out.strip()
    wait_until(lambda: begun.exists() and begun.read_text("ascii") == "x\n" * 4, "all began")
    assert program.run("pause", goals["paused"]).code == 0
    assert program.run("stop", goals["stopped"]).code == 0
    for name in ("one", "gone"):
        rebooted(program, goals[name])
        assert state(program, goals[name])["state"] == "interrupted"
    folders["gone"].rename(tmp_path / "elsewhere")
    gate.touch()
    away = Program(program.home, tmp_path)
    done = away.run("resume", "--all", "--json")
    told = {each["id"]: (each["resumed"], each["detail"]) for each in done.json["goals"]}
    assert told == {goals["one"]: (True, ""), goals["gone"]: (False, f"the workspace {folders['gone']} is gone")}
    assert done.code == 2
    assert f"goalrun: {goals['gone']}: the workspace {folders['gone']} is gone" in done.err
    wait_until(lambda: state(program, goals["one"])["state"] == "achieved", "it is achieved")
    assert [state(program, goals[name])["state"] for name in ("paused", "stopped")] == ["paused", "stopped"]
    (tmp_path / "elsewhere").rename(folders["gone"])
    assert away.run("resume", "--all").out == f"resumed  {goals['gone']}\n"
    wait_until(lambda: state(program, goals["gone"])["state"] == "achieved", "it is achieved")
    nothing = away.run("resume", "--all")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "no goal is interrupted\n")


def test_all_excludes_what_is_for_one_goal(program: Program) -> None:
    for arguments in (("g-1",), ("--hint", "x"), ("--max-turns", "3"), ("--no-wait",)):
        refused = program.run("resume", "--all", *arguments)
        assert (refused.code, "--all takes no goal" in refused.err) == (2, True)


@pytest.mark.parametrize(
    "record",
    [b"", b'{"pid": 1', {"boot": "another"}, {"start": "1"},
     *(pytest.param(each, marks=REST) for each in (b"{", b"\xff\x00", b"[]", {"pid": 2**22 - 1}))],
    ids=["empty", "cut", "another boot", "recycled pid", "half", "bytes", "list", "no such pid"],
)  # fmt: skip
def test_an_owner_record_that_proves_nobody_alive_is_an_interrupted_goal(
    record: "bytes | dict[str, Any]", program: Program
) -> None:
    """The record as a crash or a disk left it; the pid is that of a process that lives."""
    with held_at(program, "journal run_started durable", *begin(GOOD_WORKER)) as run:
        (path,) = (program.home / "goals").glob("*/owner.json")
        owner = json.loads(path.read_bytes())
        run.process.kill()
        run.process.communicate()
    if isinstance(record, dict):
        record = json.dumps({**owner, "pid": os.getpid(), **record}).encode()
    path.write_bytes(record)
    assert (state(program)["state"], state(program)["pid"]) == ("interrupted", None)
    assert program.run("stop").code == 0
    assert program.run("resume").code == 0


def test_an_owner_of_another_host_counts_until_the_lock_says_better(program: Program) -> None:
    """Nobody here can look there, but a kernel lock that is free has no holder anywhere."""
    with held_at(program, "journal run_started durable", *begin(GOOD_WORKER)) as run:
        (path,) = (program.home / "goals").glob("*/owner.json")
        owner = json.loads(path.read_bytes())
        run.process.kill()
        run.process.communicate()
    path.write_text(json.dumps({**owner, "host": "elsewhere"}), "utf-8")
    assert state(program)["state"] == "running"
    stopped = program.run("stop")
    assert (stopped.code, stopped.out.startswith("stopped")) == (0, True), stopped
    assert program.run("resume").code == 0


def unit(name: str) -> str:
    """A block of the page, by the name of the file that it is to be."""
    page = (Path(__file__).parents[2] / "docs" / "unattended.md").read_text("utf-8")
    return page.partition(f"`{name}`")[2].partition("```")[2].partition("\n")[2].partition("```")[0]


def test_the_systemd_unit_is_one(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("no systemd-analyze")
    text = unit("goalrun.service").replace("%h/.local/bin/goalrun", sys.executable)
    (tmp_path / "goalrun.service").write_text(text, "utf-8")
    done = subprocess.run([verify, "--user", "verify", tmp_path / "goalrun.service"], capture_output=True, check=False)
    said = [line for line in done.stderr.decode().splitlines() if "goalrun.service" in line]
    assert said == []


def test_the_launchd_agent_is_a_property_list() -> None:
    import plistlib

    agent = plistlib.loads(unit("goalrun.resume.plist").encode())
    assert agent["ProgramArguments"][1:] == ["resume", "--all"]
    assert agent["RunAtLoad"] is True
    assert agent["AbandonProcessGroup"] is True

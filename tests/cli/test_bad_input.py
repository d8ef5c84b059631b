"""Bad input gets one clear line, exit 2, and nothing is started or lost."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import CHECK, Program, write

OK = ("--worker-cmd", "true", "-c", "false")


def refused(program: Program, *arguments: str, cwd: Path | None = None, code: int = 2) -> str:
    """The one line that a refused command prints; nothing was started."""
    done = program.run(*arguments, cwd=cwd)
    assert done.code == code, done.err
    assert done.out == ""
    lines = done.err.splitlines()
    assert lines[0].startswith("goalrun: "), done.err
    assert all(line.startswith("  ") for line in lines[1:]), done.err
    assert any(line.startswith("  try: ") for line in lines), f"it does not say what to do next: {done.err}"
    assert "Traceback" not in done.err
    if (program.home / "goals").exists():
        assert list((program.home / "goals").iterdir()) == []
    return done.err


def test_an_empty_objective(program: Program) -> None:
    assert "the objective is empty" in refused(program, "start", "   ", *OK)


def test_an_objective_that_is_too_long_says_to_use_a_file(program: Program, tmp_path: Path) -> None:
    said = refused(program, "start", "x" * 4001, *OK)
    assert "4001" in said
    assert "-f" in said
    path = tmp_path / "long.md"
    path.write_text("x" * 10_000)
    assert program.run("start", "-f", str(path), *OK, "--max-turns", "1").code == 3
    assert len(program.goals()[0]["objective"]) == 10_000


def test_no_check_without_a_terminal_names_the_flag(program: Program) -> None:
    said = refused(program, "start", "x", "--worker-cmd", "true")
    assert '-c "' in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-w", "nope", "-c", "true"), ["unknown agent 'nope'", "claude"]),
        (("-w", "no:pe", "-c", "true"), ["unknown agent 'no:pe'"]),
        (("--worker-cmd", "true", "-c", ""), ["checks.0 is empty"]),
        (("--worker-cmd", "true", "-c", "  "), ["checks.0 is empty"]),
        ((*OK, "--max-turns", "0"), ["max_turns", "greater than or equal to 1"]),
        ((*OK, "--max-turns", "many"), ["max_turns"]),
        ((*OK, "--max-tokens", "0"), ["max_tokens"]),
        ((*OK, "--max-usd", "0"), ["max_usd"]),
        ((*OK, "--max-usd", "-1"), ["max_usd"]),
        ((*OK, "--max-usd", "nan"), ["max_usd"]),
        ((*OK, "--max-time", "0s"), ["max_time"]),
        ((*OK, "--max-time", "soon"), ["soon", "2h"]),
        ((*OK, "--turn-timeout", "0.5"), ["turn_timeout"]),
        ((*OK, "--stuck-after", "-1"), ["stuck_after"]),
        ((*OK, "--verify-in", "moon"), ["worktree or live"]),
        ((*OK, "--protected-edits", "ignore"), ["protected_edits", "reject"]),
        ((*OK, "--pass-env", "LD_PRELOAD"), ["LD_PRELOAD", "never passed on"]),
        ((*OK, "--pass-env", "A=b"), ["'A=b' is no name of a variable"]),
        ((*OK, "--strategy", "compete"), ["--strategy compete needs several workers"]),
        ((*OK, "--judge-only"), ["--judge-only and --check"]),
        (("--worker-cmd", "true", "--judge-only"), ["needs a judge"]),
        ((*OK, "-j", "mini"), ["cannot judge"]),
        ((*OK, "-j", "claude", "--judge-cmd", "true"), ["both a judge"]),
        ((*OK, "-w", "claude"), ["both a worker"]),
        ((*OK, "--no-such-flag"), ["--no-such-flag"]),
        ((*OK, "-f", "/nonexistent.toml"), ["/nonexistent.toml", "No such file"]),
    ],
)
def test_flags(program: Program, arguments: tuple[str, ...], words: list[str]) -> None:
    said = refused(program, "start", "x", *arguments)
    for word in words:
        assert word in said


def test_an_agent_that_is_not_installed(program: Program) -> None:
    bin_folder = program.home.parent / "bin"
    bin_folder.mkdir()
    for name in ("git", "bash"):
        (bin_folder / name).symlink_to(str(shutil.which(name)))
    program.environment = {"PATH": str(bin_folder)}
    assert "claude is not on PATH" in refused(program, "start", "x", "-w", "claude", "-c", "true")
    assert "none of claude" in refused(program, "start", "x", "-c", "true")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('checkz = ["true"]', ["unknown key 'checkz'", "'checks'"]),
        ("[limits]\nmax_turn = 3", ["unknown key 'limits.max_turn'", "'max_turns'"]),
        ('checks = ["true"\nworker = 1', ["line 2"]),
        ("[limits]\nmax_turns = 0", ["limits.max_turns"]),
        ("[agents.mine]\ncomand = ['x']", ["unknown key 'agents.mine.comand'", "'command'"]),
        ("checks = 'true'", ["checks: must be a list"]),
    ],
)
def test_configuration_files_name_the_file_and_the_key(program: Program, text: str, words: list[str]) -> None:
    write(program.cwd, {"goalrun.toml": text})
    said = refused(program, "start", "x", *OK)
    assert str(program.cwd / "goalrun.toml") in said
    for word in words:
        assert word in said


def test_an_agent_cannot_be_called_as_commands_are(program: Program) -> None:
    write(program.cwd, {"goalrun.toml": "[agents.command]\ncommand = ['true']"})
    assert "no agent can be called 'command'" in refused(program, "start", "x", "-w", "command", "-c", "false")


def test_a_configuration_that_is_no_file_is_not_passed_over(program: Program) -> None:
    path = program.cwd / "goalrun.toml"
    path.mkdir()
    assert f"{path} is no regular file" in refused(program, "start", "x", *OK)
    path.rmdir()
    os.mkfifo(path)
    assert f"{path} is no regular file" in refused(program, "start", "x", *OK)


def test_a_file_without_an_end_is_no_objective(program: Program) -> None:
    assert "is longer than" in refused(program, "start", "-f", "/dev/zero", *OK)


def test_a_workspace_that_contains_the_state_folder(program: Program, tmp_path: Path) -> None:
    program.home = tmp_path / "project" / ".state"
    said = refused(program, "start", "x", *OK)
    assert "contains the state folder" in said
    link = tmp_path / "elsewhere"
    link.symlink_to(tmp_path / "project" / ".state")
    program.home = link
    assert "contains the state folder" in refused(program, "start", "x", *OK)


def test_a_workspace_that_contains_goalrun_itself(program: Program) -> None:
    import goalrun

    package = Path(goalrun.__file__).resolve().parent
    said = refused(program, "start", "x", *OK, cwd=package)
    assert "goalrun's own code" in said


def test_the_inside_of_a_repository(program: Program, project: Path) -> None:
    assert "repository's own folder" in refused(program, "start", "x", *OK, cwd=project / ".git" / "refs")


def test_no_git(program: Program, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program.environment = {"PATH": str(tmp_path / "bin")}
    assert "git is not on PATH" in refused(program, "start", "x", *OK)


def test_an_old_git(program: Program, tmp_path: Path) -> None:
    write(tmp_path, {"bin/git": "#!/bin/sh\necho git version 2.20.1\n"})
    (tmp_path / "bin/git").chmod(0o755)
    program.environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    assert "git 2.20.1 is too old" in refused(program, "start", "x", *OK)


def test_a_state_folder_that_is_not_ours(program: Program, tmp_path: Path) -> None:
    program.home = write(tmp_path / "other", {"letter.txt": "dear"})
    said = refused(program, "start", "x", *OK)
    assert "other files" in said
    assert sorted(path.name for path in program.home.iterdir()) == ["letter.txt"]


def test_a_state_folder_that_is_a_file(program: Program, tmp_path: Path) -> None:
    program.home = tmp_path / "file"
    program.home.write_text("x")
    assert "not a folder" in refused(program, "start", "x", *OK)


def test_a_state_folder_that_cannot_be_written(program: Program) -> None:
    # /proc refuses new folders to everybody, root included.
    program.home = Path("/proc/goalrun-state")
    assert "state folder" in refused(program, "start", "x", *OK)


def test_a_state_folder_of_a_newer_goalrun(program: Program) -> None:
    write(program.home, {"goalrun-state": "99\n"})
    assert "newer goalrun" in refused(program, "start", "x", *OK)


def test_goal_ids_that_are_unknown_or_ambiguous(program: Program) -> None:
    assert "there is no goal 'g-nope'" in refused(program, "status", "g-nope")
    assert "there is no goal" in refused(program, "resume", "../../etc")
    for _ in range(2):
        assert program.run("start", "x", *OK, "--max-turns", "1").code == 3
    done = program.run("status", "g-")
    assert done.code == 2
    assert "ambiguous" in done.err
    for goal in program.goals():
        assert program.run("status", goal["id"][2:], "--json").json["id"] == goal["id"]


def test_a_resume_with_bad_limits(program: Program) -> None:
    program.run("start", "x", *OK, "--max-turns", "1")
    for arguments in (("--max-turns", "0"), ("--max-turns", "+x"), ("--max-time", "later")):
        done = program.run("resume", *arguments)
        assert done.code == 2, done.err
        assert "  try: " in done.err
        assert arguments[0].replace("-", "_").strip("_") in done.err.replace("-", "_")


def test_a_deleted_current_folder(program: Program, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = program.run("list", cwd=gone)
    assert done.code == 0
    code = (
        "import os, sys\n"
        f"os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})\n"
        "arguments = [sys.executable, *'-P -m goalrun start x --worker-cmd true -c true'.split()]\n"
        "os.execv(sys.executable, arguments)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], env=program.env(), capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "current folder is gone" in run.stderr


def test_a_damaged_journal_is_named_and_left_alone(program: Program) -> None:
    program.run("start", "x", *OK, "--max-turns", "1")
    goal = program.goals()[0]["id"]
    path = program.home / "goals" / goal / "journal.db"
    for extra in ("-wal", "-shm"):
        path.with_name(path.name + extra).unlink(missing_ok=True)
    path.write_bytes(b"garbage" * 1000)
    done = program.run("resume", goal)
    assert done.code == 11
    assert str(path) in done.err
    assert path.read_bytes() == b"garbage" * 1000


def test_start_needs_no_git_repository_but_verify_does(program: Program, tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", {"a": "b"})
    assert "revision" in refused(program, "verify", "-c", "true", cwd=plain)


def test_verify_says_passed_failed_and_tampered(program: Program, project: Path) -> None:
    assert program.run("verify", "-c", CHECK).code == 12
    write(project, {"shop.py": "def total(prices, discount=0):\n    return 180\n"})
    passed = program.run("verify", "-c", CHECK, "--json")
    assert (passed.code, passed.json["outcome"]) == (0, "pass")
    (project / "tests/test_shop.py").write_text("")
    tampered = program.run("verify", "-c", CHECK, "--json")
    assert (tampered.code, tampered.json["outcome"]) == (13, "tampered")
    assert tampered.json["tampering"] == [{"path": "tests/test_shop.py", "kind": "modified"}]
    assert "no revision" in refused(program, "verify", "-c", CHECK, "--base", "nope")

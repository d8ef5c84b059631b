"""init, doctor, clean, config and demo."""

import fcntl
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from large.states import BEGIN, many_goals, write_journal
from support import GOOD_WORKER, Program, shop, write
from terminal import needs_tmux, terminal

from goalrun.adapters.home import Home
from goalrun.adapters.identity import myself
from goalrun.adapters.views import JOURNAL
from goalrun.cli import projects
from goalrun.cli.projects import ASKED
from goalrun.core.events import GoalStopped, RunStarted
from goalrun.core.model import State


@pytest.mark.parametrize(
    ("files", "check"),
    [
        ({"pyproject.toml": "[tool.pytest.ini_options]\n", "tests/test_a.py": ""}, "-m pytest -q"),
        ({"package.json": json.dumps({"scripts": {"test": "node --test"}})}, "npm test"),
        ({"Cargo.toml": "[package]\nname = 'x'\n"}, "cargo test"),
        ({"go.mod": "module x\n"}, "go test ./..."),
        ({"Makefile": "all:\n\ttrue\ntest: all\n\ttrue\n"}, "make test"),
    ],
)
def test_init_proposes_what_the_project_says(
    program: Program, tmp_path: Path, files: dict[str, str], check: str
) -> None:
    folder = write(tmp_path / "fresh", files)
    done = program.run("init", "--yes", cwd=folder)
    assert done.code == 0, done.err
    written = tomllib.loads((folder / "goalrun.toml").read_text())
    assert written["checks"][0].endswith(check)
    again = program.run("init", "--yes", cwd=folder)
    assert again.code == 2
    assert "there already" in again.err


@pytest.mark.parametrize("layout", [["test_a.py"], ["tests/test_a.py"], ["tests/__init__.py", "tests/test_a.py"]])
def test_what_is_proposed_without_pytest_finds_the_tests(program: Program, tmp_path: Path, layout: list[str]) -> None:
    """unittest passes over a folder that is no package."""
    one = "import unittest\nclass A(unittest.TestCase):\n    def test_a(self): pass\n"
    folder = write(tmp_path / "fresh", {name: one if name.endswith("a.py") else "" for name in layout})
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(sys.executable)
    (check,) = projects.proposed_checks(folder, str(tmp_path / "bin"))
    done = program.start(worker="true", check=check, cwd=folder)
    assert "1 passed, 0 failed" in done.out + done.err


def test_init_with_nothing_to_go_by_says_so_and_writes_nothing(program: Program, tmp_path: Path) -> None:
    folder = write(tmp_path / "empty", {"letter.txt": ""})
    assert program.run("init", "--yes", cwd=folder).code == 2
    assert program.run("init", cwd=folder).code == 2
    assert not (folder / "goalrun.toml").exists()


def test_what_init_wrote_is_what_start_uses(program: Program, project: Path) -> None:
    (project / "goalrun.toml").write_text('checks = ["python3 -m unittest discover -s tests"]\n')
    done = program.run("start", "x", "--worker-cmd", GOOD_WORKER, "--json")
    assert (done.code, done.json["turns"]) == (0, 1)


def test_a_goal_file_holds_a_whole_goal_and_flags_outrank_it(program: Program, tmp_path: Path) -> None:
    goal = tmp_path / "goal.toml"
    goal.write_text(
        'objective = "fix it"\nworker_cmd = "false"\nchecks = ["test -e done.txt"]\n[limits]\nmax_turns = 1\n'
    )
    done = program.run("start", "-f", str(goal), "--json")
    assert (done.code, done.json["objective"], done.json["limits"]["max_turns"]) == (3, "fix it", 1)
    over = program.run("start", "-f", str(goal), "--worker-cmd", "touch done.txt", "--json")
    assert over.code == 0


def test_doctor_finds_what_is_needed(program: Program) -> None:
    done = program.run("doctor", "--json")
    assert done.code == 0
    found = {finding["what"]: finding["ok"] for finding in done.json["findings"]}
    assert found["git"] is True
    assert found["bash"] is True
    assert found["state folder"] is True
    program.environment = {"PATH": "/nonexistent"}
    assert program.run("doctor").code == 11


def test_doctor_says_what_to_do_about_the_rest(program: Program) -> None:
    told = program.run("doctor").out
    assert re.search(r"^ok  git  +\d", told, re.MULTILINE)
    assert re.search(r"^--  checks +none are set for[^→]*→ goalrun init", told, re.MULTILINE)
    assert all(len(line) <= 100 for line in told.splitlines())
    (program.cwd / "goalrun.toml").write_text('chekcs = ["true"]\n')
    wrong = program.run("doctor", "--json")
    found = {finding["what"]: finding for finding in wrong.json["findings"]}
    assert (wrong.code, found["settings"]["ok"]) == (0, False)
    assert "did you mean 'checks'" in found["settings"]["found"]


@needs_tmux
def test_init_asks_shows_the_file_and_writes_what_was_answered(program: Program, tmp_path: Path) -> None:
    program.cwd = write(
        tmp_path / "fresh",
        {
            "package.json": json.dumps({"scripts": {"test": "node --test", "lint": "eslint"}}),
            ".github/workflows/ci.yml": "steps:\n  - run: |\n      pip install .\n      mypy\n",
        },
    )
    for name in ("claude", "codex"):
        write(tmp_path / "bin", {name: "#!/bin/sh\n"}).joinpath(name).chmod(0o755)
    program.environment = {"PATH": f"{tmp_path / 'bin'}:{program.env()['PATH']}"}
    with terminal(program, tmp_path / "t", "init", columns=200) as shown:
        shown.wait("1  npm test", "2  mypy   (.github/workflows/ci.yml)", "3  npm run lint   (package.json)", "[1]:")
        for question, answer in (
            ("", "1, 9"),
            ("1, 9 is none of them", "1,2"),
            ("another", "make docs"),
            ("make docs\nanother", ""),
            ("worker (claude, codex) [claude]", "cladue"),
            ("cladue is none of them", "codex"),
            ("judge (claude, codex, none) [codex]", "none"),
            ("US dollars at most", "5"),
            ("running time at most", "soon"),
            ("is no duration", "2h"),
        ):
            shown.wait(*question.split("\n"))
            shown.type(answer)
            shown.press("Enter")
        shown.wait("toml will say", 'worker = "codex"', "write it?")
        assert not (program.cwd / "goalrun.toml").exists()
        shown.press("Enter")
        assert shown.code() == 0
    written = tomllib.loads((program.cwd / "goalrun.toml").read_text())
    limits = {"max_usd": 5.0, "max_time": "2h"}
    checks = ["npm test", "mypy", "make docs"]
    assert written == {"checks": checks, "worker": "codex", "judge": "none", "limits": limits}
    assert program.run("config").code == 0
    assert (program.home / ASKED).exists()


@needs_tmux
def test_init_does_not_ask_what_the_user_has_settled_already(program: Program, tmp_path: Path) -> None:
    write(
        tmp_path / "config" / "goalrun",
        {"config.toml": 'worker_cmd = "true"\njudge = "none"\n[limits]\nmax_turns = 3\n'},
    )
    program.cwd = write(tmp_path / "fresh", {"go.mod": "module x\n"})
    with terminal(program, tmp_path / "t", "init", columns=200) as shown:
        shown.wait("1  go test ./...")
        shown.press("Enter")
        shown.wait("another")
        shown.press("Enter")
        shown.wait("write it?")
        shown.type("n")
        shown.press("Enter")
        assert shown.code() == 0
    assert not (program.cwd / "goalrun.toml").exists()


def test_the_commands_of_a_workflow_that_look_like_checks() -> None:
    workflow = """
on: push
jobs:
  test:
    steps:
      - uses: actions/checkout@v4
      - name: run: pytest is not this
        run: python -m pytest -q
      - run: "ruff check ."
      - run: |
          pip install -e .
          uv run mypy src
          pytest ${{ matrix.more }}
      - run: >-
          npm run lint
        env:
          run: pytest nothing
      - run: rm -rf / # pytest
      - run: cargo clippy -- -D warnings
"""
    found = projects.ci_commands(workflow)
    assert found[:4] == ["python -m pytest -q", "ruff check .", "uv run mypy src", "npm run lint"]
    assert found[-1] == "cargo clippy -- -D warnings"
    assert projects.ci_commands("\x00\n- run: pytest \x1b[2J\n" + "a" * 100_000) == ["pytest"]


def test_clean_removes_achieved_goals_and_never_one_that_can_be_resumed(program: Program) -> None:
    program.start(worker="true", check="true")
    program.start("--max-turns", "1", worker="true", check="false")
    achieved, limited = sorted(program.goals(), key=lambda goal: str(goal["state"]))
    dry = program.run("clean", "--dry-run", "--json").json
    assert dry == {"schema": 1, "removed": [achieved["id"]], "kept": 1, "prepared": 0, "dry_run": True}
    assert len(program.goals()) == 2
    assert program.run("clean", "--older-than", "1h", "--json").json["removed"] == []
    assert program.run("clean").code == 0
    assert [goal["id"] for goal in program.goals()] == [limited["id"]]


def test_config_says_where_values_come_from(program: Program, project: Path) -> None:
    write(project, {"goalrun.toml": "[limits]\nmax_turns = 7\n"})
    found = program.run("config", "--json").json
    assert found["settings"]["limits"]["max_turns"] == 7
    assert found["sources"] == {"limits.max_turns": str(project / "goalrun.toml")}
    assert "limits.max_turns = 7   # " in program.run("config").out


def test_the_demo_catches_the_cheat_and_achieves(program: Program) -> None:
    done = program.run("demo", "--json")
    assert (done.code, done.json["state"], done.json["turns"]) == (0, "achieved", 2)
    assert done.json["turn_records"][0]["verification"]["tampering"][0]["path"] == "tests/test_shop.py"
    told = program.run("demo")
    assert "it had changed tests/test_shop.py" in told.out
    assert "achieved" in told.out


def test_an_agent_of_the_users_own_in_toml_works_and_reports_blocked_by_a_last_line(
    program: Program, project: Path
) -> None:
    write(
        project,
        {
            "goalrun.toml": "[agents.mine]\n"
            'command = ["bash", "-c", "test -s $0 && echo working; echo STOP: no key", "{prompt_file}"]\n'
            'judge = ["false"]\nblocked_line = "STOP:"\n'
        },
    )
    done = program.run("start", "x", "-w", "mine", "-c", "false", "--json")
    assert (done.code, done.json["state"]) == (6, "blocked")
    assert "no key" in done.json["detail"]


def test_version_imports_nothing_slow(program: Program) -> None:
    assert program.run("--version").out.startswith("goalrun ")


def test_clean_keeps_the_newest_of_each_workspace_and_what_somebody_has_in_use(
    program: Program, tmp_path: Path
) -> None:
    other = shop(tmp_path / "other")
    mine = [program.start("--json", worker="true", check="true").json["id"] for _ in range(3)]
    theirs = program.start("--json", worker="true", check="true", cwd=other).json["id"]
    assert program.run("clean", "--keep", "1", "--dry-run", "--json").json["removed"] == mine[1::-1]
    with holding(program.home / "goals" / mine[1] / "run.lock"):
        assert program.run("clean", "--keep", "1", "--json").json["removed"] == [mine[0]]
    assert program.run("status", "--json").json["id"] == mine[2]
    assert program.run("clean", "--json").json["removed"] == [theirs, *mine[:0:-1]]
    assert not list((program.home / "workspaces").glob("*/*"))
    assert "no goal of" in program.run("status").err


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """A kernel lock on a file, as another goalrun has it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_clean_never_removes_a_goal_in_another_state_or_one_that_it_cannot_read(
    program: Program, project: Path
) -> None:
    home = Home(program.home)
    for minutes, state in enumerate(State):
        goal = many_goals(home, project, 1, BEGIN + timedelta(minutes=minutes))[0]
        ending = () if state is State.RUNNING else (GoalStopped(state=state, detail="so it is"),)
        write_journal(home.folder(goal), RunStarted(runner=myself()), *ending)
    owned, damaged, never, achieved = (many_goals(home, project, 1, BEGIN + timedelta(days=n))[0] for n in range(1, 5))
    write_journal(home.folder(owned), RunStarted(runner=myself()))
    (home.folder(owned) / "owner.json").write_text(myself().model_dump_json())
    for goal in (damaged, achieved):
        write_journal(home.folder(goal), GoalStopped(state=State.ACHIEVED, detail="1 check passed"))
    (home.folder(damaged) / JOURNAL).write_bytes(b"garbage" * 500)
    (home.folder(never) / JOURNAL).unlink()
    before = {goal["id"]: goal["state"] for goal in program.goals()}
    assert {"running", "interrupted", "waiting", "error"} <= set(before.values())
    removed = program.run("clean", "--json").json["removed"]
    # What is reached can't be resumed: the goal of each such state, and the newest.
    assert sorted(before[goal] for goal in removed) == ["achieved", "achieved", "done"]
    assert removed[0] == achieved
    assert {goal["id"] for goal in program.goals()} == set(before) - set(removed)

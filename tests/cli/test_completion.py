"""What shells are offered, what a misspelt word is answered with, and the examples in every help."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from support import Program
from typer.testing import CliRunner

from goalrun.cli import completion, fleet_commands, flow_commands, setup_commands
from goalrun.cli.commands import app
from goalrun.cli.examples import EXAMPLES, attach


def offered(program: Program, line: str) -> list[str]:
    """What bash is offered at the end of a line."""
    words = line.split()
    place = len(words) if line.endswith(" ") else len(words) - 1
    # Named after the program (click): python -m goalrun.
    variables = {"_PYTHON _M GOALRUN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(place)}
    program.environment = variables
    try:
        done = program.run()
    finally:
        program.environment = {}
    assert done.err == ""
    return done.out.split()


def test_goals_are_offered_newest_first_by_any_prefix(program: Program) -> None:
    first, second = (str(program.start("--json", worker="true", check="true").json["id"]) for _ in range(2))
    assert offered(program, "goalrun status ") == [second, first]
    assert offered(program, f"goalrun resume {first[:-1]}") == [first]
    assert offered(program, f"goalrun answer {second}") == [second]
    assert offered(program, "goalrun diff g-1999") == []


def test_a_damaged_state_folder_offers_nothing_and_says_nothing(program: Program) -> None:
    goal = str(program.start("--json", worker="true", check="true").json["id"])
    (program.home / "goals" / goal / "journal.db").write_bytes(b"garbage" * 500)
    assert offered(program, "goalrun status ") == [goal]
    (program.home / "goalrun-state").write_text("99\n")
    assert offered(program, "goalrun status ") == []
    program.home = Path("/etc/passwd")
    assert offered(program, "goalrun status ") == []


def test_flows_agents_judges_and_choices_are_offered(program: Program) -> None:
    folder = program.cwd / ".goalrun" / "flows"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text("broken [")
    assert offered(program, "goalrun flow show mi") == ["mine"]
    assert "review-and-fix" in offered(program, "goalrun wrap ")
    assert "claude" in offered(program, "goalrun start x -w ")
    assert offered(program, "goalrun start x -w codex,cla") == ["codex,claude"]
    assert "none" in offered(program, "goalrun start x -j ")
    assert offered(program, "goalrun start --sandbox b") == ["bwrap"]
    assert offered(program, "goalrun start --strategy ") == ["compete", "synthesize"]
    assert offered(program, "goalrun wat") == ["watch"]
    (program.cwd / "goalrun.toml").write_text("not [ toml")
    assert offered(program, "goalrun start x -w ") == []


def test_nothing_that_a_shell_would_evaluate_is_offered(
    program: Program, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "x$(touch pwned)`id`\"'"
    program.run("start", evil, "--worker-cmd", "true", "-c", "true")
    (project / "goalrun.toml").write_text('[agents."x$(touch pwned)"]\ncommand = ["true"]\n')
    monkeypatch.setenv("GOALRUN_HOME", str(program.home))
    monkeypatch.chdir(project)
    told = " ".join(f"{goal} {about}" for goal, about in completion.goals(""))
    assert "x touch pwned" in told
    assert not set("$()`\"'") & set(told + "".join(completion.workers("")))


def test_bash_completes_a_goal_with_the_script_that_it_is_given(program: Program) -> None:
    goal = str(program.start("--json", worker="true", check="true").json["id"])
    installed = Path(sys.executable).with_name("goalrun")
    script = (
        'source <("$0" --show-completion bash)\nCOMP_WORDS=(goalrun status g-2)\nCOMP_CWORD=2\n'
        '_goalrun_completion "$0" g-2 status\necho "${COMPREPLY[@]}"\n'
    )
    env = {**program.env(), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        ["bash", "-c", script, str(installed)], env=env, cwd=program.cwd, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == goal


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["strat"], "Did you mean 'start'"),
        (["flow", "shwo", "x"], "Did you mean 'show'"),
        (["start", "--chek", "x"], "--check"),
        (["start", "x", "-c", "true", "-w", "cluade"], "did you mean claude?"),
        (["start", "x", "-c", "true", "--worker-cmd", "true", "-j", "cluade"], "did you mean claude?"),
        (["agents", "test", "codx"], "did you mean codex?"),
        (["flow", "show", "reserch"], "did you mean research?"),
        (["status", "nothing"], "goalrun list shows all"),
    ],
)
def test_a_misspelt_word_is_answered_with_what_may_be_meant(program: Program, words: list[str], answer: str) -> None:
    done = program.run(*words)
    assert (done.code, answer in done.err) == (2, True), done.err


def test_a_misspelt_goal_is_answered_with_the_nearest(program: Program) -> None:
    goal = str(program.start("--json", worker="true", check="true").json["id"])
    wrong = goal[:-2] + ("ab" if goal[-2:] != "ab" else "cd")
    assert f"did you mean {goal}?" in program.run("status", wrong).err


def test_a_wrong_option_names_the_help_of_its_command(program: Program) -> None:
    assert "try: goalrun flow run --help" in program.run("flow", "run", "x", "--nothing").err


def every(group: typer.Typer, above: str = "") -> set[str]:
    names = {f"{above}{each.name or getattr(each.callback, '__name__', '')}" for each in group.registered_commands
             if not each.hidden}  # fmt: skip
    for each in group.registered_groups:
        assert each.typer_instance is not None
        names |= every(each.typer_instance, f"{above}{each.name} ")
    return names


def test_every_command_has_an_example_and_takes_what_it_shows() -> None:
    assert flow_commands.flow.info is not None
    assert setup_commands.agents.info is not None
    assert fleet_commands.fleet.info is not None
    assert every(app) - set(EXAMPLES) == set()
    attach(app)
    for name, lines in EXAMPLES.items():
        told = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"}).output
        for line in lines:
            assert f"    $ {line}\n" in told
            words = shlex.split(line)
            assert words[: 1 + len(name.split())] == ["goalrun", *name.split()]
            used = {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)}
            assert all(option in told for option in used), line

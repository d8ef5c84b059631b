"""Hidden checks: they run last, and the worker learns nothing but that one failed."""

from pathlib import Path

import pytest
from support import GOOD_WORKER, PYTHON, Program, write

SPECIAL = "printf 'def total(prices, discount=0):\\n    return 180\\n' > shop.py"
HIDDEN = (
    'import sys\nsys.path.insert(0, ".")\nfrom shop import total\nassert total([10, 10], 50) == 10, "s3cret detail"\n'
)


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return write(tmp_path / "answers", {"check.py": HIDDEN})


@pytest.mark.parametrize("level", ["auto", "process"])
def test_a_special_cased_solution_is_caught_and_the_worker_learns_nothing_of_the_check(
    program: Program, tmp_path: Path, answers: Path, level: str
) -> None:
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    worker = f"cat > {prompts}/$GOALRUN_TURN; if [ $GOALRUN_TURN = 1 ]; then {SPECIAL}; else {GOOD_WORKER}; fi"
    check = "python3 $GOALRUN_HIDDEN/check.py"
    arguments = ("--hidden-check", check, "--hidden-files", str(answers), "--sandbox", level, "--json")
    done = program.start(*arguments, worker=worker)
    assert (done.code, done.json["turns"]) == (0, 2), done.err
    first = done.json["turn_records"][0]
    assert [entry["outcome"] for entry in first["verification"]["checks"]] == ["pass", "fail"]
    assert first["verification"]["checks"][1]["hidden"] is True
    for prompt in prompts.iterdir():
        text = prompt.read_text()
        assert "further checks that you are not shown" in text
        for leak in ("GOALRUN_HIDDEN", "check.py", "s3cret", "answers"):
            assert leak not in text
    assert "check that you are not shown failed" in (prompts / "2").read_text()


def test_the_files_are_taken_at_start(program: Program, answers: Path) -> None:
    cheat = f"{SPECIAL}; echo > {answers}/check.py"
    check = "python3 $GOALRUN_HIDDEN/check.py"
    arguments = ("--hidden-check", check, "--hidden-files", str(answers), "--max-turns", "1")
    assert program.start(*arguments, worker=cheat).code == 3


def test_hidden_checks_do_not_run_while_others_fail(program: Program) -> None:
    done = program.start("--hidden-check", "true", "--max-turns", "1", "--json", worker="true", check="false")
    assert len(done.json["turn_records"][0]["verification"]["checks"]) == 1


def test_a_base_that_fails_a_hidden_check_is_not_achieved(program: Program) -> None:
    done = program.start("--hidden-check", "test -e done.txt", "--json", worker="touch done.txt", check="true")
    assert (done.code, done.json["turns"]) == (0, 1)
    assert "1 of them hidden" in done.json["detail"]


def test_hidden_files_in_the_workspace_are_refused(program: Program, project: Path, tmp_path: Path) -> None:
    write(project, {"answers/check.py": ""})
    for folder, words in (
        (project / "answers", "not hidden"),
        (tmp_path, "not hidden"),
        (tmp_path / "no", "no folder"),
    ):
        done = program.start("--hidden-files", str(folder), "--hidden-check", "true", worker="true", check="false")
        assert done.code == 2
        assert words in done.err
    alone = program.start("--hidden-files", str(tmp_path.parent), worker="true", check="false")
    assert alone.code == 2
    assert program.goals() == []


def test_with_require_strong_a_check_that_can_only_be_weak_is_refused_before_anybody_is_paid(
    program: Program, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    done = program.start("--require-strong", "--json", worker=f"touch {marker}", check="test -e done.txt")
    assert (done.code, done.json["state"]) == (11, "error")
    assert "can only pass weakly" in done.json["detail"]
    assert not marker.exists()
    strong = program.start("--require-strong", "--json", worker=GOOD_WORKER, check=f"{PYTHON} -m pytest -q")
    assert (strong.code, strong.json["turn_records"][0]["verification"]["outcome"]) == (0, "pass")
    assert "(strong)" in strong.json["detail"]

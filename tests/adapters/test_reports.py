"""Reports of test programs: asked for where that is safe, read with suspicion. Here pytest's."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import write

from goalrun.adapters.reports import Report, prepare
from goalrun.adapters.reports.found import MAX_FAILING, Found, collect
from goalrun.adapters.reports.junit import read_junit
from goalrun.adapters.reports.pytest import Pytest
from goalrun.core.model import TestCounts

CASES = """<?xml version="1.0"?><testsuites><testsuite name="pytest" errors="0" failures="0" tests="0">
<testcase classname="tests.test_a" name="test_good"/>
<testcase classname="tests.test_a" name="test_bad"><failure message="no">trace</failure></testcase>
<testcase classname="tests.test_a" name="test_broken"><failure/><error message="also in teardown"/></testcase>
<testcase classname="" name="tests/test_c.py"><error message="collection"/></testcase>
<testcase classname="tests.test_a" name="test_not"><skipped/></testcase>
</testsuite></testsuites>"""
BOMB = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]>
<testsuites><testcase name="&b;"/></testsuites>"""
COMMAND = f"{shlex.quote(sys.executable)} -m pytest -q -p no:cacheprovider"


def test_test_cases_are_counted_by_themselves_and_not_by_the_totals_that_a_report_claims() -> None:
    found = read_junit(CASES.encode())
    assert found.counts == TestCounts(passed=1, failed=3, skipped=1)
    assert found.failing == ("tests.test_a::test_bad", "tests.test_a::test_broken", "tests/test_c.py")


def test_of_two_tests_with_one_id_the_worse_counts() -> None:
    assert collect([("a", "passed"), ("a", "failed"), ("a", "skipped")]).outcomes == {"a": "failed"}
    assert collect([("a", "skipped"), ("a", "passed")]).outcomes == {"a": "skipped"}


def test_failing_ids_are_bounded_and_safe_to_show() -> None:
    cases = "".join(f'<testcase name="t{n}&#10;&#x202e;"><failure/></testcase>' for n in range(MAX_FAILING + 50))
    found = read_junit(f"<testsuite>{cases}</testsuite>".encode())
    assert found.counts.failed == MAX_FAILING + 50
    assert found.failing == tuple(f"t{n}" for n in range(MAX_FAILING))


@pytest.mark.parametrize("content", [BOMB, "", "<testsuites>", CASES[:-20], "no xml", "<a/><b/>", "<html/>"])
def test_a_report_that_is_cut_no_xml_or_a_bomb_is_none(content: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"report|XML|document type"):
        read_junit(content.encode())
    (tmp_path / "r").write_text(content, "utf-8")
    assert Report("pytest", tmp_path / "r", Pytest()).read(tmp_path / "out") is None


@pytest.mark.parametrize("encoding", ["utf-k", "rot13", "hex", "idna", ""])
def test_a_report_in_an_encoding_that_there_is_not_is_none(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "r").write_text(CASES.replace("?>", f' encoding="{encoding}"?>', 1), "utf-8")
    assert Report("pytest", tmp_path / "r", Pytest()).read(tmp_path / "out") is None


def test_what_is_no_plain_file_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    for path in (tmp_path / "link", tmp_path, tmp_path / "missing"):
        assert Report("pytest", path, Pytest()).read(tmp_path / "out") is None


@pytest.mark.parametrize(
    "command",
    ["pytest", "pytest -q tests", "py.test", "/venv/bin/pytest -x", "python -m pytest", "python3.12 -m pytest -q",
     "CI=1 pytest -k 'a or b'", "A=1 B=2 python3 -m pytest", "python -B -m pytest",
     "coverage run -m pytest -q", "python -m coverage run --branch --source src -m pytest",
     "/venv/bin/coverage run -p --omit='a,b' -m pytest tests"],
)  # fmt: skip
def test_a_plain_run_of_pytest_is_asked_for_a_report_outside_of_the_tree(command: str, tmp_path: Path) -> None:
    report = prepare(command, tmp_path, tmp_path, Path("/seen here"))
    assert report.runner is not None
    assert report.path.parent == tmp_path
    words = shlex.split(command)
    assert shlex.split(report.command)[: len(words)] == words
    assert f"--junitxml=/seen here/{report.path.name}" in shlex.split(report.command)


@pytest.mark.parametrize(
    "command",
    ["make test", "tox", "pytest; true", "pytest && lint", "pytest | tee log", "echo pytest", "python pytest.py",
     "pytest $(ls)", "pytest\nmake", "pytest 'open", "A=1", "", "pytest -- tests", "pytest -q # all",
     'pytest "$X"', "pytest tests/*.py", "! pytest",
     "coverage run tests.py -m pytest", "coverage report -m pytest", "coverage run -m unittest",
     "coverage", "coverage run", "coverage run --source -m pytest"],
)  # fmt: skip
def test_every_other_command_is_left_as_it_is(command: str, tmp_path: Path) -> None:
    report = prepare(command, tmp_path, tmp_path, tmp_path)
    assert (report.command, report.runner) == (command, None)


def test_each_run_has_a_report_that_nobody_can_guess(tmp_path: Path) -> None:
    first, second = (prepare("pytest", tmp_path, tmp_path, tmp_path) for _ in range(2))
    assert first.path != second.path


def ran(folder: Path, command: str = COMMAND) -> tuple[int, Found | None]:
    report = prepare(command, folder, folder.parent, folder.parent)
    done = subprocess.run(["bash", "-c", report.command], cwd=folder, capture_output=True, check=False)
    return done.returncode, report.read(folder / "out")


def test_a_planted_test_fails_and_changes_no_other(tmp_path: Path) -> None:
    files = {
        "tests/test_a.py": "import unittest\nclass T(unittest.TestCase):\n    def test_x(self): pass\n",
        "tests/sub/test_b.py": "def test_y(): pass\nif __name__ == '__main__':\n    raise SystemExit\n",
    }
    folder = write(tmp_path / "p", files)
    code, before = ran(folder)
    assert code == 0
    assert before is not None
    for token in ("aaaaaaaa", "bbbbbbbb", "cccccccc"):
        canary = Pytest().plant(folder, before, token)
        assert canary is not None
        code, after = ran(folder)
        assert code == 1
        assert after is not None
        assert after.outcomes[canary] == "failed"
        assert {test: after.outcomes[test] for test in before.outcomes} == before.outcomes


def test_a_program_that_ends_in_the_middle_leaves_no_report(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", {"test_a.py": "import os\nos._exit(0)\n"})
    assert ran(folder) == (0, None)


def test_nothing_is_planted_where_no_test_file_is_known(tmp_path: Path) -> None:
    assert Pytest().plant(tmp_path, collect([("tests/test_c.py", "failed")]), "aaaaaaaa") is None
    assert Pytest().plant(tmp_path, collect([("tests.test_gone::test_a", "passed")]), "aaaaaaaa") is None


def test_variables_in_front_of_a_command_stay_variables(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", {"test_a.py": "import os\ndef test_x(): assert os.environ['A'] == 'b c'\n"})
    code, found = ran(folder, f"A='b c' B= {COMMAND}")
    assert code == 0
    assert found is not None

"""Reports of test programs: asked for where that is safe, read with suspicion."""

from pathlib import Path
from xml.parsers import expat

import pytest

from goalrun.adapters.reports import MAX_FAILING, Report, prepare, read_junit
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


def test_test_cases_are_counted_by_themselves_and_not_by_the_totals_that_a_report_claims() -> None:
    found = read_junit(CASES.encode())
    assert found.counts == TestCounts(passed=1, failed=3, skipped=1)
    assert found.failing == ("tests.test_a::test_bad", "tests.test_a::test_broken", "tests/test_c.py")


def test_failing_ids_are_bounded_and_safe_to_show() -> None:
    cases = "".join(f'<testcase name="t{n}&#10;&#x202e;"><failure/></testcase>' for n in range(MAX_FAILING + 50))
    found = read_junit(f"<testsuite>{cases}</testsuite>".encode())
    assert found.counts.failed == MAX_FAILING + 50
    assert found.failing == tuple(f"t{n}" for n in range(MAX_FAILING))


def test_a_report_that_declares_entities_is_refused() -> None:
    with pytest.raises(ValueError, match="document type"):
        read_junit(BOMB.encode())


@pytest.mark.parametrize("content", ["", "<testsuites>", CASES[:-20], "no xml", "<a/><b/>"])
def test_a_report_that_is_cut_or_no_xml_is_refused(content: str) -> None:
    with pytest.raises(expat.ExpatError):
        read_junit(content.encode())


@pytest.mark.parametrize("content", [BOMB, CASES[:-20], None])
def test_a_report_that_cannot_be_read_is_none(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    if content is not None:
        path.write_text(content, "utf-8")
    assert Report("pytest", path).read() is None


def test_a_folder_or_a_link_to_nowhere_in_its_place_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "report.xml").symlink_to("nowhere")
    assert Report("pytest", tmp_path / "report.xml").read() is None
    assert Report("pytest", tmp_path).read() is None


@pytest.mark.parametrize(
    "command",
    ["pytest", "pytest -q tests", "py.test", "/venv/bin/pytest -x", "python -m pytest", "python3.12 -m pytest -q",
     "CI=1 pytest -k 'a or b'", "A=1 B=2 python3 -m pytest"],
)  # fmt: skip
def test_a_plain_run_of_pytest_is_asked_for_a_report_outside_of_the_tree(command: str, tmp_path: Path) -> None:
    report = prepare(command, tmp_path, Path("/seen here"))
    assert report.path is not None
    assert report.path.parent == tmp_path
    assert report.command.startswith(f"{command} --junitxml='/seen here/{report.path.name}'")


@pytest.mark.parametrize(
    "command",
    ["make test", "tox", "pytest; true", "pytest && lint", "pytest | tee log", "echo pytest", "python -m unittest",
     "python pytest.py", "pytest $(ls)", "pytest\nmake", "pytest 'open", "A=1", "", "pytest -- tests",
     "pytest -q # all"],
)  # fmt: skip
def test_every_other_command_is_left_as_it_is(command: str, tmp_path: Path) -> None:
    assert prepare(command, tmp_path, tmp_path) == Report(command, None)


def test_each_run_has_a_report_that_nobody_can_guess(tmp_path: Path) -> None:
    assert prepare("pytest", tmp_path, tmp_path).path != prepare("pytest", tmp_path, tmp_path).path

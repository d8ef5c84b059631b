"""The floor under a pass: the base's tests by name, and a test that has to fail."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from adapters.goals import goal_spec, store_of, unrecorded
from support import PYTHON, repository, slow, write

from goalrun.adapters import baseline
from goalrun.adapters.baseline import CheckBaseline, compared, differing
from goalrun.adapters.checks import CheckRunner
from goalrun.adapters.environment import path_for_checks
from goalrun.adapters.reports.found import Outcome, collect
from goalrun.adapters.sandbox import ProcessSandbox, Surroundings
from goalrun.adapters.verifier import WorktreeVerifier
from goalrun.core.model import Tamper, VerificationReport
from goalrun.core.spec import VerificationSpec
from goalrun.errors import EnvironmentFailure

PYTEST = f"{PYTHON} -m pytest -q -p no:cacheprovider"
TESTS = "import app\ndef test_one(): assert app.one() == 1\ndef test_two(): assert app.two() == 2\n"
RED = "def one(): return 1\ndef two(): return 0\n"
GREEN = "def one(): return 1\ndef two(): return 2\n"
FILES = {"app.py": RED, "tests/test_app.py": TESTS, "conftest.py": ""}
ALWAYS_PASSED = (
    "import _pytest.reports as r\nold = r.TestReport.from_item_and_call\n"
    "def forged(*a, **k):\n    report = old(*a, **k)\n    report.outcome = 'passed'\n    return report\n"
    "r.TestReport.from_item_and_call = staticmethod(forged)\n"
)
SKIPS = "import pytest\ndef one(): return 1\ndef two(): pytest.skip('later')\n"
HIDES = "import sys\nsys.modules['test_app'] = sys\n"


class Bench:
    """A workspace whose base is red, its verifier, and what it says of each version of the product."""

    def __init__(
        self,
        folder: Path,
        check: str = PYTEST,
        *,
        base: bool = True,
        files: Mapping[str, str] = FILES,
        **verification: object,
    ) -> None:
        self.top = repository(folder / "project", {**FILES, **files})
        path, _ = path_for_checks(os.environ["PATH"], self.top)
        options = VerificationSpec.model_validate({"path": path, **verification})
        spec = goal_spec(self.top, checks=(check,), verification=options)
        store = store_of(spec, folder / "goal")
        self.folder = folder / "goal"
        self.store = store
        runner = CheckRunner(spec, self.folder, ProcessSandbox(Surroundings(self.top, path)), {}, (), lambda: None)
        self._parts = (spec, store, self.folder, runner, "process")
        self.verifier = WorktreeVerifier(*self._parts)
        snapshot = store.snapshot("base")
        self.base = self.verifier.verify_base(snapshot, unrecorded) if base else None

    def resumed(self) -> WorktreeVerifier:
        """The verifier of a later run."""
        return WorktreeVerifier(*self._parts, self.base.floor if self.base else "")

    def verify(self, files: dict[str, str]) -> VerificationReport:
        write(self.top, files)
        return self.verifier.verify(self.store.snapshot("turn-1"), "turn-1", unrecorded)


def test_honest_work_on_a_project_with_named_tests_is_strong(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.base is not None
    assert bench.base.outcome == "fail"
    floor = baseline.load(bench.folder, bench.base.floor).of(PYTEST)
    assert floor.outcomes == {"tests.test_app::test_one": "passed", "tests.test_app::test_two": "failed"}
    assert (floor.weak, floor.flaky) == ("", frozenset())
    report = bench.verify({"app.py": GREEN})
    assert (report.outcome, report.green) == ("pass", True)
    assert report.checks[0].grade == "strong"


def test_a_report_forged_from_inside_is_found_by_the_canary(tmp_path: Path) -> None:
    report = Bench(tmp_path).verify({"app.py": ALWAYS_PASSED + RED})
    assert report.checks[0].outcome == "pass"
    assert (report.outcome, report.green) == ("tampered", False)
    assert report.tampering == (Tamper(path=PYTEST, kind="forged"),)


def test_tests_of_the_base_may_not_be_skipped_now(tmp_path: Path) -> None:
    report = Bench(tmp_path).verify({"app.py": SKIPS})
    assert report.checks[0].outcome == "fail"
    assert "skipped that ran on the base: tests.test_app::test_two" in report.checks[0].reason


THRESHOLD = f"{PYTEST} --cov=. --cov-fail-under=100"
MORE = "def three(): return 3\n"
TESTS_OF_MORE = "import more\ndef test_three(): assert more.three() == 3\n"


@slow
def test_a_threshold_of_coverage_that_only_the_new_tests_reach_is_asked_of_all_tests(tmp_path: Path) -> None:
    bench = Bench(tmp_path, THRESHOLD)
    report = bench.verify({"app.py": GREEN, "more.py": MORE, "tests/test_more.py": TESTS_OF_MORE})
    assert (report.outcome, report.checks[0].grade) == ("pass", "strong")
    report = bench.verify({"tests/test_more.py": "def test_three(): pass\n"})
    assert (report.outcome, report.checks[0].reason) == ("fail", "exit status 1")


@pytest.mark.parametrize(
    "cheat",
    [
        {"app.py": RED, "more.py": MORE, "tests/test_more.py": TESTS_OF_MORE + "import app\napp.two = lambda: 2\n"},
        pytest.param({"app.py": SKIPS, "more.py": MORE, "tests/test_more.py": TESTS_OF_MORE}, marks=slow),
        {"app.py": ALWAYS_PASSED + RED, "more.py": MORE, "tests/test_more.py": TESTS_OF_MORE},
    ],
    ids=["in the new test", "skips", "forged"],
)
def test_without_the_new_tests_all_others_have_to_pass_below_a_threshold_too(
    cheat: dict[str, str], tmp_path: Path
) -> None:
    assert not Bench(tmp_path, THRESHOLD).verify(cheat).green


def test_an_exit_status_that_is_no_threshold_counts_without_the_new_tests(tmp_path: Path) -> None:
    ends = "import app\ndef pytest_sessionfinish(session):\n    if app.late: session.exitstatus = 1\n"
    bench = Bench(tmp_path, files={"app.py": RED + "late = True\n", "conftest.py": ends})
    takes_back = "import app\napp.late = False\ndef test_three(): pass\n"
    report = bench.verify({"app.py": GREEN + "late = True\n", "tests/test_more.py": takes_back})
    assert (report.outcome, report.checks[0].reason) == ("fail", "exit status 1")


def test_what_the_product_writes_over_a_test_while_it_runs_is_found(tmp_path: Path) -> None:
    writes = "import pathlib\npathlib.Path('tests/test_zzz.py').write_text('def test_a(): pass')\n"
    bench = Bench(tmp_path)
    write(bench.top, {})
    report = bench.verify({"app.py": GREEN + writes})
    assert report.outcome == "pass", "a test program may write files of its own"
    over = (
        "import pathlib\npathlib.Path('tests/test_app.py').write_text('def test_one(): pass\\ndef test_two(): pass')\n"
    )
    report = bench.verify({"app.py": RED + over})
    assert not report.green
    assert Tamper(path="tests/test_app.py", kind="escaped") in report.tampering
    conftest = "import pathlib\npathlib.Path('tests/conftest.py').write_text('')\n"
    report = bench.verify({"app.py": GREEN + conftest})
    assert Tamper(path="tests/conftest.py", kind="escaped") in report.tampering


def test_a_check_without_a_known_program_is_weak_and_says_why(tmp_path: Path) -> None:
    bench = Bench(tmp_path, check="grep -q 'return 2' app.py")
    report = bench.verify({"app.py": GREEN})
    assert (report.outcome, report.green) == ("weak_pass", True)
    assert report.checks[0].reason == "judged by exit status alone"


def test_a_check_whose_command_cannot_see_a_new_test_is_weak_and_says_why(tmp_path: Path) -> None:
    bench = Bench(tmp_path, check=f"{PYTEST} tests/test_app.py::test_one tests/test_app.py::test_two")
    report = bench.verify({"app.py": GREEN})
    assert report.outcome == "weak_pass"
    assert "has to fail did not" in report.checks[0].reason


def test_without_a_baseline_passes_are_weak(tmp_path: Path) -> None:
    report = Bench(tmp_path, baseline=False).verify({"app.py": GREEN})
    assert report.outcome == "weak_pass"
    assert report.checks[0].reason == "there is no baseline"


def test_a_damaged_baseline_is_an_error_and_no_pass(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.base is not None
    for damage in ("{}", '{"checks": []}'):
        (bench.folder / baseline.FILE).write_text(damage)
        with pytest.raises(EnvironmentFailure, match="was changed"):
            bench.resumed()
    (bench.folder / baseline.FILE).unlink()
    with pytest.raises(EnvironmentFailure, match="cannot read the baseline"):
        bench.resumed()
    # A run that took the baseline itself does not go by the file.
    assert bench.verify({"app.py": SKIPS}).checks[0].outcome == "fail"


@slow
def test_where_a_check_stops_at_the_first_failure_the_turns_own_canary_decides(tmp_path: Path) -> None:
    bench = Bench(tmp_path, check=f"{PYTEST} -x")
    assert baseline.load(bench.folder, bench.base.floor if bench.base else "").of(f"{PYTEST} -x").unproven
    report = bench.verify({"app.py": GREEN})
    assert (report.outcome, report.checks[0].grade) == ("pass", "strong")
    report = bench.verify({"app.py": ALWAYS_PASSED + RED})
    assert (report.outcome, report.green) == ("tampered", False)
    bench = Bench(tmp_path / "named", check=f"{PYTEST} -x tests/test_app.py::test_one tests/test_app.py::test_two")
    assert bench.verify({"app.py": GREEN}).outcome == "weak_pass"


BASE = CheckBaseline(
    command="c",
    outcomes={"a::x": "passed", "a::y": "failed", "a::z": "skipped", "pkg.test_b": "failed", "a::f": "passed"},
    flaky=frozenset({"a::f"}),
)
ALL: list[tuple[str, Outcome]] = [
    ("a::x", "passed"),
    ("a::y", "passed"),
    ("a::z", "skipped"),
    ("pkg.test_b::t", "passed"),
]


@pytest.mark.parametrize(
    ("tests", "doubt"),
    [
        (ALL, ""),
        ([*ALL, ("a::new", "skipped")], ""),
        ([t for t in ALL if t[0] != "a::x"], "did not run: a::x"),
        ([t for t in ALL if t[0] != "a::y"], "did not run: a::y"),
        ([t for t in ALL if t[0] != "pkg.test_b::t"], "did not run: pkg.test_b"),
        ([*ALL[1:], ("a::x", "skipped")], "skipped that ran on the base: a::x"),
        ([*ALL[2:], ("a::x", "passed"), ("a::y", "skipped")], "skipped that ran on the base: a::y"),
    ],
)
def test_every_test_of_the_base_has_to_run(tests: list[tuple[str, Outcome]], doubt: str) -> None:
    found = collect(tests)
    said = compared(BASE, found)
    assert doubt in said
    assert bool(said) is bool(doubt)


def test_tests_that_come_out_differently_in_two_runs_are_flaky() -> None:
    first = collect([("a", "passed"), ("b", "passed"), ("c", "failed")])
    second = collect([("a", "passed"), ("b", "failed"), ("canary", "failed")])
    assert differing(first, second, "canary") == {"b", "c"}
